import collections
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convrun.errors import RunFolderError
from convrun.run_folder import RunFolder, write_whole

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / "one")


def fails(error):
    def fail(*_):
        raise error

    return fail


def begin(folder):
    """As a run does: from here on the folder stays."""
    folder.write("recipe.yaml", "name: x\n")


def test_a_new_place_is_named_by_time_and_hash(tmp_path):
    first = RunFolder.named("tiny", "0123456789abcdef", tmp_path)
    assert re.fullmatch(r"\d{8}-\d{6}-012345", first.path.name)
    assert first.path.parent == tmp_path / "tiny"


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    taken = RunFolder.named("tiny", "0123456789abcdef", tmp_path).path
    for _ in range(3):  # the second may turn meanwhile
        taken.mkdir(parents=True)
        other = RunFolder.named("tiny", "0123456789abcdef", tmp_path).path
        assert not other.exists()
        if other.name == f"{taken.name}-2":
            return
        taken = other
    raise AssertionError("never numbered")


def test_what_never_began_leaves_nothing_behind(folder, tmp_path):
    with folder.opened():
        assert folder.checkpoints.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_stay(folder, tmp_path):
    folder.path.mkdir(parents=True)
    with folder.opened():
        pass
    assert list(folder.path.iterdir()) == []


def test_a_run_that_began_stays(folder):
    with folder.opened():
        begin(folder)
    assert {path.name for path in folder.path.iterdir()} == {"recipe.yaml", "checkpoints", ".lock", ".lock.1"}


def test_a_foreign_folder_is_refused_untouched(folder):
    folder.path.mkdir(parents=True)
    (folder.path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"neither empty nor a run folder \(it holds thesis\.tex\); .*--output"):
        folder.opened().__enter__()
    assert [path.name for path in folder.path.iterdir()] == ["thesis.tex"]


def test_a_folder_with_a_recipe_of_the_users_is_foreign(folder):
    folder.path.mkdir(parents=True)
    folder.recipe.write_text("# my comments\nextends: digits_demo\n")
    with pytest.raises(RunFolderError, match=r"it holds recipe\.yaml"):
        folder.opened().__enter__()
    assert folder.recipe.read_text().startswith("# my comments")
    assert not (folder.path / ".lock").exists()


def test_what_a_kill_before_the_beginning_left_is_no_obstacle(folder):
    folder.checkpoints.mkdir(parents=True)
    for name in (".lock", "environment.json", ".recipe.yaml.77.draft"):
        (folder.path / name).write_text("")
    with folder.opened():
        assert not (folder.path / ".recipe.yaml.77.draft").exists()
        begin(folder)


def test_drafts_of_a_killed_process_are_removed_and_nothing_else(folder):
    with folder.opened():
        begin(folder)
    drafts = [folder.checkpoints / ".step-9.77.draft", folder.path / ".status.json.77.draft"]
    kept = [folder.checkpoints / "step-9.pt", folder.path / "draft", folder.path / ".hidden"]
    for path in drafts + kept:
        path.write_text("")
    with folder.opened():
        assert not any(path.exists() for path in drafts)
        assert all(path.exists() for path in kept)


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_second_writer_is_refused_with_the_first_ones_pid(has_begun, folder):
    with folder.opened():
        if has_begun:
            begin(folder)
        with pytest.raises(
            RunFolderError, match=f"one is in use by process {os.getpid()} on .*; wait for it, stop it, or"
        ):
            RunFolder(folder.path).opened().__enter__()
        assert folder.checkpoints.is_dir()  # the one refused has removed nothing
        assert (folder.path / ".lock").exists()
    with folder.opened():
        pass


