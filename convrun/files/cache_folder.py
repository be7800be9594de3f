"""The folder for what can be computed or downloaded again: weights, copies of data."""

from __future__ import annotations

import os
from pathlib import Path

from convrun.errors import UsageError


def cache_folder() -> Path:
    """`$CONVRUN_CACHE`, else `convrun` in `$XDG_CACHE_HOME` or ~/.cache.

    Raises:
        UsageError: it is below the home of a user that this machine does not know.
    """
    own = os.environ.get("CONVRUN_CACHE")
    folder = Path(own or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/convrun")
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"the cache folder {folder} cannot be found: {error}; set CONVRUN_CACHE to the absolute path of a folder"
        ) from error
