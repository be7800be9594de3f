import errno
import gc
import io
import os
import pickle
import resource
import weakref
import zipfile
import zlib

import pytest
import torch

from convrun import checkpoints
from convrun.checkpoints.sealing import SealedFile
from convrun.errors import CheckpointError, DamagedCheckpoint, RunFolderError
from tests.sealing import save_sealed

PARTS = {part: None if part == "ema" else {} for part in checkpoints.PARTS}
CONTENT = PARTS | {"model": {"a": torch.arange(5000.0), "b": torch.ones(2, 3)}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def two(tmp_path):
    """A folder with checkpoints of the steps 3 and 10."""
    for step in (3, 10):
        checkpoints.save(tmp_path, step, CONTENT)
    return tmp_path


def test_what_is_saved_is_loaded(tmp_path):
    content = CONTENT | {"state": {"best": [(1.5, 2)], "name": "é"}}
    loaded = checkpoints.load(checkpoints.save(tmp_path, 3, content))
    assert torch.equal(loaded["model"]["a"], torch.arange(5000.0))
    assert loaded["state"] == {"best": [(1.5, 2)], "name": "é"}


def test_strides_survive(tmp_path):
    tensor = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    loaded = checkpoints.load(checkpoints.save(tmp_path, 1, PARTS | {"model": {"w": tensor}}))
    assert loaded["model"]["w"].stride() == tensor.stride()


def test_latest_points_at_the_newest(two):
    assert names(two) == ["latest", "step-10.pt", "step-3.pt"]
    assert os.readlink(two / "latest") == "step-10.pt"
    assert checkpoints.steps_in(two) == [3, 10]


def test_links_are_relative_so_that_a_folder_can_move(two, tmp_path_factory):
    moved = two.rename(tmp_path_factory.mktemp("other") / "place")
    assert (moved / "latest").resolve() == (moved / "step-10.pt").resolve()


@pytest.mark.parametrize(
    ("last", "best", "left"),
    [
        (1, [], [40]),
        (2, [], [30, 40]),
        (2, [10], [10, 30, 40]),
        (2, [30], [30, 40]),
        (2, [20, 10], [10, 20, 30, 40]),
        (9, [], [10, 20, 30, 40]),
        (1, [25], [40]),
    ],
)
def test_keeps_the_last_and_the_best(last, best, left, tmp_path):
    for step in (10, 20, 30, 40):
        checkpoints.save(tmp_path, step, PARTS)
    checkpoints.keep_only(tmp_path, last, best)
    assert checkpoints.steps_in(tmp_path) == left
    target = os.readlink(tmp_path / "best") if (tmp_path / "best").is_symlink() else None
    assert target == (f"step-{best[0]}.pt" if best and best[0] in left else None)


def test_other_files_are_left_alone(two):
    (two / "step-mine.pt").write_text("x")
    (two / "step-4.pt.bak").write_text("x")
    checkpoints.keep_only(two, 1, [])
    assert names(two) == ["latest", "step-10.pt", "step-4.pt.bak", "step-mine.pt"]


@pytest.mark.parametrize("moment", ["torch.save", "os.fsync", "pathlib.Path.replace"])
def test_a_crash_while_writing_leaves_the_old_ones(moment, two, monkeypatch):
    class Crash(BaseException):
        pass

    def crash(*_, **__):
        raise Crash

    before = {path: path.read_bytes() for path in two.glob("*.pt")}
    monkeypatch.setattr(moment, crash)
    with pytest.raises(Crash):
        checkpoints.save(two, 10, CONTENT | {"state": {"new": 1}})
    assert {path: path.read_bytes() for path in two.glob("*.pt")} == before
    assert names(two) == ["latest", "step-10.pt", "step-3.pt"]


def test_a_full_disk_is_told_in_the_systems_words_and_leaves_the_old_ones(two, no_room_for):
    before = names(two)
    no_room_for(20)
    with pytest.raises(
        RunFolderError, match=r"step-20\.pt cannot be written: No space left on device \(it needs 19\.6 KiB\)$"
    ):
        checkpoints.save(two, 20, CONTENT)
    assert names(two) == before


def test_a_link_that_somebody_planted_in_the_place_of_a_draft_is_not_written_through(two, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (two / f".step-20.{os.getpid()}.draft").symlink_to(victim)
    checkpoints.save(two, 20, CONTENT)
    assert victim.read_text() == "precious"
    assert checkpoints.path_of(two, 20).is_file() and not checkpoints.path_of(two, 20).is_symlink()


def test_a_disk_that_fills_up_in_the_midst_of_a_file_is_told_likewise(two):
    before, limits = names(two), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # of the 20,000 bytes that the tensor has
    try:
        with pytest.raises(RunFolderError, match=r"step-20\.pt cannot be written: File too large$"):
            checkpoints.save(two, 20, CONTENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(two) == before


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def save_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("how", [save_sealed, torch.save, save_pickle])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_would_run_code_does_not(how, two):
    path = two / "step-10.pt"
    how({**CONTENT, "format": checkpoints.FORMAT, "state": Evil(two / "pwned")}, path)
    with pytest.raises(CheckpointError, match=r"step-10\.pt (is not a checkpoint|is damaged)") as caught:
        checkpoints.load(path)
    assert not (two / "pwned").exists()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(share, two):
    path = two / "step-10.pt"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=r"step-10\.pt is damaged \(.*\)$"):
        checkpoints.load(path)


def test_every_bit_counts(tmp_path):
    """Also those of names, dates and padding, which torch and zipfile never look at."""
    path = checkpoints.save(tmp_path, 3, PARTS | {"model": {"a": torch.arange(5.0)}})
    whole = path.read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpoint, match=r"step-3\.pt is damaged \(.*(its check sum is wrong|its end is )"):
            checkpoints.load(path)


def test_a_write_of_which_the_system_takes_a_part_is_gone_on_with(tmp_path, monkeypatch):
    """It takes 2 GiB at a time, and on a nearly full disk what there is room for."""
    monkeypatch.setattr(
        SealedFile, "_take", lambda self, content: io.FileIO.write(self, content[: 1 + len(content) // 3])
    )
    checkpoints.load(checkpoints.save(tmp_path, 3, CONTENT))


def test_it_is_an_archive_that_torch_reads_as_before(two):
    content = torch.load(two / "step-3.pt", weights_only=True, mmap=True)
    assert torch.equal(content["model"]["a"], CONTENT["model"]["a"])


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04", os.urandom(3000), b"PK\x03\x04" + bytes(500)])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_garbage_is_no_checkpoint(content, two):
    (two / "step-10.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-10\.pt is damaged"):
        checkpoints.load(two / "step-10.pt")


@pytest.mark.parametrize(
    "content", [[1], {"format": checkpoints.FORMAT}, {"state_dict": {}}, {**CONTENT, "format": True}]
)
def test_another_programs_file_is_no_checkpoint(content, tmp_path):
    save_sealed(content, tmp_path / "step-1.pt")
    with pytest.raises(CheckpointError, match=r"step-1\.pt is not a checkpoint of a convrun run; remove it"):
        checkpoints.load(tmp_path / "step-1.pt")


@pytest.mark.parametrize("content", [{"state_dict": {}}, {**CONTENT, "format": checkpoints.FORMAT}])
def test_a_file_without_a_check_sum_is_no_checkpoint_and_no_damage(content, tmp_path):
    torch.save(content, tmp_path / "step-1.pt")
    with pytest.raises(CheckpointError, match=r"step-1\.pt is not a checkpoint of a .*: it has no check sum") as caught:
        checkpoints.load(tmp_path / "step-1.pt")
    assert not isinstance(caught.value, DamagedCheckpoint)


def test_a_plain_zip_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "step-1.pt", "w") as file:
        file.writestr("x", "y")
    with pytest.raises(CheckpointError, match=r"step-1\.pt is not a checkpoint of a convrun run: it has no check sum"):
        checkpoints.load(tmp_path / "step-1.pt")


@pytest.mark.parametrize("part", [*checkpoints.PARTS])
@pytest.mark.parametrize("value", [3, "text", [1], None])
def test_a_part_that_is_no_map_is_refused(part, value, tmp_path):
    save_sealed({**CONTENT, "format": checkpoints.FORMAT, part: value}, tmp_path / "step-1.pt")
    if (part, value) == ("ema", None):
        assert checkpoints.load(tmp_path / "step-1.pt")["ema"] is None
        return
    with pytest.raises(CheckpointError, match=r"step-1\.pt is not a checkpoint of a convrun run; remove it"):
        checkpoints.load(tmp_path / "step-1.pt")


def test_another_format_is_told_with_both_numbers_and_is_no_damage(tmp_path):
    save_sealed({**CONTENT, "format": 99}, tmp_path / "step-1.pt")
    with pytest.raises(
        CheckpointError, match=r"step-1\.pt has format 99, and this convrun goes on from format 2"
    ) as caught:
        checkpoints.load(tmp_path / "step-1.pt")
    assert not isinstance(caught.value, DamagedCheckpoint)


def test_a_pipe_in_its_place_blocks_nobody(tmp_path):
    os.mkfifo(tmp_path / "step-1.pt")
    with pytest.raises(CheckpointError, match=r"step-1\.pt is a named pipe, not a checkpoint; remove it"):
        checkpoints.load(tmp_path / "step-1.pt")


def test_an_empty_file_is_damage(tmp_path):
    (tmp_path / "step-1.pt").touch()
    with pytest.raises(DamagedCheckpoint, match=r"step-1\.pt is damaged \(.*it is empty\)"):
        checkpoints.load(tmp_path / "step-1.pt")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_what_keeps_a_file_from_being_read_is_no_damage(number, two, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(zlib, "crc32", fail)
    with pytest.raises(CheckpointError, match=f"cannot be read: {os.strerror(number)}; it may be intact") as caught:
        checkpoints.load(two / "step-10.pt")
    assert not isinstance(caught.value, DamagedCheckpoint)


def test_a_dangling_link_is_told(tmp_path):
    (tmp_path / "step-1.pt").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"step-1\.pt cannot be read: No such file or directory"):
        checkpoints.load(tmp_path / "step-1.pt")


@pytest.mark.parametrize("name", ["step-007.pt", "step-٣.pt", "step--1.pt", "step-1.pt.damaged", "step-.pt"])
def test_only_exact_names_are_checkpoints(name, two):
    (two / name).write_text("x")
    assert checkpoints.steps_in(two) == [3, 10]


def test_what_was_put_aside_counts_no_more(two):
    assert checkpoints.set_aside(two / "step-10.pt").name == "step-10.pt.damaged"
    assert checkpoints.steps_in(two) == [3]
    assert checkpoints.damaged_in(two) == [10]
    checkpoints.keep_only(two, 1, [])
    assert names(two) == ["latest", "step-10.pt.damaged", "step-3.pt"]


@pytest.mark.parametrize(
    ("interval", "left"), [(20, [20, 40, 50]), (10, [10, 20, 30, 40, 50]), (60, [50]), (None, [50])]
)
def test_multiples_of_an_interval_stay_for_good(interval, left, tmp_path):
    for step in (10, 20, 30, 40, 50):
        checkpoints.save(tmp_path, step, PARTS)
        checkpoints.keep_only(tmp_path, 1, [], interval)
    assert checkpoints.steps_in(tmp_path) == left


def test_a_folder_named_like_a_checkpoint_is_not_deleted(two):
    (two / "step-1.pt").mkdir()
    checkpoints.keep_only(two, 1, [])
    assert names(two) == ["latest", "step-1.pt", "step-10.pt"]


def test_a_link_to_a_best_checkpoint_that_is_gone_goes_too(two):
    checkpoints.keep_only(two, 2, [3])
    (two / "step-3.pt").unlink()
    checkpoints.keep_only(two, 2, [3])
    assert names(two) == ["latest", "step-10.pt"]


def test_what_was_not_written_as_meant_gets_no_name(two, monkeypatch):
    """A disk that returns other bytes than it was given: the file is read back before it counts."""
    before, replace = names(two), torch.save

    def save(content, file):
        replace(content, file)
        os.pwrite(file.fileno(), b"\0\0\0\0", 3000)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RunFolderError, match=r"step-20\.pt cannot be written: its check sum is wrong$"):
        checkpoints.save(two, 20, CONTENT)
    assert names(two) == before


def test_a_copy_does_not_change_with_the_state():
    state = {"model": {"w": torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)}, "best": [(1.0, 2)], "n": 1}
    copy = checkpoints.copied(state)
    state["model"]["w"].add_(1)
    state["best"].append((3.0, 4))
    assert copy["model"]["w"].sum() == 0
    assert copy["model"]["w"].stride() == state["model"]["w"].stride()
    assert (copy["best"], copy["n"]) == ([(1.0, 2)], 1)


