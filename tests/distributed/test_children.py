"""The parent of a run's processes, with children that need no torch."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convrun.distributed.failing.boards import FolderBoard
from convrun.distributed.failing.failure import Failure, RunFailed
from convrun.distributed.meeting import children as module
from convrun.distributed.meeting.children import Children, free_port, process_environment
from convrun.errors import ConvrunError, Interrupted

# What stands for a run: `rank` is there, the others wait until somebody ends them.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from convrun.distributed.failing.boards import FolderBoard
from convrun.distributed.failing.failure import Failure
rank, board = int(os.environ["RANK"]), Path(os.environ["CONVRUN_BOARD"])
{body}
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
time.sleep(60)
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Makes the parent of two processes that do as the body says."""

    def start(body, count=2, **keys):
        script = tmp_path / "child.py"
        script.write_text(SCRIPT.format(body=body))
        return Children(count, [sys.executable, "-S", str(script)], **{"grace_seconds": 0.5, **keys})

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return start


def all_gone(children):
    return all(process.poll() is not None for process in children.processes)


def test_all_processes_that_succeed_are_a_success(started):
    children = started("sys.exit(0)")
    children.run()
    assert [process.returncode for process in children.processes] == [0, 0]


def test_each_process_knows_its_place(started, tmp_path):
    names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR".split()
    found = f"(Path({str(tmp_path)!r}) / f'of{{rank}}').write_text(' '.join(os.environ[n] for n in {names}))"
    started(f"{found}; sys.exit(0)").run()
    assert [(tmp_path / f"of{rank}").read_text() for rank in (0, 1)] == ["0 2 0 2 127.0.0.1", "1 2 1 2 127.0.0.1"]


def test_the_word_a_process_leaves_is_the_error_once_and_the_others_are_ended(started):
    body = "if rank == 1: FolderBoard(board).claim(Failure(1, 'here', 'no such image', 1)); sys.exit(1)"
    children = started(body)
    with pytest.raises(RunFailed, match=r"^rank 1 on here: no such image$") as error:
        children.run()
    assert error.value.exit_code == 1
    assert all_gone(children)


def test_the_exit_code_is_the_failing_processes(started):
    with pytest.raises(RunFailed) as error:
        started(
            "FolderBoard(board).claim(Failure(rank, 'here', 'key x is unknown', 2, is_everyones=True)); sys.exit(2)"
        ).run()
    assert (error.value.exit_code, str(error.value)) == (2, "key x is unknown")


def test_a_process_that_is_killed_is_named_with_its_signal(started):
    children = started("if rank == 1: os.kill(os.getpid(), 9)")
    with pytest.raises(RunFailed, match=r"^rank 1 on \S+ was killed by signal 9 \(SIGKILL\)"):
        children.run()
    assert all_gone(children)


def test_a_process_that_ends_without_a_word_shows_the_last_it_printed(started):
    body = "if rank == 1: print('malloc(): corrupted', file=sys.stderr, flush=True); os._exit(134)"
    with pytest.raises(RunFailed, match=r"(?s)rank 1 on \S+ ended with exit code 134.*malloc\(\): corrupted") as error:
        started(body).run()
    assert error.value.exit_code == 134


def test_processes_that_end_together_pass_their_exit_code_on(started):
    with pytest.raises(SystemExit) as end:
        started("sys.exit(75)").run()
    assert end.value.code == 75


def test_processes_that_end_together_with_an_error_leave_it_to_rank_0_to_say_so(started):
    body = (
        "if rank == 0: FolderBoard(board).note_agreed_end()\n"
        "while not FolderBoard(board).is_end_agreed: time.sleep(0.01)\n"
        "sys.exit(1)"
    )
    with pytest.raises(SystemExit) as end:
        started(body).run()
    assert end.value.code == 1


