"""What claims about speed are measured with; each file is a program of its own: `python -m benchmarks.step`."""
