"""Which parquet files a split has; where a pattern matches none, the patterns that would."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from convrun.data.sets.classes import TEST, TRAIN, VAL
from convrun.data.sets.left_out import Tally, leftover_notes
from convrun.errors import DataError
from convrun.files.leftovers import leftover_kind
from convrun.text.wording import listed

Patterns = str | tuple[str, ...]
EVERYWHERE = "**/*.parquet"
# `-00000-of-00013` and the check sum that hubs wrote behind it; or a whole name, `0000`.
NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(-of-\d+)?(-[0-9a-f]{16})?(?=\.parquet$)")


def files_of_splits(root: str, splits: Mapping[str, Patterns | None]) -> dict[str, list[str]]:
    """The files of each split, in the order of the patterns, each once; none for a split without a pattern.

    Raises:
        DataError: a pattern matches no file; names those that would, for all splits at once.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(f"the folder {base} does not exist; set data.root=FOLDER to the one with the parquet files")
    found: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for split, patterns in splits.items():
        found[split] = []
        if patterns is not None and not patterns:
            raise DataError(f"data.{split} is an empty list; set data.{split}=PATTERN")
        for pattern in (patterns,) if isinstance(patterns, str) else patterns or ():
            matches = [match for match in _matches(base, pattern) if not _leftover(match, pattern)[0]]
            if not matches:
                missing.setdefault(split, pattern)
            found[split] += [str(base / match) for match in matches]
    if missing:
        raise _no_file(base, missing)
    return {split: list(dict.fromkeys(paths)) for split, paths in found.items()}


def _matches(base: Path, pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, root_dir=base, recursive=True, include_hidden=True))


def _leftover(match: str, pattern: str) -> tuple[str, str]:
    """The kind and the path of what a wildcard has found though a system or program left it; empty if it is a file."""
    written, parts = pattern.split("/"), match.split("/")
    for depth, name in enumerate(parts, 1):
        kind = leftover_kind(name, is_folder=depth < len(parts))
        if kind and name not in written:  # a name that the recipe spells out is wanted
            return kind, "/".join(parts[:depth])
    return "", ""


def pattern_notes(root: str, split: str, patterns: Patterns | None) -> list[str]:
    """What the patterns of a split match beside its files, as lines for the user."""
    base, leftovers = Path(root).expanduser(), Tally()
    patterns = (patterns,) if isinstance(patterns, str) else patterns or ()
    found = {_leftover(match, pattern) for pattern in patterns for match in _matches(base, pattern)}
    for kind, path in sorted(found):
        if kind:
            leftovers.add(kind, path)
    return leftover_notes(split, leftovers)


def _no_file(base: Path, missing: Mapping[str, str]) -> DataError:
    names = [match for match in _matches(base, EVERYWHERE) if not _leftover(match, EVERYWHERE)[0]]
    there = _patterns(names)
    shown = f"it has {listed(there)}" if there else "it has no .parquet file"
    cures = [f"data.{split}={_likely(there, split)}" for split in missing]
    cure = f"set {' '.join(cures)}" if there else "set data.root=FOLDER to the one with the parquet files"
    if "val" in missing and there:
        cure += "; without validation images, set data.val=null evaluation=null"
    return DataError(f"no file in {base} matches {' or '.join(missing.values())} ({shown}); {cure}")


def _patterns(names: Sequence[str]) -> list[str]:
    """A pattern for the shards of a split; a file that is alone, and has no number, keeps its name."""
    return list(dict.fromkeys(NUMBER.sub("*", name) for name in names))


def _likely(patterns: Sequence[str], split: str) -> str:
    """The pattern whose name says that it is of the split; for val, one of test images if there is no other."""
    for words in ({"train": (TRAIN,), "val": (VAL, TEST)})[split]:
        fitting = [p for p in patterns if words & set(re.split(r"[^a-z]+", p.lower()))]
        if len(fitting) == 1:
            return shlex.quote(fitting[0])
    return "PATTERN"
