"""What a scan of folders passes over, counted by kind, and the lines that tell the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convrun.data.formats import FORMATS, OPTIONAL, OTHERS, format_of
from convrun.files.regular_file import opened
from convrun.text.wording import listed, printable

MOST_KINDS = 5
KEPT_KINDS = 1000  # endings that are numbers or check sums: what is counted must not grow with the data
KEPT_EXAMPLES = 8
NO_ENDING = "without an ending"


@dataclass
class Tally:
    """Counts by kind, with the first examples of each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: str) -> None:
        """One more of a kind."""
        if kind not in self.counts and len(self.counts) >= KEPT_KINDS:
            kind = "others"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < KEPT_EXAMPLES:
            examples.append(path)

    def __add__(self, other: Tally) -> Tally:
        both = Tally(dict(self.counts), {kind: list(paths) for kind, paths in self.examples.items()})
        for kind, count in other.counts.items():
            both.counts[kind] = both.counts.get(kind, 0) + count
            both.examples[kind] = [*both.examples.get(kind, ()), *other.examples[kind]][:KEPT_EXAMPLES]
        return both

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.counts.values())

    def text(self, hint: Callable[[str, Sequence[str]], str] = lambda kind, examples: "") -> str:
        """`8 ._* (first: a/._0.jpg), 1 .ipynb_checkpoints`, the most frequent first.

        Args:
            hint: what to say beside the first example, from the kind and some examples.
        """
        kinds = sorted(self.counts, key=lambda kind: (-self.counts[kind], kind))
        return listed([self._one(kind, hint) for kind in kinds], MOST_KINDS)

    def _one(self, kind: str, hint: Callable[[str, Sequence[str]], str]) -> str:
        first = self.examples[kind][0]
        said = [f"first: {printable(first)}"] if first != kind else []
        said += [text] if (text := hint(kind, self.examples[kind])) else []
        return f"{self.counts[kind]:,} {printable(kind)}" + (f" ({'; '.join(said)})" if said else "")


@dataclass
class LeftOut:
    """What one folder holds beside images in class folders.

    Attributes:
        leftovers: what systems and programs have left behind (`files/leftovers.py`).
        unread: files in class folders that convrun does not read, by their ending.
        beside: files that lie in no class folder, by their ending.
    """

    leftovers: Tally = field(default_factory=Tally)
    unread: Tally = field(default_factory=Tally)
    beside: Tally = field(default_factory=Tally)

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(self.leftovers + other.leftovers, self.unread + other.unread, self.beside + other.beside)

    def text(self, folder: str) -> str:
        """Counts and examples of what class folders hold; empty if there is nothing."""
        return ", ".join(text for text in (self.unread.text(_hints(folder)), self.leftovers.text()) if text)

    def notes(self, where: str, folder: str) -> list[str]:
        """Lines for the user about a split that is called `where`; paths are below `folder`."""
        lines = leftover_notes(where, self.leftovers)
        if count := self.unread.total:
            what = "1 file that convrun does not read is" if count == 1 else (
                f"{count:,} files that convrun does not read are"
            )  # fmt: skip
            lines.append(f"{where}: {what} left out: {self.unread.text(_hints(folder))}")
        if count := self.beside.total:
            what = "1 file that lies in no class folder is" if count == 1 else (
                f"{count:,} files that lie in no class folder are"
            )  # fmt: skip
            cure = f"; images belong in {printable(folder)}/CLASS/" if any(map(is_image, self.beside.counts)) else ""
            lines.append(f"{where}: {what} left out: {self.beside.text()}{cure}")
        return lines


def leftover_notes(where: str, leftovers: Tally) -> list[str]:
    """A line about what was ignored, if anything was."""
    if not leftovers.total:
        return []
    are = "name that systems and programs leave behind is" if leftovers.total == 1 else (
        "names that systems and programs leave behind are"
    )  # fmt: skip
    return [f"{printable(where)}: {leftovers.total:,} {are} ignored: {leftovers.text()}"]


def ending_of(name: str) -> str:
    """What a file is counted by: `.heic`, or NO_ENDING where what follows the last dot is none."""
    ending = name[name.rfind(".") :].lower() if "." in name[1:] else ""
    return ending if 2 <= len(ending) <= 9 and ending[1:].isalnum() and not ending[1:].isdigit() else NO_ENDING


def is_image(ending: str) -> bool:
    """Whether files of an ending are images, be it of a format that convrun reads or of another."""
    return ending in OTHERS or any(ending in endings for endings in FORMATS.values())


def _hints(folder: str) -> Callable[[str, Sequence[str]], str]:
    """Why files of an ending are not read, and the cure."""

    def hint(ending: str, examples: Sequence[str]) -> str:
        if ending in OPTIONAL:
            return (
                f"the installed Pillow was built without {OPTIONAL[ending]}: install its wheel (pip install --upgrade "
                "--force-reinstall pillow), or convert them to JPEG or PNG"
            )
        if ending in OTHERS:
            return "convert them to JPEG or PNG"
        for path in examples:
            if name := format_of(_first_bytes(f"{folder}/{path}")):
                cure = f"give such files the ending {FORMATS[name][0]}" if name in FORMATS else "convert such files"
                return f"{printable(path)} is {name} by its first bytes: {cure}"
        return ""

    return hint


def _first_bytes(path: str) -> bytes:
    try:
        with opened(path) as file:
            return file.read(16)
    except (OSError, ValueError):  # a pipe, an empty file, one that may not be read: no image to tell of
        return b""
