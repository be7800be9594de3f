"""From one command to processes elsewhere: launching runs, and asking about them later. Nothing here imports torch."""
