"""What a run leaves in its folder: rows, checkpoints, weights."""
