"""Data -> words: names, units, tables, secrets. Imports no other room."""
