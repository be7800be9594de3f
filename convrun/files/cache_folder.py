"""The folder for what can be made or fetched again: downloaded weights, copies of data."""

from __future__ import annotations

import os
from pathlib import Path

from convrun.errors import UsageError


def cache_folder() -> Path:
    """`$CONVRUN_CACHE`, else `convrun` in `$XDG_CACHE_HOME` or ~/.cache.

    Raises:
        UsageError: it lies in the home of nobody on this machine.
    """
    own = os.environ.get("CONVRUN_CACHE")
    folder = Path(own or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/convrun")
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"the cache folder {folder} cannot be found: {error}; set CONVRUN_CACHE to a folder by its whole path"
        ) from error