def test_a_process_that_is_killed_on_the_way_to_an_agreed_end_is_named(started):
    with pytest.raises(RunFailed, match=r"^rank 0 on \S+ was killed by signal 9"):
        started("if rank == 0: FolderBoard(board).note_agreed_end(); os.kill(os.getpid(), 9)").run()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_before_training_ends_all_as_soon_as_rank_0_has_said_so(started, number, code):
    """The others, that still import, are not waited for: there is nothing they could write."""
    body = (
        f"leave = lambda *_: (FolderBoard(board).claim(Failure(0, 'here', 'before training', {code}, "
        f"is_everyones=True)), sys.exit({code}))\n"
        f"signal.signal({number}, leave)\nif rank == 0: os.kill(os.getppid(), {number})"
    )
    children = started(body, grace_seconds=float("inf"))
    with pytest.raises(RunFailed, match=r"^before training$") as error:
        children.run()
    assert error.value.exit_code == code
    assert children.processes[1].returncode == -signal.SIGKILL  # it would sleep, and then end with 0


def test_rank_0_that_is_stopped_before_it_can_leave_word_ends_all(started):
    children = started("if rank == 0: sys.exit(75)", grace_seconds=float("inf"))
    with pytest.raises(SystemExit) as end:
        children.run()
    assert end.value.code == 75
    assert children.processes[1].returncode == -signal.SIGKILL  # it would sleep, and then end with 0


def test_a_signal_that_comes_before_the_processes_are_there_reaches_rank_0(started, monkeypatch):
    def port_and_signal():
        os.kill(os.getpid(), signal.SIGUSR1)
        return 1

    monkeypatch.setattr(module, "free_port", port_and_signal)
    with pytest.raises(SystemExit) as end:
        started("signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\nif rank == 1: sys.exit(75)").run()
    assert end.value.code == 75


