"""Where plugins come from: installed packages, a `plugins/` folder in the working folder, and the recipe's own list.

A plugin that fails to import is recorded with its error, which is shown only when a name is not found.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from convrun.errors import PluginError
from convrun.files.leftovers import is_leftover
from convrun.registry import registry

GROUP = "convrun.plugins"
_loaded: set[str] = set()


def load_plugins(listed: Sequence[str] = (), folder: Path | None = None) -> None:
    """Imports every plugin that can be found, each once per process.

    Args:
        listed: what a recipe lists: files (absolute) or module names.
        folder: the working folder's `plugins/`.
    """
    for name in listed:
        _load(name, name)
    for file in sorted(folder.glob("*.py")) if folder and folder.is_dir() else ():
        if not (file.name.startswith("_") or is_leftover(file.name)):
            _load(str(file.resolve()), f"plugins/{file.name}")
    if _is_group_used():
        import importlib.metadata

        for point in importlib.metadata.entry_points(group=GROUP):
            _load(point.module, point.name)


def _is_group_used() -> bool:
    """Whether any installed package has our entry points. Asking importlib.metadata takes 20 ms even where none has."""
    for entry in sys.path:
        folder = glob.escape(entry or ".")
        for path in (
            *glob.glob(f"{folder}/*-info/entry_points.txt"),
            *glob.glob(f"{folder}/EGG-INFO/entry_points.txt"),
        ):
            with contextlib.suppress(OSError):
                if GROUP.encode() in Path(path).read_bytes():
                    return True
    return False


def _load(target: str, label: str) -> None:
    if target in _loaded:
        return
    _loaded.add(target)
    registry.searched.append(label)
    try:
        with registry.providing(f"plugin {label}"):
            if target.endswith(".py"):
                _import_file(Path(target))
            else:
                importlib.import_module(target)
    except PluginError as error:
        registry.failures[label] = str(error)
    except (Exception, SystemExit) as error:
        registry.failures[label] = " ".join(f"{type(error).__name__}: {error}".split())


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    import importlib.util

    # Two files of the same name in two folders must not replace each other in sys.modules.
    name = f"convrun_plugin_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Loader workers that are not forked unpickle the plugin's classes by this name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
