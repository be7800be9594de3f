"""Files of weights from the web, kept in a cache folder: whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from convrun.errors import CheckpointError
from convrun.files.cache_folder import cache_folder
from convrun.weights.checksums import check_file, digits_in
from convrun.weights.reading import kind_of

TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 20
CURE = "check the network and https_proxy, or get the file elsewhere and give its path"


def downloaded(url: str, sha256: str | None = None) -> Path:
    """The file at a URL, from the cache if it was fetched before.

    Args:
        url: http or https; proxies are taken from the environment.
        sha256: its checksum or the first digits; else those in the file's name, if it has any.

    Raises:
        CheckpointError: the network or the server fails, or what comes is another file; the cache stays as it was.
    """
    path, shown = cached_path(url), shown_url(url)
    wanted = sha256 or digits_in(path.name)
    if path.is_file():
        try:
            if wanted is not None:
                check_file(path, wanted, shown, "")
            return path
        except CheckpointError:
            pass  # the server's file, or the recipe's checksum, has changed since: the fetch below settles it
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        _write(draft, _chunks(url), path.name)
        kind_of(draft, f"what {shown} sent")
        if wanted is not None:
            whose = "init.sha256" if sha256 else "the digits in its name"
            cure = f"{whose} is of another file, or somebody replaced this one: ask its publisher"
            check_file(draft, wanted, shown, cure)
        draft.replace(path)
    except OSError as error:
        raise _cache_error(error) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be what cannot be made
            draft.unlink(missing_ok=True)
    return path


def cached_path(url: str) -> Path:
    """Where the file of a URL is kept: a folder for the URL, so that equal names do not meet."""
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(unquote(urlsplit(url).path)).name).lstrip(".")[-100:]
    return cache_folder() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:16] / (name or "weights")


def shown_url(url: str) -> str:
    """A URL without what may be secret in it: the user and the query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _write(path: Path, chunks: Iterator[tuple[int | None, bytes]], name: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file, _Bar(name) as bar:
            for total, chunk in chunks:
                file.write(chunk)
                bar.advance(len(chunk), total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cache_error(error) from error


def _cache_error(error: OSError) -> CheckpointError:
    return CheckpointError(
        f"the cache folder {cache_folder()} cannot be written: {error.strerror or error}; free space on that disk, or "
        "set CONVRUN_CACHE to another folder"
    )


def _chunks(url: str) -> Iterator[tuple[int | None, bytes]]:
    """The body in pieces, each with the size of the whole if the server tells it."""
    shown, received = shown_url(url), 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "convrun"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length and length.isdecimal() else None
            while chunk := answer.read(CHUNK_BYTES):
                received += len(chunk)
                yield total, chunk
    except urllib.error.HTTPError as error:
        cure = "check the address" if error.code in (404, 410) else CURE
        raise CheckpointError(f"{shown}: the server answers {error.code} ({error.reason}); {cure}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        host = urlsplit(url).netloc.rpartition("@")[2]
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise CheckpointError(f"{shown} cannot be fetched from {host}: {reason}; {CURE}") from error
    if total is not None and received != total:
        message = f"{shown}: the connection ended after {received:,} of {total:,} bytes"
        raise CheckpointError(f"{message}; start again, or get the file elsewhere and give its path")


class _Bar:
    """A progress bar on the terminal, if there is one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> _Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns: tuple[Any, ...] = (TextColumn(self._name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        return self

    def advance(self, count: int, total: int | None) -> None:
        """So many more bytes, of so many in all."""
        if self._progress is not None:
            self._progress.update(self._task, advance=count, total=total)

    def __exit__(self, *_error: object) -> None:
        if self._progress is not None:
            self._progress.stop()
