"""What became of the trials, for people."""

import dataclasses
import time
from collections import Counter


@dataclasses.dataclass(frozen=True)
class Tried:
    """One trial: its number, its subject, how often each group of faults struck, its starts, and what was lost."""

    number: int
    subject: str
    struck: Counter[str]
    starts: int
    loss: str = ""


class Report:
    """Adds trials up.

    Args:
        groups: the lines of the table.
    """

    def __init__(self, groups: list[str]) -> None:
        self.groups = groups
        self.tried: list[Tried] = []

    @property
    def lost(self) -> list[Tried]:
        """The trials in which something was lost."""
        return [tried for tried in self.tried if tried.loss]

    def add(self, tried: Tried) -> None:
        """Enters a trial."""
        self.tried.append(tried)

    def struck(self, group: str) -> int:
        """How often the faults of a group struck."""
        return sum(tried.struck[group] for tried in self.tried)

    def is_wanted(self, kills: int, end: float | None) -> bool:
        """Whether there should be another trial."""
        return time.monotonic() < end if end is not None else self.struck("kills") < kills

    def show_progress(self, seconds: float) -> None:
        """A line for each trial that ended."""
        last = self.tried[-1]
        what = f"LOST, {last.loss}" if last.loss else "survived"
        faults = ", ".join(f"{n} {group}" for group, n in last.struck.items() if n) or "no fault in time"
        print(f"{seconds:6.0f} s  trial {last.number} ({last.subject}): {faults}; {what}", flush=True)

    def text(self, seed: int, seconds: float) -> str:
        """The table."""
        lines = ["", f"{'fault':24} {'struck':>7} {'survived':>9} {'lost':>5}"]
        for group in self.groups:
            # A trial's loss counts against every kind of fault in it: any of them may be the cause.
            lost = sum(tried.struck[group] for tried in self.lost)
            lines.append(f"{group:24} {self.struck(group):7} {self.struck(group) - lost:9} {lost:5}")
        lines.append(
            f"{len(self.tried)} runs, {sum(tried.starts for tried in self.tried)} starts in {seconds:.0f} s, seed "
            f"{seed}: {len(self.tried) - len(self.lost)} runs equal to the undisturbed one, {len(self.lost)} lost"
        )
        missing = [group for group in self.groups if not self.struck(group)]
        if missing:
            lines.append(f"never struck: {', '.join(missing)}")
        lines += [f"trial {tried.number} ({tried.subject}), {tried.loss}" for tried in self.lost]
        return "\n".join(lines)