def test_another_process_is_refused_until_the_holder_is_killed(folder, wait_until):
    code = (
        "import sys, time, pathlib; from convrun.run_folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).opened(): print('in', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, folder.path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    with pytest.raises(RunFolderError, match=f"in use by process {process.pid} on "):
        folder.opened().__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with folder.opened():
        begin(folder)


def test_a_forked_worker_does_not_hold_the_lock(folder):
    with folder.opened():
        begin(folder)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, b"x")
            time.sleep(600)
            os._exit(0)
    assert os.read(reader, 1) == b"x"  # it runs
    try:
        with folder.opened():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text("a file in the way"), "File exists"),
        (lambda path: path.parent.write_text("a file above"), "Not a directory"),
        (lambda path: path.symlink_to("/proc/self/nothing"), "File exists"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told(make, reason, tmp_path):
    path = tmp_path / "above" / "run"
    if reason != "Not a directory":
        path.parent.mkdir()
    make(path)
    with pytest.raises(
        RunFolderError, match=f"the run folder {path} cannot be written: {reason}; choose another with --o"
    ):
        RunFolder(path).opened().__enter__()


def test_a_folder_nobody_may_write_is_told():
    with pytest.raises(RunFolderError, match=r"the run folder /proc/runs cannot be written: .*; choose another with"):
        RunFolder(Path("/proc/runs")).opened().__enter__()


def test_a_full_disk_is_told_when_the_lock_is_written(folder):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(RunFolderError, match="one cannot be written: File too large; choose another with --output"):
            folder.opened().__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write_whole(path, b"old")
    monkeypatch.setattr("os.fsync", fails(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_status_has_its_fields(folder):
    with folder.opened():
        folder.set_status("failed", 3, 10, "why")
        status = json.loads((folder.path / "status.json").read_text())
        begin(folder)
    assert set(status) == {"state", "step", "total_steps", "host", "pid", "time", "error"}
    assert (status["pid"], status["step"], status["error"]) == (os.getpid(), 3, "why")


def test_a_link_of_another_user_is_refused_and_ones_own_is_not(folder, tmp_path, monkeypatch):
    """In a folder that others can write, a link in the place of a file would send the run's writing elsewhere."""
    with folder.opened():
        begin(folder)
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    (folder.path / "metrics.jsonl").symlink_to(outside)
    with folder.opened():
        pass
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(
        RunFolderError, match=r"metrics\.jsonl is a link that belongs to another user, .* remove it, or"
    ):
        folder.opened().__enter__()
    assert outside.read_text() == "precious"


def test_a_link_in_the_place_of_the_lock_is_never_followed(folder, tmp_path):
    folder.path.mkdir(parents=True)
    (folder.path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="one cannot be written: Too many levels of symbolic links"):
        folder.opened().__enter__()
    assert not (tmp_path / "elsewhere").exists()


def test_after_the_folder_was_given_back_nothing_is_written(folder):
    """By a thread that is still at a checkpoint when its process ends."""
    with folder.opened():
        begin(folder)
    with pytest.raises(RunFolderError, match="was released by this process"):
        folder.check_held()
    with folder.opened():
        folder.check_held()


def test_a_run_that_was_taken_over_writes_nothing_more(folder):
    with folder.opened():
        begin(folder)
        folder.set_status("running", 3, 10)
        (folder.path / ".lock.2").write_text("{}")
        for write in (lambda: folder.set_status("running", 4, 10), folder.check_held, lambda: folder.write("a", "b")):
            with pytest.raises(RunFolderError, match="one was taken over by another process"):
                write()
    assert folder.read_json("status.json")["step"] == 3
    assert not (folder.path / "a").exists()


def test_the_space_is_checked(folder, monkeypatch):
    with folder.opened():
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 999, 999))
        folder.check_space(999)
        with pytest.raises(
            RunFolderError, match=r"needs about .* but the disk of .*one has .* free; free some, choose"
        ):
            folder.check_space(1000)


def test_a_full_disk_at_start_is_said_before_anything_is_written(train, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 999, 999))
    with pytest.raises(
        RunFolderError, match=r"run needs about 230 KiB for its checkpoints and weights, but .* has 999 B fr"
    ):
        train()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_finds_the_disk_full_is_said_and_training_goes_on(train, tmp_path, no_room_for):
    run = tmp_path / "run"
    assert train("evaluation=null", "callbacks=[]", "ema=null", at={7: lambda: no_room_for(8)}).step == 16
    assert re.search(r"step-8\.pt cannot be written: No space left on device", (run / "train.log").read_text())


def test_metrics_on_a_full_disk_end_the_run_with_a_message(train, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="a bug"):
        train(at={1: fails(RuntimeError("a bug"))})
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl cannot be written: No space left on device"):
        train()
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


def test_two_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    """The status, by the thread that writes checkpoints and by the one that ends the run."""
    path, together = tmp_path / "status.json", threading.Barrier(4)

    def write(i):
        together.wait()
        for _ in range(20):
            write_whole(path, b"%d" % i * 1000)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in [b"%d" % i * 1000 for i in range(4)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_is_finished_late_does_not_say_that_the_run_goes_on(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened():
        folder.set_status("running", 4, 16)
        folder.set_status("interrupted", 6, 16)
        folder.set_status("running", 5, 16)
        told = folder.read_json("status.json")
    assert (told["state"], told["step"]) == ("interrupted", 6)


def test_drafts_of_a_killed_process_are_removed_wherever_they_lie(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened():
        folder.write("recipe.yaml", "name: tiny\n")
        folder.set_status("running", 0, 16)
    drafts = [folder.path / name for name in (".plan.json.1.draft", "checkpoints/.step-4.1.draft",
                                              "tensorboard/.events.1.draft", "debug/.step-4.json.1.draft")]  # fmt: skip
    for draft in drafts:
        draft.parent.mkdir(exist_ok=True)
        draft.write_text("half")
    with folder.opened():
        assert not any(draft.exists() for draft in drafts)


def test_names_of_files_may_be_any_bytes(folder):
    """Linux hands them to Python as lone surrogates, which UTF-8 has no bytes for."""
    with folder.opened():
        folder.write_json("environment.json", {"folder": os.fsdecode(b"/data/caf\xe9"), "name": "é"})
        begin(folder)
    assert '"folder": "/data/caf\\udce9"' in (folder.path / "environment.json").read_text(encoding="utf-8")
    assert folder.read_json("environment.json") == {"folder": os.fsdecode(b"/data/caf\xe9"), "name": "é"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "null", "[" * 100_000, "\0", '{"a": 1} x'])
def test_a_damaged_json_file_counts_as_none(content, folder):
    folder.path.mkdir(parents=True)
    (folder.path / "status.json").write_text(content)
    assert folder.read_json("status.json") is None


@pytest.mark.parametrize("content", ["[1]", "[" * 100_000])
def test_a_finished_run_with_a_damaged_status_is_finished_again(content, train, tmp_path):
    train()
    (tmp_path / "run" / "status.json").write_text(content)
    train()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


def test_a_path_that_torch_could_not_read_a_checkpoint_from_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"the path .*/caf\\udce9 is not UTF-8; choose another with --output"):
        RunFolder(tmp_path / os.fsdecode(b"caf\xe9")).opened().__enter__()
    assert list(tmp_path.iterdir()) == []
