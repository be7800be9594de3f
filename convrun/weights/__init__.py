"""Weights from elsewhere: found, read without running code, renamed, and loaded into a model."""
