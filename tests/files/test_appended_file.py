import errno
import io
import os
import resource
import subprocess

import pytest

from convrun.components.loggers import CsvTables, JsonLines, TensorBoard
from convrun.contracts.logger import RunInfo
from convrun.display.screen import Screen
from convrun.errors import RunFolderError
from convrun.files.appended_file import AppendedFile


@pytest.fixture
def disk_of(monkeypatch):
    """Lets files grow to a number of bytes, as a disk that fills up does: what fits is written, the rest is not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits[0] if size is None else size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def file(tmp_path):
    said = []
    file = AppendedFile(tmp_path / "list", said.append)
    file.said = said
    return file


def test_pieces_are_in_the_file_at_once(file):
    for i in range(3):
        file.append(b"%d\n" % i)
        assert file.path.read_bytes() == b"".join(b"%d\n" % n for n in range(i + 1))


@pytest.mark.parametrize("room", [0, 1, 4, 5, 7])
def test_what_finds_no_room_waits_and_comes_whole_once_and_in_order(room, file, disk_of):
    disk_of(room)
    for piece in (b"0123\n", b"abc\n", b"xyz\n"):
        file.append(piece)
    disk_of(None)
    file.append(b"end\n")
    assert file.path.read_bytes() == b"0123\nabc\nxyz\nend\n"
    assert len(file.said) == 2
    assert (
        file.said[0] == f"{file.path} cannot be written: File too large; training goes on, and its lines wait in memory"
    )
    assert file.said[1] == f"{file.path} is written again, nothing is missing"


def test_flushing_says_that_something_waits(file, disk_of):
    disk_of(2)
    file.append(b"0123\n")
    with pytest.raises(RunFolderError, match=r"list cannot be written: File too large$"):
        file.flush()
    disk_of(None)
    file.flush()
    assert file.path.read_bytes() == b"0123\n"


def test_closing_writes_what_waits(file, disk_of):
    disk_of(2)
    file.append(b"0123\n")
    disk_of(None)
    file.close()
    assert file.path.read_bytes() == b"0123\n"


def test_a_replacement_waits_likewise(file, disk_of):
    file.append(b"old\n")
    disk_of(2)
    file.replace(b"new\n")
    file.append(b"more\n")
    assert (file.path.read_bytes(), file.content()) == (b"old\n", b"new\nmore\n")
    disk_of(None)
    file.append(b"end\n")
    assert file.path.read_bytes() == b"new\nmore\nend\n"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_ctrl_c_within_a_write_neither_doubles_nor_tears(moment, file, monkeypatch):
    write = os.write

    def interrupted(descriptor, content):
        write(descriptor, bytes(content) if moment == "after" else bytes(content)[:2])
        raise KeyboardInterrupt

    file.append(b"first\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.append(b"second\n")
    file.append(b"third\n")
    assert file.path.read_bytes() == b"first\nsecond\nthird\n"


def test_an_error_that_passes_costs_no_piece(file, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        for i in range(3):
            file.append(b"%d\n" % i)
    file.append(b"3\n")
    assert file.path.read_bytes() == b"0\n1\n2\n3\n"
    assert len(file.said) == 2


def train_row(step, **more):
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": 1 / step, "lr": 0.1, **more}


@pytest.mark.parametrize("build", [JsonLines, CsvTables, TensorBoard])
def test_loggers_lose_and_double_nothing_on_a_disk_that_is_full_for_a_while(build, tmp_path, disk_of):
    for name in ("disturbed", "whole"):
        (tmp_path / name).mkdir()
        stream = io.StringIO()
        logger = build(RunInfo("tiny", tmp_path / name, {}, 100, 10, 0, screen=Screen(stream)))
        logger.log(train_row(1))
        if name == "disturbed":
            disk_of(sum(path.stat().st_size for path in (tmp_path / name).rglob("*") if path.is_file()) + 30)
        logger.log(train_row(2))
        logger.log(train_row(3, grad_norm=2.0))  # a new column of the table
        if name == "disturbed":
            with pytest.raises(RunFolderError, match="File too large"):
                logger.flush()
            disk_of(None)
        logger.log(train_row(4))
        logger.flush()
        logger.close()
    assert content(tmp_path / "disturbed") == content(tmp_path / "whole")


def content(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not (folder / "tensorboard").exists():
        return {path.name: path.read_text() for path in folder.iterdir()}
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_on_a_real_file_system_that_is_full(tmp_path):
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path]).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        said = []
        file = AppendedFile(tmp_path / "list", said.append)
        (tmp_path / "filler").write_bytes(bytes(60 << 10))
        lines = [b"%d %s\n" % (i, b"x" * 1000) for i in range(20)]
        for line in lines[:-1]:
            file.append(line)
        assert "No space left on device" in said[0]
        (tmp_path / "filler").unlink()
        file.append(lines[-1])
        file.close()
        assert (tmp_path / "list").read_bytes() == b"".join(lines)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_replacement_that_cannot_be_opened_is_tried_again(file, monkeypatch):
    """Too many open files, for a while."""
    file.append(b"old\n")
    opened = os.open
    with monkeypatch.context() as patch:

        def fails(path, *rest):
            if path == file.path:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return opened(path, *rest)

        patch.setattr("os.open", fails)
        file.replace(b"new\n")
        file.append(b"1\n")
    file.append(b"2\n")
    file.close()
    assert file.path.read_bytes() == b"new\n1\n2\n"
    assert file.said[-1].endswith("is written again, nothing is missing")
