"""Checkpoints: written whole or not at all, kept or deleted by rule, read without running code.

They hold plain tensors and JSON-able values, so `torch.load(weights_only=True)` reads them.
"""

from convrun.checkpoints.files import FORMAT, PARTS, damaged_in, path_of, point, save, set_aside, steps_in
from convrun.checkpoints.reading import begin_from, check_same_tensors, load
from convrun.checkpoints.retention import keep_only
from convrun.checkpoints.tensors import copied
from convrun.checkpoints.writer import BackgroundWriter

__all__ = [
    "FORMAT",
    "PARTS",
    "BackgroundWriter",
    "begin_from",
    "check_same_tensors",
    "copied",
    "damaged_in",
    "keep_only",
    "load",
    "path_of",
    "point",
    "save",
    "set_aside",
    "steps_in",
]
