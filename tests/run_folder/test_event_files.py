import os
import random

import pytest

from convrun.components.loggers import TensorBoard
from convrun.contracts.logger import RunInfo
from convrun.display.screen import Screen
from convrun.run_folder.event_files import EARLIER


def logger(folder, start_step=0, evaluated_step=0):
    info = RunInfo("tiny", folder, {}, 100, 10, start_step, Screen(), evaluated_step=evaluated_step)
    return TensorBoard(info)


def train_row(step):
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": 1 / step, "lr": 0.1}


def eval_row(step, weights="model"):
    return {"kind": "eval", "step": step, "epoch": 1, "weights": weights, "top1": 50.0 + step, "loss": 1.0}


def shown(folder):
    """What TensorBoard shows: steps and values by tag."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={SCALARS: 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def play(logger, first, last):
    for step in range(first, last + 1):
        logger.log(train_row(step))
        if step % 5 == 0:
            logger.log(eval_row(step))
            logger.log(eval_row(step, "ema"))


@pytest.fixture
def undisturbed(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = logger(tmp_path / "whole")
    play(whole, 1, 40)
    whole.close()
    return shown(tmp_path / "whole")


@pytest.mark.parametrize("seed", range(4))
def test_kills_again_and_again_leave_no_trace(seed, undisturbed, tmp_path, monkeypatch):
    draws, step = random.Random(seed), 0
    clock = iter([100, 100, 100, 90, 5, *range(200, 230)])
    pid = iter([999, 1000, 7, 999, 999, *range(2000, 2030)])
    while step < 40:  # starts within a second, from a clock that was set back, with a process number that recurs
        now, number = next(clock), next(pid)
        monkeypatch.setattr("convrun.run_folder.event_files.time.time", lambda now=now: now)
        monkeypatch.setattr("convrun.run_folder.event_files.os.getpid", lambda number=number: number)
        run = logger(tmp_path, step, step)
        reached = min(40, step + draws.randint(1, 12))
        play(run, step + 1, reached)
        if reached < 40:  # killed in the midst of a row, and back to a checkpoint from before
            run._file.append(run._record(train_row(reached + 1))[: draws.randint(1, 50)])
            step = draws.randint(step, reached)
        else:
            step = reached
        run.close()
    assert shown(tmp_path) == undisturbed
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_an_evaluation_that_was_stopped_is_there_once(tmp_path):
    run = logger(tmp_path)
    play(run, 1, 10)
    run.close()
    run = logger(tmp_path, 10, 5)  # saved at step 10, in the midst of its evaluation
    for weights in ("model", "ema"):
        run.log(eval_row(10, weights))
    run.close()
    assert [step for step, _ in shown(tmp_path)["eval/ema/top1"]] == [5, 10]
    assert [step for step, _ in shown(tmp_path)["train/loss"]] == list(range(1, 11))


@pytest.mark.parametrize(
    "moment",
    ["convrun.run_folder.event_files.write_whole", "pathlib.Path.unlink", "convrun.run_folder.event_files.sync_folder"],
)
def test_a_kill_while_taking_over_loses_and_doubles_nothing(moment, undisturbed, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    run = logger(tmp_path)
    play(run, 1, 20)
    run.close()
    for start in (20, 20):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(moment, kill)
            logger(tmp_path, start, start)
    run = logger(tmp_path, 20, 20)
    play(run, 21, 40)
    run.close()
    assert shown(tmp_path) == undisturbed


def test_one_file_for_all_earlier_starts(tmp_path):
    for step in (0, 1, 2):
        run = logger(tmp_path, step, step)
        run.log(train_row(step + 1))
        run.close()
    assert sorted(os.listdir(tmp_path / "tensorboard"))[0] == EARLIER
    assert len(os.listdir(tmp_path / "tensorboard")) == 2


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    other = tmp_path / "tensorboard" / "events.out.tfevents.0000000123.host.1.0"
    other.write_bytes(b"x")
    logger(tmp_path, 3, 3).close()
    assert other.read_bytes() == b"x"


@pytest.mark.parametrize("content", [b"", b"x", bytes(11), b"\xff" * 40, bytes(12) + b"\xff" * 100])
def test_garbage_in_an_event_file_of_ours_ends_no_start(content, tmp_path):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.0000000123.h.1.convrun").write_bytes(content)
    run = logger(tmp_path, 3, 3)
    run.log(train_row(4))
    run.close()
    assert [step for step, _ in shown(tmp_path)["train/loss"]] == [4]


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_record_is_dropped_and_all_others_are_shown(seed, tmp_path):
    """TensorBoard would show nothing of what follows it."""
    run = logger(tmp_path)
    for step in range(1, 11):
        run.log(train_row(step))
    run.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    content = bytearray(path.read_bytes())
    size = len(run._record(train_row(1)))
    place = len(content) - 10 * size + seed * size // 2 + 12 + seed  # within the data of record seed // 2, from 0
    content[place] ^= 1 << seed % 8
    path.write_bytes(content)
    run = logger(tmp_path, 10, 10)
    run.log(train_row(11))
    run.close()
    assert [step for step, _ in shown(tmp_path)["train/loss"]] == [s for s in range(1, 12) if s != seed // 2 + 1]


@pytest.mark.parametrize("byte", range(12))
def test_behind_a_damaged_length_nothing_is_believed(byte, tmp_path):
    run = logger(tmp_path)
    for step in (1, 2, 3):
        run.log(train_row(step))
    run.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) - 2 * len(run._record(train_row(1))) + byte] ^= 4
    path.write_bytes(content)
    run = logger(tmp_path, 3, 3)
    run.log(train_row(4))
    run.close()
    assert [step for step, _ in shown(tmp_path)["train/loss"]] == [1, 4]
