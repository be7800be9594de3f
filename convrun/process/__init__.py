"""This process: signals, standard output, threads, device, rank. No torch at the top."""
