"""Image sets: `read(index)` gives an image as it is stored, and its label. Nothing is decoded here."""
