"""Image sets and the feeds that bring their images to training and evaluation, in an order anyone can recompute."""
