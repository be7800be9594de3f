from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convrun.errors import DataError

pytest.importorskip("pyarrow")

from convrun.data.sets import parquet_copy
from tests.data.parquet_files import create, encoded, loaded, pa, rows_of, write


def test_copies_are_made_once_and_said_once(
    parquet_root: Path, copies_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create("train", parquet_root)
    made = {path.name: path.stat().st_mtime_ns for path in copies_folder.glob("*.arrow")}
    assert len(made) == 2
    message = f"copying 2 parquet files of {parquet_root}/data to {copies_folder}, once (0.1 MB)"
    assert [record.getMessage() for record in caplog.records] == [message]
    create("train", parquet_root)
    assert {path.name: path.stat().st_mtime_ns for path in copies_folder.glob("*.arrow")} == made
    assert len(caplog.records) == 1
    assert sorted(path.name for path in copies_folder.iterdir()) == [".lock", *sorted(made)]


def test_without_cache_nothing_is_written(parquet_root: Path, copies_folder: Path) -> None:
    create("train", parquet_root, cache=False).read(0)
    assert not copies_folder.exists()


def test_a_changed_file_gets_a_new_copy(parquet_root: Path, copies_folder: Path) -> None:
    create("val", parquet_root)
    path = parquet_root / "data/validation-00000-of-00001.parquet"
    write(path, [encoded(3000 + number) for number in range(4)])
    os.utime(path, ns=(0, 10**18))
    assert loaded(create("val", parquet_root)) == rows_of(path)
    assert len(list(copies_folder.glob("*.arrow"))) == 2


def test_processes_that_want_the_copies_at_once_share_them(parquet_root: Path, copies_folder: Path) -> None:
    script = f"""
from convrun.registry import registry
component = registry.find("data", "parquet")
images = component.create("train", **component.keys.check({{"root": {str(parquet_root)!r}}}))
print(sum(images.read(index)[1] for index in range(len(images))))
"""
    with parquet_copy._one_at_a_time(copies_folder):
        runs = [subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True) for _ in range(3)]
        time.sleep(3)  # enough for all of them to have found that the copies are missing
        assert [run.poll() for run in runs] == [None] * 3
    results = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len({out for out, _ in results}) == 1
    assert sum("copying 2 parquet files" in err for _, err in results) == 1
    assert sorted(path.suffix for path in copies_folder.iterdir()) == ["", ".arrow", ".arrow"]


def test_no_room_for_the_copies(parquet_root: Path, copies_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = "they take 0.1 MB, and the disk has 0.0 MB free; free .* CONVRUN_CACHE, or set data"
    with pytest.raises(DataError, match=f"written to {copies_folder}: {message}"):
        create("train", parquet_root)
    assert [path.name for path in copies_folder.iterdir()] == [".lock"]


def test_a_write_that_fails_leaves_nothing_behind(parquet_root: Path, copies_folder: Path) -> None:
    # A limit on the size of files fails as a full disk does, in the midst of a write.
    script = f"""
import resource
from convrun.data.sets.parquet_copy import with_copies
from convrun.data.sets.parquet_scan import scan_splits
shards = scan_splits({str(parquet_root)!r}, "data/train-*.parquet", None, "image", "label")["train"].shards
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with_copies(shards)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (
        f"DataError: copies of the parquet files cannot be written to {copies_folder}: File too large; free"
        in done.stderr
    )
    assert [path.name for path in copies_folder.iterdir()] == [".lock"]


def test_a_cache_folder_that_cannot_be_made(parquet_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (parquet_root / "file").write_text("")
    monkeypatch.setenv("CONVRUN_CACHE", str(parquet_root / "file"))
    with pytest.raises(DataError, match=r"cannot be written to .*/file/parquet: Not a directory; free"):
        create("val", parquet_root)


def test_drafts_of_killed_processes_go_and_those_of_living_ones_stay(parquet_root: Path, copies_folder: Path) -> None:
    copies_folder.mkdir()
    (copies_folder / ".old.draft").touch()
    (copies_folder / ".new.draft").touch()
    os.utime(copies_folder / ".old.draft", (0, 0))
    create("val", parquet_root)
    assert [path.name for path in copies_folder.glob(".*.draft")] == [".new.draft"]


def test_damaged_copies_are_named(parquet_root: Path, copies_folder: Path) -> None:
    create("val", parquet_root)
    (copy,) = copies_folder.glob("*.arrow")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-20])
    images = create("val", parquet_root)
    with pytest.raises(DataError, match=rf"the copy {copy} cannot be read: .*; delete it, and the next start makes it"):
        images.read(0)
    with pa.OSFile(str(copy), "wb") as file, pa.ipc.new_file(file, pa.schema([("image", pa.large_binary())])) as writer:
        writer.write_batch(pa.record_batch([pa.array([b"x"], pa.large_binary())], ["image"]))
    with pytest.raises(DataError, match="it holds 1 of 4 images; delete it"):
        images.read(0)
    copy.unlink()
    with pytest.raises(DataError, match="No such file or directory; delete it, and the next start makes it"):
        images.read(0)
