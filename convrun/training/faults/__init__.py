"""What can go wrong in a step: out of memory, numbers that are not finite."""
