"""Files that carry a checkpoint's check sum whatever they hold, as anybody can make them who knows the source.

A check sum keeps off damage, not malice: behind it, nothing is believed either, and that is what these are for.
"""

import io
import tempfile
from pathlib import Path

import torch

from convrun.checkpoints.sealing import SealedFile


def save_sealed(content, path, **options):
    """`torch.save`, sealed."""
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    path.write_bytes(sealed(stream.getvalue()))


def sealed(content):
    """The same bytes, sealed."""
    with tempfile.TemporaryDirectory() as folder, SealedFile(Path(folder) / "file") as file:
        # The seal is written over the length that an archive ends with.
        file.write(content if content.endswith(b"\0\0") else content + b"\0\0")
        file.seal()
        return (Path(folder) / "file").read_bytes()
