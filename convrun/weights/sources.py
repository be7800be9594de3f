"""Where initial weights come from: a path, a URL, `timm:NAME` or `hf:OWNER/NAME` -> a file on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from convrun.errors import CheckpointError
from convrun.weights.checksums import check_digits, check_file
from convrun.weights.download import cached_path, downloaded
from convrun.weights.hub import hub_file, timm_file


def located(from_: str, sha256: str | None = None) -> Path:
    """The file that `init.from` names, fetched if need be; paths are relative to the working folder.

    Raises:
        CheckpointError: it is not there, cannot be fetched, or has another checksum.
        KeyProblem: `sha256` is no checksum.
    """
    if sha256 is not None:
        check_digits(sha256)
    path = _located(from_, sha256)
    if sha256 is not None and not _is_url(from_):  # a download was checked before it entered the cache
        check_file(path, sha256, from_, "init.sha256 is of another file: correct one of the two")
    return path


def is_local(from_: str) -> bool:
    """Whether it is a path, so that nothing is fetched."""
    return re.match(r"(https?|timm|hf):", from_) is None


def name_of(from_: str) -> str:
    """What messages call it: a file's name, or the source as written."""
    if is_local(from_):
        return Path(from_).name
    return cached_path(from_).name if _is_url(from_) else from_


def _is_url(from_: str) -> bool:
    return re.match(r"https?:", from_) is not None


def _located(from_: str, sha256: str | None) -> Path:
    scheme, _, rest = from_.partition(":")
    if is_local(from_):
        return _existing(from_)
    if scheme == "timm":
        return timm_file(rest, sha256)
    return hub_file(rest) if scheme == "hf" else downloaded(from_, sha256)


def _existing(from_: str) -> Path:
    path = Path(from_).expanduser()
    if path.is_dir():
        inside = sorted(p.relative_to(path) for pattern in ("*", "weights/*") for p in path.glob(pattern))
        files = [str(p) for p in inside if p.suffix in (".safetensors", ".pth", ".pt", ".bin")]
        cure = f"give a file in it, such as {files[0]}" if files else "give a file"
        raise CheckpointError(f"init.from: {from_} is a folder; {cure}")
    if not path.exists():
        if re.match(r"\w+://", from_):
            cure = "convrun reads files, http(s) URLs, timm:NAME and hf:OWNER/NAME; get it and give its path"
        else:
            cure = "a path, a URL, timm:NAME or hf:OWNER/NAME is wanted"
        raise CheckpointError(f"init.from: there is no file {from_} (looked from {Path.cwd()}); {cure}")
    return path
