"""What a scan of folders passes over, counted by kind, and the lines that tell the user."""

from __future__ import annotations

from dataclasses import dataclass, field

from convrun.text.wording import listed, printable

MOST_KINDS = 5


@dataclass
class Tally:
    """Counts by kind, with the first example of each."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, path: str) -> None:
        """One more of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, path)

    def __add__(self, other: Tally) -> Tally:
        kinds = dict.fromkeys([*self.counts, *other.counts])
        counts = {kind: self.counts.get(kind, 0) + other.counts.get(kind, 0) for kind in kinds}
        return Tally(counts, other.first | self.first)

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.counts.values())

    def text(self) -> str:
        """`8 ._* (first: a/._0.jpg), 1 .ipynb_checkpoints`, the most frequent first."""
        kinds = sorted(self.counts, key=lambda kind: (-self.counts[kind], kind))
        return listed([self._one(kind) for kind in kinds], MOST_KINDS)

    def _one(self, kind: str) -> str:
        example = "" if self.first[kind] == kind else f" (first: {printable(self.first[kind])})"
        return f"{self.counts[kind]:,} {printable(kind)}{example}"


@dataclass
class LeftOut:
    """What one folder holds beside images in class folders.

    Attributes:
        leftovers: what systems and programs have left behind (`files/leftovers.py`).
    """

    leftovers: Tally = field(default_factory=Tally)

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(self.leftovers + other.leftovers)

    def text(self) -> str:
        """Counts and examples; empty if there is nothing."""
        return self.leftovers.text()

    def notes(self, where: str) -> list[str]:
        """Lines for the user about a folder that is called `where`."""
        return leftover_notes(where, self.leftovers)


def leftover_notes(where: str, leftovers: Tally) -> list[str]:
    """A line about what was ignored, if anything was."""
    if not leftovers.total:
        return []
    are = "name that systems and programs leave behind is" if leftovers.total == 1 else (
        "names that systems and programs leave behind are"
    )  # fmt: skip
    return [f"{printable(where)}: {leftovers.total:,} {are} ignored: {leftovers.text()}"]
