"""How to go on with a run that ended because it had to: the commands, to paste."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from convrun import checkpoints
from convrun.errors import DeviceMemoryError, Diverged
from convrun.plan import Plan
from convrun.training.recording.contract import Recorder


def after_divergence(error: Diverged, plan: Plan, folder: Path, record: str) -> Diverged:
    """The error with where the step is recorded, the last good checkpoint, and what to try from there.

    Args:
        error: as the loop raised it.
        plan: of the run.
        folder: of the run, where every checkpoint begun is finished.
        record: where the step is recorded, in words; empty if it is not.
    """
    steps = checkpoints.steps_in(folder / "checkpoints")
    cures = [("optimizer.lr", f"{plan.optimizer.values['lr'] / 2:g}", "at half the learning rate")]
    clip = plan.training.clip_grad_norm
    how = "with clipped gradients" if clip is None else "with shorter gradients"
    cures.append(("training.clip_grad_norm", "1" if clip is None else f"{clip / 2:g}", how))
    if plan.training.nonfinite == "stop":
        cures.append(("training.nonfinite", "skip", "without such steps"))
    lines = [f"{error}; {record}" if record else str(error), _where_from(folder, steps)]
    lines += [f"  {how + ':':<29}{_command(folder, key, value, bool(steps))}" for key, value, how in cures]
    if len(steps) > 1:  # its numbers are finite, and may still be those of a run that is lost
        newest, earlier = (checkpoints.path_of(folder, step).name for step in (steps[-1], steps[-2]))
        lines.append(f"should it diverge again, {newest} is spoilt already: delete it to go on from {earlier}")
    return Diverged("\n".join(lines))


def after_out_of_memory(error: DeviceMemoryError, folder: Path, is_all_saved: bool) -> DeviceMemoryError:
    """The error with the command that goes on, where one is known to help.

    Args:
        error: as the loop raised it.
        folder: of the run, where every checkpoint begun is finished.
        is_all_saved: whether the last one could be written.
    """
    if error.cure is None:
        return error
    key, _, value = error.cure.partition("=")
    steps = checkpoints.steps_in(folder / "checkpoints")
    saved = "go on with"
    if steps:
        newest = checkpoints.path_of(folder, steps[-1]).name
        saved = "all is saved, go on with" if is_all_saved else f"what came after {newest} is lost, go on from it with"
    return DeviceMemoryError(
        f"{error}; {saved}: {_command(folder, key, value, bool(steps))}", error.cure, error.is_agreed
    )


def _where_from(folder: Path, steps: list[int]) -> str:
    if not steps:
        return "nothing was saved before; start again, for example"
    return f"the last good checkpoint is {checkpoints.path_of(folder / 'checkpoints', steps[-1])}; go on from it"


def _command(folder: Path, key: str, value: str, is_resumed: bool) -> str:
    allow = f" --allow-change {key}" if is_resumed and key != "training.nonfinite" else ""
    return f"convrun run {shlex.quote(str(folder))} {key}={value}{allow}"


@contextlib.contextmanager
def advising(recorder: Recorder, plan: Plan, folder: Path) -> Iterator[None]:
    """An end inside that asks for a decision tells what there is to go on from, and how."""
    try:
        yield
    except Diverged as error:
        recorder.wait_for_checkpoints()
        raise after_divergence(error, plan, folder, recorder.dump) from error
    except DeviceMemoryError as error:
        recorder.wait_for_checkpoints()
        raise after_out_of_memory(error, folder, recorder.is_all_saved()) from error
