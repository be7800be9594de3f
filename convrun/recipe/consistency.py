"""Checks across sections: contradictions, and keys that have no effect. Each check yields (path, message, cure)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from convrun.recipe.problems import Path
from convrun.recipe.recipe import Choice, Recipe
from convrun.recipe.sections import Training
from convrun.registry import registry
from convrun.text.wording import listed

Finding = tuple[Path, str, str]
LONGEST_NAME = 200  # of the 255 bytes that file systems give a name


def inconsistencies(recipe: Recipe) -> list[Finding]:
    """Everything that contradicts in a recipe whose sections are each valid."""
    return [finding for check in _CHECKS for finding in check(recipe)]


def _durations(recipe: Recipe) -> Iterator[Finding]:
    pairs = [
        ("training", recipe.training, "epochs", "steps"),
        ("evaluation", recipe.evaluation, "every_epochs", "every_steps"),
        ("checkpoints", recipe.checkpoints, "every_epochs", "every_steps"),
    ]
    for section, values, epochs, steps in pairs:
        if values is None:
            continue
        given = [name for name in (epochs, steps) if getattr(values, name) is not None]
        if len(given) == 2:
            cure = f"keep one: {section}.{epochs}=null, or {section}.{steps}=null"
            yield (section, steps), f"{epochs} and {steps} are both given", cure
        if not given:
            yield (section,), f"neither {epochs} nor {steps} is given", "give one"


def _ema_weights(recipe: Recipe) -> Iterator[Finding]:
    if recipe.ema is None:
        cure = "add ema: {decay: 0.9999}, or use model"
        if recipe.evaluation and recipe.evaluation.report == "ema":
            yield ("evaluation", "report"), "reports the EMA, but the recipe keeps none", cure
        for choice in recipe.callbacks:
            if choice.values.get("weights") == "ema":
                yield (*choice.path, "weights"), "watches the EMA, but the recipe keeps none", cure
        if recipe.expect and recipe.expect.weights == "ema":
            yield ("expect", "weights"), "expects a result of the EMA, but the recipe keeps none", cure


def _layer_decay(recipe: Recipe) -> Iterator[Finding]:
    values = recipe.optimizer.values
    if values["layer_decay"] == 1 and values["layer_decay_levels"] != "group":
        yield ("optimizer", "layer_decay_levels"), "has no effect without layer_decay", "set layer_decay, or remove it"


def _nonfinite(recipe: Recipe) -> Iterator[Finding]:
    if recipe.training.nonfinite == "stop" and recipe.training.nonfinite_limit != Training.nonfinite_limit:
        message = "has no effect: nonfinite is stop, so no step is skipped"
        yield ("training", "nonfinite_limit"), message, "set training.nonfinite to skip, or remove it"


def _sharding(recipe: Recipe) -> Iterator[Finding]:
    path, cure = ("distributed", "strategy"), "distributed.strategy=ddp"
    if recipe.distributed.strategy != "fsdp":
        return
    if recipe.training.precision == "fp16":
        message = "fsdp has no loss scaling, which fp16 needs: no process sees whether another's share overflows"
        yield path, message, f"set training.precision to bf16, or {cure}"
    if recipe.training.compile:
        message = "fsdp gathers each block's weights in hooks, and torch.compile breaks the graph at each of them"
        yield path, message, f"set training.compile to false, or {cure}"
    if not recipe.optimizer.component.meta.get("shards", False):
        able = [c.name for c in registry.all("optimizer") if c.meta.get("shards", False)]
        message = f"{recipe.optimizer.name} is not known to work on shares of weights, which fsdp gives it"
        yield path, message, f"use {listed(able, 12)}, or {cure}"


def _activation_checkpointing(recipe: Recipe) -> Iterator[Finding]:
    if recipe.distributed.activation_checkpointing and recipe.training.compile:
        message = "has no effect with torch.compile, which itself decides what the backward pass recomputes"
        path = ("distributed", "activation_checkpointing")
        yield path, message, "set training.compile to false, or remove it"


def _init(recipe: Recipe) -> Iterator[Finding]:
    init = recipe.init
    if init is None:
        return
    if init.head == "keep" and init.from_ is not None and init.head_init_scale != 1:
        message = "has no effect on a head that is loaded"
        yield ("init", "head_init_scale"), message, "set init.head to reinit, or remove it"
    if init.from_ is None:
        for key, default in (("weights", "model"), ("head", "keep"), ("sha256", None), ("ignore", ())):
            if getattr(init, key) != default:
                yield ("init", key), "has no effect: no weights are loaded", "set init.from, or remove it"


def _no_evaluation(recipe: Recipe) -> Iterator[Finding]:
    if recipe.evaluation is None and recipe.callbacks:
        yield recipe.callbacks[0].path, "callbacks act on evaluations, but evaluation is off", "remove one of them"
    if recipe.evaluation is None and recipe.place(("checkpoints", "keep", "best")) and recipe.checkpoints.keep.best:
        yield ("checkpoints", "keep", "best"), "nothing is evaluated, so there is no best checkpoint", "remove it"


def _augmentation_list(recipe: Recipe) -> Iterator[Finding]:
    seen: dict[str, Choice[Any]] = {}
    for choice in recipe.augmentations:
        meta = choice.component.meta
        if choice.name in seen and meta.get("at_most_once", False):
            yield choice.path, f"{choice.name} is listed twice", "keep one"
        for other, reason in meta.get("conflicts", {}).items():
            if other in seen:
                yield choice.path, f"{choice.name} cannot be combined with {other}: {reason}", "remove one of them"
        for earlier, before in seen.items():
            if choice.name in before.component.meta.get("after", ()):
                yield choice.path, f"{choice.name} comes after {earlier}", f"list it before {earlier}"
        seen[choice.name] = choice


def _image_before_batch(recipe: Recipe) -> Iterator[Finding]:
    batch: Choice[Any] | None = None
    for choice in recipe.augmentations:
        if choice.component.meta["place"] == "batch":
            batch = choice
        elif batch is not None:
            message = f"{choice.name} works on one image in a loader worker, so it cannot follow {batch.name}"
            yield choice.path, message, f"list it before {batch.name}, which works on the batch"


def _loggers(recipe: Recipe) -> Iterator[Finding]:
    names = [choice.name for choice in recipe.loggers]
    if "jsonl" not in names:
        yield ("logging", "to"), "jsonl is missing: resume, status and report read metrics.jsonl", "add jsonl"
    for i, choice in enumerate(recipe.loggers):
        if choice.name in names[:i]:
            yield choice.path, f"{choice.name} is listed twice", "keep one"


def _name_is_a_folder(recipe: Recipe) -> Iterator[Finding]:
    name = recipe.name
    # A leading `.` would hide the folder; with a leading `-`, every command would take its name for an option.
    is_fine = name.isprintable() and name == name.strip() and name[0] not in ".-" and not set(name) & set('/\\:"')
    if not is_fine:
        yield ("name",), f"{_cut(name)} cannot name a folder", "use letters, digits, _ and -"
    elif len(name.encode()) > LONGEST_NAME:
        yield ("name",), f"{_cut(name)} is too long to name a folder", f"use at most {LONGEST_NAME} bytes"


def _cut(name: str) -> str:
    return repr(name) if len(name) <= 60 else f"{name[:57]!r}..."


_CHECKS: list[Callable[[Recipe], Iterator[Finding]]] = [
    _durations,
    _ema_weights,
    _init,
    _layer_decay,
    _nonfinite,
    _sharding,
    _activation_checkpointing,
    _no_evaluation,
    _augmentation_list,
    _image_before_batch,
    _loggers,
    _name_is_a_folder,
]


def differences(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, value before, value after) of all that differs between two resolved recipes.

    An empty list equals a missing key: an older recipe lacks keys that were added later.
    """
    found: list[tuple[str, Any, Any]] = []
    for key in [*before, *(k for k in after if k not in before)]:
        old, new = before.get(key), after.get(key)
        where = f"{path}.{key}" if path else str(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, where)
        elif old != new and not (old in (None, []) and new in (None, [])):
            found.append((where, old, new))
    return found
