"""A signal after the first line of `convrun run` and before its first step, or after its last: the exit code tells."""

import os
import signal
import subprocess
import sys

import pytest

from convrun import entry
from convrun.errors import Interrupted, Preempted
from convrun.process.signals import STOPPING, StopNow, StopRequest, held_back, let_through
from convrun.process.world import world_of

CODES = [(number, 130 if number == signal.SIGINT else 75) for number in STOPPING]


def message(number):
    return f"stopped by {number.name} before training began; nothing was changed, start again the same way"


def mask():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def in_turn(first, then):
    """Both functions as one."""
    return lambda *arguments: (first(*arguments), then(*arguments))[1]


def ends_with(code, folder):
    """The exit code of `python -m` with a module of this text, -n for a death by signal n, and what it printed."""
    (folder / "script.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-m", "script"], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def heard():
    """The signals that came while no StopRequest listened; puts the handlers back, for `held_back` leaves others."""
    heard = []
    before = {number: signal.signal(number, lambda number, _frame: heard.append(number)) for number in STOPPING}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


# From the first line of the command until `run` listens.


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_while_the_command_line_is_imported_waits_until_run_listens(
    number, code, forked, forked_with_gate, gate, tmp_path
):
    process = forked_with_gate("convrun.entry._answer")
    process.send(number)
    gate.may_go.write_text("")
    assert process.wait() == code
    assert forked.output.read_text() == f"{message(number)}\n"
    assert not (tmp_path / "run").exists()


def test_signals_are_held_back_until_they_are_let_through(heard):
    with pytest.raises(Preempted, match=message(signal.SIGUSR1)), held_back():
        signal.raise_signal(signal.SIGUSR1)
        with StopRequest():
            let_through()
    assert not heard


def test_they_are_held_back_again_as_soon_as_nobody_listens(heard):
    with held_back():
        with StopRequest() as stop:
            let_through()
            stop.begin()
        signal.raise_signal(signal.SIGTERM)
        assert signal.sigpending() == {signal.SIGTERM}
    assert not signal.sigpending()
    assert not heard


@pytest.mark.parametrize("arguments", [["run", "--help"], ["run", "nowhere"], ["run", "digits_demo", "seed=x"]])
def test_no_way_out_of_run_leaves_signals_held_back(arguments, convrun, monkeypatch):
    masks = []
    monkeypatch.setattr("convrun.entry._answer", in_turn(lambda arguments: masks.append(mask()), entry._answer))
    before = mask()
    convrun(*arguments)
    assert (masks, mask()) == ([before | set(STOPPING)], before)


def test_other_verbs_deal_with_signals_as_python_does(convrun):
    before = {number: signal.getsignal(number) for number in STOPPING}, mask()
    code, _, _ = convrun("list", "recipes")
    assert code == 0
    assert ({number: signal.getsignal(number) for number in STOPPING}, mask()) == before


# While libraries are imported, data opened, the model built.


@pytest.mark.parametrize("number", STOPPING)
def test_before_the_run_begins_a_signal_stops_at_once_through_any_handler_of_errors(number):
    with pytest.raises((Preempted, Interrupted), match=message(number)) as end, StopRequest():
        try:
            signal.raise_signal(number)
        except Exception as error:  # as libraries do
            raise AssertionError from error
    assert end.value.exit_code == (130 if number == signal.SIGINT else 75)


@pytest.mark.parametrize(
    ("where", "number", "code"),
    [
        ("convrun.training.run.open_data", signal.SIGTERM, 75),
        ("convrun.training.run.open_data", signal.SIGINT, 130),
        ("convrun.training.run.build_model", signal.SIGUSR1, 75),
        ("convrun.run_folder.folder.RunLock", signal.SIGHUP, 75),
    ],
)
def test_a_signal_during_set_up_ends_it_at_once_and_leaves_nothing(
    where, number, code, forked, forked_with_gate, gate, tmp_path
):
    process = forked_with_gate(where)
    process.send(number)
    assert process.wait() == code
    assert forked.output.read_text() == f"{message(number)}\n"
    assert not (tmp_path / "run").exists()


