"""What augmentations do to pixels; `convrun.components.augmentations` names them."""