def test_a_folder_in_its_place_is_told(tmp_path):
    (tmp_path / "step-1.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"step-1\.pt is a folder, not a checkpoint; remove it"):
        checkpoints.load(tmp_path / "step-1.pt")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"a": torch.ones(2), "b": torch.ones(3, 4)}, None),
        ({"a": torch.ones(2), "b": torch.ones(3, 5)}, r"b is \(3, 5\), but the recipe's model has \(3, 4\)"),
        ({"a": torch.ones(2)}, r"b is not there, but the recipe's model has \(3, 4\)"),
        ({"a": torch.ones(2), "b": torch.ones(3, 4), "c": torch.ones(())}, r"c is \(\), .* has no such tensor"),
    ],
)
def test_tensors_of_another_model_are_named(saved, message, tmp_path):
    wanted = {"a": torch.ones(2), "b": torch.ones(3, 4)}
    if message is None:
        checkpoints.check_same_tensors(tmp_path, saved, wanted)
        return
    with pytest.raises(CheckpointError, match="holds the weights of another model: " + message):
        checkpoints.check_same_tensors(tmp_path, saved, wanted)


def test_nothing_holds_a_copy_but_who_made_it():
    """A copy may be as large as the memory of several GPUs; Python's garbage collector comes when it likes."""
    gc.disable()
    try:
        copy = checkpoints.copied({"model": {"weight": torch.zeros(3)}})
        weight = weakref.ref(copy["model"]["weight"])
        del copy
        assert weight() is None
    finally:
        gc.enable()
