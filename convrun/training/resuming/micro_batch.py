"""The micro-batch of a run that goes on, where the recipe leaves it to convrun.

`auto` depends on the number of processes, and what is mixed with what in a micro-batch, and its draws, depend on it.
So what it was when the run began stays, on whatever devices the run goes on: it is the same run then.
"""

from __future__ import annotations

from convrun.errors import UsageError
from convrun.plan import Machine
from convrun.plan.arithmetic import divisors
from convrun.recipe import Recipe
from convrun.run_folder import RunFolder
from convrun.text.wording import listed
from convrun.training.resuming.finding import has_saved


def kept_micro_batch(recipe: Recipe, folder: RunFolder, machine: Machine) -> int | None:
    """What `auto` was when the run in a folder began; None if none has, or its batch was another one.

    Raises:
        UsageError: the batch does not divide over the processes in micro-batches of this size.
    """
    batch, plan = recipe.training.batch_size, folder.read_json("plan.json")
    if recipe.training.micro_batch != "auto" or not isinstance(plan, dict) or not has_saved(folder):
        return None
    kept = plan.get("micro_batch")
    if type(kept) is not int or plan.get("batch_size") != batch or not plan.get("micro_batch_is_auto"):
        return None
    if kept < 1 or batch % (kept * machine.processes):
        workable = listed([str(count) for count in divisors(batch // max(1, kept))], 12)
        raise UsageError(
            f"the run in {folder.path} began with micro-batches of {kept} images, and a batch of {batch} cannot be cut "
            f"into them for {machine.processes} processes; go on with {workable} processes"
        )
    return kept
