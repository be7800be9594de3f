"""Random faults at random times on small runs, and whether anything was lost: `python -m tests.campaign --help`."""
