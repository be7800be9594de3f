"""The images that could not be read: how many there may be, and the list of them in the run folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from convrun.data.regular_file import printable
from convrun.errors import DataError
from convrun.run_folder import write_whole

LINES_SHOWN = 20


@dataclass(frozen=True)
class SkippedImage:
    """One image that could not be read: its split, its number in it, where it is and why."""

    split: str
    number: int
    place: str
    reason: str


class SkippedImages:
    """The list, kept by the process that trains; each image is in it once, however often it is met.

    Args:
        images: the size of each split.
        limit: how many of a split may be skipped, or which share of them (at least one).
        path: a file with one JSON object a line; a run that goes on adds to what it finds there.
        say: shows a line to the user.
    """

    def __init__(
        self,
        images: Mapping[str, int],
        limit: int | float,
        path: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._images, self._path, self._say = images, path, say
        self._limits = {split: _limit_of(limit, count) for split, count in images.items()}
        self._lines = _read(path) if path is not None and path.is_file() else {}
        self._counts = Counter(split for split, _ in self._lines)
        self._is_behind = path is not None and path.is_file()  # a killed process may have left half a line

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, skipped: Iterable[SkippedImage]) -> None:
        """Notes images, each the first time only.

        Raises:
            DataError: these are more than the run puts up with.
        """
        for image in skipped:
            if (image.split, image.number) not in self._lines:
                self._lines[image.split, image.number] = line = json.dumps(asdict(image)) + "\n"
                self._counts[image.split] += 1
                self._show(image)
                self._write(line)
                self._check(image)

    def summary(self) -> str:
        """What to say at the end of a run; nothing if nothing was skipped."""
        found = " and ".join(f"{self._counts[split]:,} {split} images" for split in self._images if self._counts[split])
        return f"{found} could not be read and were skipped: see {self._path}" if found else ""

    def _show(self, image: SkippedImage) -> None:
        shown = self._counts[image.split]
        if shown <= LINES_SHOWN:
            self._say(f"skipped: split {image.split}, image {printable(image.place)}: {image.reason}")
        if shown == LINES_SHOWN:
            self._say(f"more skipped images of split {image.split} are only listed, in {self._path}")

    def _check(self, image: SkippedImage) -> None:
        count, limit = self._counts[image.split], self._limits[image.split]
        if count > limit:
            raise DataError(
                f"{count:,} of {self._images[image.split]:,} images in split {image.split} cannot be read, and "
                f"data.bad_images_limit allows {limit:,}; the last is {printable(image.place)}: {image.reason}; they "
                f"are listed in {self._path}: repair them, or raise the limit"
            )

    def _write(self, line: str) -> None:
        """Adds a line; a disk that is full costs no run for that, and a later line brings the list up to date."""
        if self._path is None:
            return
        try:
            if self._is_behind:
                write_whole(self._path, "".join(self._lines.values()).encode())
            else:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                self._say(f"{self._path} cannot be written: {error.strerror}; training goes on")
            self._is_behind = True


def _limit_of(limit: int | float, images: int) -> int:
    return limit if isinstance(limit, int) else max(1, int(limit * images))


def _read(path: Path) -> dict[tuple[str, int], str]:
    lines = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            image = SkippedImage(**json.loads(line))
        except (ValueError, TypeError):
            continue
        lines[image.split, image.number] = json.dumps(asdict(image)) + "\n"
    return lines
