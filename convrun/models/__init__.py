"""Model architectures; what a recipe names them by is in `convrun.components.models`."""
