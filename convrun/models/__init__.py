"""Model architectures. The components by which a recipe names them are in `convrun.components.models`."""
