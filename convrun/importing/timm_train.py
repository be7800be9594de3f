"""timm's train.py commands, its --config files and its args.yaml -> a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convrun.errors import UsageError
from convrun.importing.flags import Flag, Given
from convrun.importing.timm_flags import TRAIN_FLAGS
from convrun.importing.timm_images import put_data, put_evaluation, put_images, put_loss
from convrun.importing.timm_models import put_model
from convrun.importing.timm_schedule import put_optimizer, put_schedule
from convrun.importing.translation import Translation
from convrun.recipe.tree import read_file
from convrun.text.wording import nearest


def translate_timm(t: Translation) -> None:
    """Fills the draft from the flags of train.py."""
    given = t.given
    if given["experiment"]:
        t.put("name", "experiment")
    else:
        name = given["model"].replace("/", "_").replace(":", "_")
        t.draft.set("name", f"{name}_imported")
        t.no_effect("experiment", "empty")
    t.put("seed", "seed")
    config = put_model(t)
    put_data(t, config)
    put_images(t, config)
    put_loss(t)
    put_optimizer(t)
    put_schedule(t)
    _put_training(t)
    _put_average(t)
    put_evaluation(t, config)
    _put_bookkeeping(t)


def _put_training(t: Translation) -> None:
    given = t.given
    epochs, warmup = given["epochs"], given["warmup_epochs"]
    if given["warmup_prefix"]:
        t.put(
            "training.epochs", "epochs", epochs + warmup, f"{epochs} and {warmup} of warm-up before", ("warmup_prefix",)
        )
    else:
        t.put("training.epochs", "epochs")
    t.put_batch("grad_accum_steps")
    if given["grad_accum_steps"] > 1:
        t.draft.differs.append("train.py also steps with what is left at the end of an epoch; convrun leaves it out")
    _put_precision(t)
    if given["torchcompile"] == "inductor":
        t.put("training.compile", "torchcompile", True)
    elif given["torchcompile"] is not None:
        t.refuse("torchcompile", "convrun compiles with torch's default backend, inductor")
    if given["clip_grad"] is None:
        t.no_effect("clip_mode", "without --clip-grad nothing is clipped")
    elif given["clip_mode"] == "norm":
        t.put("training.clip_grad_norm", "clip_grad")
        t.no_effect("clip_mode", "norm is convrun's way")
    else:
        t.refuse("clip_mode", "convrun clips the norm of the whole gradient")


def _put_precision(t: Translation) -> None:
    given = t.given
    if given["model_dtype"] not in (None, "float32"):
        t.refuse("model_dtype", "convrun keeps the weights in float32; --amp --amp-dtype bfloat16 computes in bf16")
    t.no_effect("model_dtype", "the weights are float32")
    amp = next((dest for dest in ("amp", "native_amp") if given[dest]), None)
    if amp is None:
        t.put("training.precision", "amp", "float32")
        t.no_effect("amp_dtype", "--amp is off")
        return
    kinds = {"float16": "fp16", "bfloat16": "bf16"}
    if given["amp_dtype"] not in kinds:
        t.refuse("amp_dtype", "float16 or bfloat16")
        return
    t.put("training.precision", amp, kinds[given["amp_dtype"]], given["amp_dtype"], also=("amp_dtype",))


def _put_average(t: Translation) -> None:
    given = t.given
    if not given["model_ema"]:
        for dest in ("model_ema_decay", "model_ema_force_cpu", "model_ema_warmup"):
            t.no_effect(dest, "--model-ema is off")
        return
    t.put("ema.decay", "model_ema_decay", also=("model_ema",))
    t.draft.differs.append("timm's EMA starts from the weights after the first step, convrun's from those before it")
    if given["model_ema_warmup"]:
        t.refuse("model_ema_warmup", "the decay of convrun's EMA is constant")


def _put_bookkeeping(t: Translation) -> None:
    given = t.given
    for dest, path in (
        ("log_interval", "logging.every_steps"),
        ("workers", "data.workers"),
        ("checkpoint_hist", "checkpoints.keep.best"),
    ):
        if given.has(dest):
            t.put(path, dest)
    if given["recovery_interval"] > 0:
        t.put("checkpoints.every_steps", "recovery_interval")
    elif given.has("val_interval"):
        t.put("checkpoints.every_epochs", "val_interval")
        t.no_effect("recovery_interval", "0 is off")
    else:
        t.no_effect("recovery_interval", "0 is off")
    if given["eval_metric"] != "top1":
        t.refuse("eval_metric", "convrun's best checkpoint is the one of the best top-1")
    t.no_effect("eval_metric", "top1 is convrun's way")
    if given["resume"]:
        text = "convrun cannot resume a run of train.py, only its own run folders"
        t.hint("resume", f"{text}. To start from these weights: init.from={given['resume']}")
    else:
        t.no_effect("resume", "empty")
    t.hint("output", f"convrun run THIS.yaml --output {given['output'] or 'DIR'}")
    t.hint(
        "device", "convrun run --device cpu" if given["device"] == "cpu" else "convrun takes a GPU where there is one"
    )


def with_config(given: Given) -> Given:
    """The flags with those of the --config file below them.

    Raises:
        UsageError: the file holds something other than flags.
    """
    path = given["config"]
    if not path:
        return given
    below, unknown = read_args_file(Path(path))
    if unknown:
        raise UsageError(f"--config {path}: {unknown[0]}")
    values = {dest: below[dest] for dest in below.flags if below.has(dest)}
    values |= {dest: given[dest] for dest in given.flags if given.has(dest)}
    return Given(given.script, TRAIN_FLAGS, values)


def read_args_file(path: Path) -> tuple[Given, list[str]]:
    """The flags in a YAML file of train.py's, those that differ from the default counted as given.

    Returns:
        The flags, and a remark for each unknown flag that is off.

    Raises:
        UsageError: names every unknown flag that is on, and every value of the wrong type.
        RecipeError: not a YAML file of keys.
    """
    written = {str(key).replace("-", "_"): value for key, value in read_file(path).plain().items()}
    if written.get("data") and not written.get("data_dir"):
        written["data_dir"] = written["data"]
    written.pop("data", None)
    flags = {flag.dest: flag for flag in TRAIN_FLAGS}
    values: dict[str, Any] = {}
    unknown: list[str] = []
    problems: list[str] = []
    for key, value in written.items():
        if key not in flags:
            is_off = value in (None, False, "", 0, [], {})
            guess = nearest(key, flags)
            text = f"{key}: not a flag of timm's train.py" + (f"; did you mean {guess}?" if guess else "")
            (unknown if is_off else problems).append(f"{key}: unknown to convrun, and off" if is_off else text)
        elif not _fits(flags[key], value):
            problems.append(f"{key}: {_expected(flags[key])} expected, got {value!r}")
        elif value != flags[key].default:
            values[key] = list(value.items()) if isinstance(value, dict) else value
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return Given(path.name, TRAIN_FLAGS, values), unknown


def _fits(flag: Flag, value: Any) -> bool:
    if value is None:
        return True
    if flag.type is None:
        return isinstance(value, bool)
    if isinstance(flag.default, dict):
        return isinstance(value, Mapping)
    if flag.nargs in ("+", 3):
        return isinstance(value, list) and all(_is_of(flag.type, item) for item in value)
    return _is_of(flag.type, value)


def _is_of(kind: Any, value: Any) -> bool:
    wanted: tuple[type, ...] = {float: (int, float), int: (int,)}.get(kind, (str,))
    return isinstance(value, wanted) and not isinstance(value, bool)


def _expected(flag: Flag) -> str:
    if flag.type is None:
        return "true or false"
    if isinstance(flag.default, dict):
        return "a map"
    name = {float: "a number", int: "a whole number"}.get(flag.type, "text")  # type: ignore[call-overload]
    return f"a list, each {name}," if flag.nargs in ("+", 3) else str(name)
