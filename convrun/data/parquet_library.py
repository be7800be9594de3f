"""pyarrow, the library that reads parquet files: the cure where it is missing, and its errors as convrun's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from convrun.errors import DataError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise DataError(f"parquet files need pyarrow ({missing}); pip install 'convrun[parquet]'") from None

__all__ = ["first_line", "pa", "pq", "readable"]  # who takes pyarrow from here gets the cure with it


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """An error of pyarrow's or of the disk's while a parquet file is read becomes a DataError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {_reason(path, error)}; fetch it again") from None


def _reason(path: str, error: Exception) -> str:
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        if file.read(19) == b"version https://git":
            return "it is git's pointer to the file (git lfs pull fetches it)"
    return first_line(error)


def first_line(error: Exception) -> str:
    """The first line of what an error of pyarrow's or of the disk's says, without its full stop."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason.partition("\n")[0].rstrip(".") or type(error).__name__
