"""Slurm: the script, the queue, the submission."""
