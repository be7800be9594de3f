"""The images that could not be read: how many there may be, and the list of them in the run folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from convrun.errors import DataError, RunFolderError
from convrun.files.appended_file import AppendedFile
from convrun.text.wording import printable

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
        self._file = AppendedFile(path, say) if path is not None and path.is_file() else None
        self._lines = _read(self._file.content()) if self._file is not None else {}
        self._is_told = False
        self._counts = Counter(split for split, _ in self._lines)
        if self._file is not None and self._file.ends_torn():
            self._file.replace(self._content())

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

    def flush(self) -> None:
        """Hands what waits to the kernel; raises RunFolderError if that cannot be done."""
        if self._lines and self._path is not None:
            self._opened(self._path).flush()

    def _write(self, line: str) -> None:
        """Adds a line; on a full disk it waits in memory."""
        if self._path is None:
            return
        if self._file is not None:
            self._file.append(line.encode())
            return
        try:
            self._opened(self._path)
        except RunFolderError as error:
            if not self._is_told:
                self._say(f"{error}; training goes on")
            self._is_told = True

    def _opened(self, path: Path) -> AppendedFile:
        """The list's file; made when there is something to list."""
        if self._file is None:
            self._file = AppendedFile(path, self._say)
            self._file.append(self._content())
        return self._file

    def _content(self) -> bytes:
        return "".join(self._lines.values()).encode()


def _limit_of(limit: int | float, images: int) -> int:
    return limit if isinstance(limit, int) else max(1, int(limit * images))


def _read(content: bytes) -> dict[tuple[str, int], str]:
    lines = {}
    for line in content.decode(errors="replace").splitlines():
        try:
            image = SkippedImage(**json.loads(line))
        except (ValueError, TypeError):
            continue
        lines[image.split, image.number] = json.dumps(asdict(image)) + "\n"
    return lines