def test_a_signal_that_this_process_ignores_stays_ignored(started):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        body = "if rank == 0: os.kill(os.getppid(), signal.SIGHUP)\nsys.exit(signal.getsignal(1) != signal.SIG_IGN)"
        started(body).run()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_import_from_where_this_one_does(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/site"])
    assert Children(2).command[1:4] == ["-P", "-m", "convrun"]
    for working_folder in ("", os.getcwd()):
        monkeypatch.setattr(sys, "path", [working_folder, "/site"])
        assert Children(2).command[1:3] == ["-m", "convrun"]


def test_a_process_that_cannot_be_started_is_an_error_with_a_cure(tmp_path):
    children = Children(2, [str(tmp_path / "nothing")])
    with pytest.raises(ConvrunError, match=r"process 1 of 2 cannot be started: No such file.*fewer --devices"):
        children.run()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_without_a_temporary_folder_the_error_names_the_variable(started, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(ConvrunError, match=r"no temporary folder can be made: .*No space.*TMPDIR"):
        started("").run()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_last_words_come_from_the_log_once_there_is_one(started, tmp_path):
    body = (
        "from convrun.distributed.meeting.rank_log import print_to_log\n"
        "from convrun.process.world import world_of\n"
        "if rank == 1:\n"
        "  print('imported', flush=True)\n"
        f"  print_to_log(Path({str(tmp_path)!r}), world_of(os.environ))\n"
        "  os.write(2, b'malloc(): corrupted'); os.abort()"
    )
    with pytest.raises(RunFailed, match=r"(?s)rank 1 on \S+ was killed by signal 6.*the last it printed:\nmalloc"):
        started(body).run()
    assert (tmp_path / "logs" / "rank-1.log").read_text() == "malloc(): corrupted"


def test_a_failure_is_told_though_the_folder_for_words_is_gone(started):
    body = "import shutil\nif rank == 1: shutil.rmtree(board); sys.exit(4)"
    with pytest.raises(RunFailed, match=r"^rank 1 on \S+ ended with exit code 4"):
        started(body).run()


def test_a_word_that_cannot_be_left_raises_nothing(tmp_path):
    FolderBoard(tmp_path / "gone").note_agreed_end()
    board = FolderBoard(tmp_path / "gone")
    assert board.claim(Failure(1, "here", "no such image"))
    assert board.read() is None


def test_a_signal_reaches_rank_0_alone(started, tmp_path):
    body = (
        f"signal.signal(signal.SIGUSR1, lambda *_: ((Path({str(tmp_path)!r}) / str(rank)).touch(), sys.exit(75)))\n"
        "if rank == 1: time.sleep(0.3); os.kill(os.getppid(), signal.SIGUSR1); time.sleep(1); sys.exit(75)"
    )
    with pytest.raises(SystemExit) as end:
        started(body).run()
    assert end.value.code == 75
    assert (tmp_path / "0").exists()
    assert not (tmp_path / "1").exists()


def test_after_a_second_ctrl_c_rank_0_may_say_where_it_stopped(started, tmp_path):
    body = (
        f"one = Path({str(tmp_path)!r}) / 'one'\n"
        "heard = []\n"
        "def stop(*_):\n"
        "  heard.append(1); one.touch()\n"
        "  if len(heard) == 2: time.sleep(0.5); FolderBoard(board).claim(Failure(0, 'here', 'in step 4', 130, "
        "is_everyones=True)); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "if rank == 1:\n"
        "  os.kill(os.getppid(), signal.SIGINT)\n"
        "  while not one.exists(): time.sleep(0.01)\n"  # two at a time would be one
        "  os.kill(os.getppid(), signal.SIGINT)"
    )
    with pytest.raises(RunFailed, match=r"^in step 4$") as error:
        started(body).run()
    assert error.value.exit_code == 130


def test_a_second_ctrl_c_ends_processes_that_do_not_listen(started):
    body = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "if rank == 1:\n  while True: time.sleep(0.3); os.kill(os.getppid(), signal.SIGINT)"  # two at a time are one
    )
    children = started(body)
    began = time.monotonic()
    with pytest.raises(Interrupted, match="stopped at once"):
        children.run()
    assert all_gone(children)
    assert time.monotonic() - began < 30  # they would sleep for a minute


def test_the_handlers_of_signals_are_as_before_afterwards(started):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    started("sys.exit(0)").run()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_the_user_has_set_stays(tmp_path):
    environment = process_environment(4, 29500, tmp_path, {"OMP_NUM_THREADS": "7", "GLOO_SOCKET_IFNAME": "eth0"})
    assert (environment["OMP_NUM_THREADS"], environment["GLOO_SOCKET_IFNAME"]) == ("7", "eth0")
    assert environment["WORLD_SIZE"] == "4"


def test_threads_are_shared_out_where_the_user_says_nothing(tmp_path):
    assert process_environment(10**6, 29500, tmp_path, {})["OMP_NUM_THREADS"] == "1"


def test_a_bug_shows_its_traceback_and_a_foreseen_error_only_with_debug():
    bug = Failure(2, "gpu1", "ValueError: x", 1, "Traceback ...\nValueError: x", is_bug=True)
    assert bug.text() == "rank 2 on gpu1 failed:\nTraceback ...\nValueError: x"
    foreseen = Failure(2, "gpu1", "no such file", 1, "Traceback ...\nDataError: no such file")
    assert foreseen.text() == "rank 2 on gpu1: no such file"
    assert "Traceback" in foreseen.text(debug=True)


def test_the_parent_needs_no_torch():
    modules = "convrun.distributed.meeting.processes, convrun.distributed.meeting.children"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_free_port_is_none_that_the_kernel_gives_to_others():
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if end <= module.FIRST_PORT:
        pytest.skip("here the kernel gives out all ports")
    assert all(module.FIRST_PORT <= free_port() < end for _ in range(20))


def test_a_port_in_use_is_passed_over(monkeypatch, tmp_path):
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        port = busy.getsockname()[1]
        (tmp_path / "range").write_text(f"{port + 1}\t60999\n")
        monkeypatch.setattr(module, "EPHEMERAL_PORTS", tmp_path / "range")
        monkeypatch.setattr(module, "FIRST_PORT", port)
        assert free_port() != port


@pytest.mark.parametrize("text", [None, "", "1024\t65535\n", "garbage"])
def test_without_a_range_below_any_free_port_is_taken(text, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "EPHEMERAL_PORTS", tmp_path / "range")
    if text is not None:
        (tmp_path / "range").write_text(text)
    with socket.socket() as taken:
        taken.bind(("", free_port()))
