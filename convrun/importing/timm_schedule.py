"""timm's train.py: the optimizer, its learning rate and its schedule."""

from __future__ import annotations

from convrun.importing.optimizing import put_timm_optimizer
from convrun.importing.translation import Translation

_SQRT_SCALED = ("ada", "lamb")


def put_optimizer(t: Translation) -> None:
    """The optimizer and the peak of its learning rate."""
    put_timm_optimizer(t)
    _put_lr(t)
    decay = t.given["layer_decay"]
    if decay not in (None, 1.0):
        t.refuse(
            "layer_decay",
            "timm gives the stem a level of its own, which no recipe can say; nearest is optimizer.layer_decay="
            f"{decay:g} optimizer.layer_decay_levels=block, where the stem has the first block's",
        )
    else:
        t.no_effect("layer_decay", "1 is off")


def _put_lr(t: Translation) -> None:
    given = t.given
    if given["lr"]:
        t.put("optimizer.lr", "lr", note="of the whole batch, not scaled with it")
        for dest in ("lr_base", "lr_base_size", "lr_base_scale"):
            t.no_effect(dest, "--lr goes before it")
        return
    base, size = given["lr_base"], given["lr_base_size"]
    scale = given["lr_base_scale"] or ("sqrt" if any(o in given["opt"].lower() for o in _SQRT_SCALED) else "linear")
    if scale != "sqrt":
        t.put("optimizer.lr", "lr_base")
        t.put("optimizer.lr_for_batch", "lr_base_size", note="lr × batch / this")
        t.no_effect("lr_base_scale", "anything but sqrt is linear, as lr_for_batch is")
        return
    batch = (t.processes or 1) * given["batch_size"] * max(1, given["grad_accum_steps"])
    if min(batch, size) < 1:
        t.refuse("lr_base_size" if size < 1 else "batch_size", "must be 1 at least")
        return
    note = f"{base:g} × sqrt({batch} / {size}), so it follows no other batch"
    lr = float(f"{base * (batch / size) ** 0.5:.12g}")
    t.put("optimizer.lr", "lr_base", lr, note, also=("lr_base_size", "lr_base_scale"))
    t.no_effect("lr", "0 leaves it to --lr-base")


def put_schedule(t: Translation) -> None:
    """The schedule: timm's move in epochs or in steps, convrun's in steps."""
    given, name = t.given, t.given["sched"]
    if name not in ("cosine", "step"):
        t.refuse(
            "sched", "convrun has cosine and step of timm's schedules; see convrun list components --kind scheduler"
        )
        return
    t.put("scheduler.name", "sched")
    warmup = given["warmup_epochs"]
    t.put("scheduler.warmup_epochs", "warmup_epochs")
    if warmup:
        t.put("scheduler.warmup_start_lr", "warmup_lr")
    else:
        t.no_effect("warmup_lr", "there is no warm-up")
    if name == "step":
        t.put("scheduler.every_epochs", "decay_epochs")
        t.put("scheduler.factor", "decay_rate")
        t.no_effect("min_lr", "--sched step has none")
        if given["warmup_prefix"] and warmup:
            t.refuse("warmup_prefix", "convrun counts the intervals of step from the start of the run")
        _tell_of_warm_up(t)
        return
    t.put("scheduler.min_lr", "min_lr")
    for dest in ("decay_epochs", "decay_rate"):
        t.no_effect(dest, "--sched cosine has none")
    if not given["sched_on_updates"]:
        t.draft.differs.append(
            "train.py sets the learning rate once an epoch (without --sched-on-updates), convrun at every step; "
            "after the warm-up the two agree where an epoch begins"
        )
    if warmup and not given["warmup_prefix"]:
        t.draft.differs.append(
            f"after {warmup} epochs of warm-up train.py goes on at epoch {warmup} of a cosine over all "
            f"{given['epochs']} epochs; convrun's cosine begins there, at the peak, and spans the rest"
        )
    _tell_of_warm_up(t)
    t.no_effect("sched_on_updates", "convrun sets the learning rate at every step")


def _tell_of_warm_up(t: Translation) -> None:
    given = t.given
    if given["warmup_epochs"] and given["sched_on_updates"]:
        t.draft.differs.append(
            "convrun's warm-up of n steps reaches the peak at its last step, train.py's a step later"
        )
    elif given["warmup_epochs"] and given["sched"] == "step":
        t.draft.differs.append("train.py warms up by one stair an epoch, convrun at every step")
    if given["sched"] == "step":
        t.no_effect("sched_on_updates", "the drops come at whole epochs either way")
