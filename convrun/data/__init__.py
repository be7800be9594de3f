"""Image sets, and the pipeline that brings their images to training and evaluation in an order anyone can recompute."""