def test_a_signal_while_a_checkpoint_is_read_leaves_the_run_as_it_was(
    train, forked, forked_with_gate, tmp_path, reference, rows
):
    with pytest.raises(Preempted):
        train(at={6: lambda: signal.raise_signal(signal.SIGTERM)})
    run = tmp_path / "run"

    def content():
        return {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and not p.name.startswith(".lock")}

    before = content()
    process = forked_with_gate("convrun.training.resuming.finding.check_unchanged")
    process.send(signal.SIGTERM)
    assert process.wait() == 75
    assert "Traceback" not in forked.output.read_text()
    assert content() == before
    assert train().step == 16
    assert rows(run) == rows(reference)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_inside_of_exec_ends_python_m_with_the_exit_code(number, code, tmp_path):
    """A KeyboardInterrupt that has left `exec`, as dataclasses use it, makes Python end itself with SIGINT."""
    script = f"""
import signal, sys
from convrun.errors import ConvrunError
from convrun.process.signals import StopRequest
try:
    with StopRequest():
        exec("signal.raise_signal({int(number)})")
except ConvrunError as error:
    sys.exit(error.exit_code)
"""
    assert ends_with(script, tmp_path) == (code, "")


def swallowed_signal(*_arguments, **_keys):
    """What a library does that takes any exception in its import for a missing part."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        return


@pytest.mark.parametrize("go_on", [StopRequest.check, StopRequest.begin])
def test_a_signal_that_a_library_swallowed_counts_as_soon_as_it_is_looked_for(go_on):
    with pytest.raises(Preempted), StopRequest() as stop:
        swallowed_signal()
        raise OSError
    with pytest.raises(StopNow):
        go_on(stop)
    assert not stop.run_has_begun


def test_a_run_does_not_begin_after_a_signal_that_a_library_swallowed(train, monkeypatch, tmp_path):
    from convrun.training import run

    monkeypatch.setattr(run, "build_model", in_turn(swallowed_signal, run.build_model))
    with pytest.raises(Preempted, match=message(signal.SIGTERM)):
        train()
    assert not (tmp_path / "run").exists()


def test_it_counts_before_the_data_are_opened_if_it_came_while_training_was_imported(
    convrun, tiny_file, monkeypatch, tmp_path
):
    opened = []
    monkeypatch.setattr("convrun.training.run.open_data", opened.append)
    monkeypatch.setattr("convrun.distributed.meeting.processes.world_of", in_turn(swallowed_signal, world_of))
    code, _, said = convrun("run", tiny_file, "--no-plugins", "--device", "cpu", "-o", tmp_path / "run")
    assert (code, said, opened) == (75, f"{message(signal.SIGTERM)}\n", [])


def test_what_breaks_because_a_library_was_interrupted_in_its_import_is_the_stop():
    with pytest.raises(Preempted, match=message(signal.SIGTERM)), StopRequest():
        swallowed_signal()
        raise RecursionError


def test_an_exit_that_was_asked_for_stays_one():
    """A process of several has told the others by then (convrun.distributed.meeting.rank)."""
    with pytest.raises(SystemExit, match="7"), StopRequest():
        swallowed_signal()
        sys.exit(7)


# After the end.


@pytest.mark.parametrize("when", ["while Python shuts down", "while the error is told"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_does_not_change_the_exit_code(when, number, tmp_path):
    script = f"""
import atexit, signal, sys
from convrun import entry
def late(*arguments, then=entry._end):
    signal.raise_signal({int(number)})
    if arguments:
        then(*arguments)
if "told" in {when!r}:
    entry._end = late
else:
    atexit.register(late)
sys.argv[1:] = ["run", "nowhere"]
entry.main()
"""
    code, said = ends_with(script, tmp_path)
    assert code == 2, said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
