"""This process: signals, standard output, threads, device, place among others. No torch at the top."""
