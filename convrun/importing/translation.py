"""A command's translation: its flags, the draft of the recipe, and the refusals, which are all reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from convrun.errors import UsageError
from convrun.importing.flags import Given
from convrun.importing.writing import Draft

Head = Literal["keep", "reinit"]
_SAME: Any = object()


@dataclasses.dataclass
class Translation:
    """What the functions of a script's translation share.

    Attributes:
        given: the command's flags.
        processes: training processes; None: unknown.
        how: where that number comes from.
        head: what to do with the classifier of the initial weights, if the user says.
        draft: the recipe so far.
    """

    given: Given
    processes: int | None
    how: str
    head: Head | None = None
    draft: Draft = dataclasses.field(default_factory=Draft)
    refusals: list[str] = dataclasses.field(default_factory=list)

    def put(self, path: str, dest: str, value: Any = _SAME, note: str = "", also: Sequence[str] = ()) -> None:
        """Writes a flag's value (or what follows from it) at a path of the recipe, with its origin as a comment.

        Args:
            path: the key's dotted path.
            dest: the flag.
            value: written instead of the flag's own value.
            note: what a reader should know about it.
            also: other flags that contribute to the value, named if the command gives them.
        """
        value = self.given[dest] if value is _SAME else value
        origins = [f"--{self.given.flags[each].name}" for each in (dest, *also) if self.given.has(each)]
        origin = ", ".join(origins) or f"default of --{self.given.flags[dest].name}"
        self.draft.set(path, value, self.given.shown(dest), f"{origin}: {note}" if note else origin)

    def put_batch(self, accumulation: str, also: Sequence[str] = ()) -> None:
        """The batch of one optimizer step: processes × images × micro-batches that are accumulated."""
        processes, images, times = self.processes or 1, self.given["batch_size"], max(1, self.given[accumulation])
        who = f"{processes} process{'es' if processes > 1 else ''} ({self.how})"
        note = f"{who} × {images} images × {times} accumulated"
        self.put("training.batch_size", "batch_size", processes * images * times, note, also=(accumulation, *also))
        self.put("training.micro_batch", "batch_size", note="mixup draws once for each")
        if self.processes is None:
            text = "1 process is assumed, and convrun import --processes N multiplies the batch"
            self.draft.differs.append(f"{self.how}: {text}")

    def hint(self, dest: str, text: str) -> None:
        """Adds a hint on how to start the run, in place of a flag, if the command gives it."""
        if self.given.has(dest):
            self.draft.hints.append(f"{self.given.shown(dest)}: {text}")

    def no_effect(self, dest: str, why: str) -> None:
        """Records why a flag is left out, if the command gives it."""
        if self.given.has(dest):
            self.draft.no_effect.append(f"{self.given.shown(dest)}: {why}")

    def refuse(self, dest: str, why: str) -> None:
        """Refuses a flag; the import fails with all refusals once every flag has been translated."""
        self.refusals.append(f"{self.given.shown(dest)}: {why}")

    def settle(self) -> None:
        """Handles the flags whose fate does not depend on others.

        Raises:
            UsageError: names every refusal.
        """
        for dest, flag in self.given.flags.items():
            if flag.fate != "translated" and self.given.has(dest):
                is_default = flag.fate == "refused" and self.given[dest] in (flag.default, None, 0, "", [], {})
                if flag.fate == "refused" and not is_default:
                    self.refuse(dest, flag.why)
                else:
                    self.no_effect(dest, "the default" if is_default else flag.why)
        if self.refusals:
            raise UsageError("\n".join(f"{self.given.script}: {refusal}" for refusal in self.refusals))
