"""Commands of the released ConvNeXt code (arXiv:2201.03545), main.py and run_with_submitit.py -> a recipe."""

from __future__ import annotations

from convrun.importing.launch import Command
from convrun.importing.optimizing import put_released_optimizer
from convrun.importing.pipeline import is_mixing, put_erasing, put_mixing, put_policy
from convrun.importing.released_data import put_data, put_init
from convrun.importing.released_run import put_bookkeeping, put_run_hints
from convrun.importing.translation import Translation
from convrun.models.shapes import ISOTROPIC, V1
from convrun.text.wording import nearest

MODELS = (*V1, *ISOTROPIC)
# The models whose depth the released layer decay knows.
_DECAYED_MODELS = ("convnext_small", "convnext_base", "convnext_large", "convnext_xlarge")


def translate_released(t: Translation, command: Command) -> None:
    """Fills the draft from the flags of main.py (and of run_with_submitit.py, where that is the script)."""
    _put_header(t)
    _put_model(t)
    put_init(t)
    put_data(t)
    _put_augmentations(t)
    _put_optimizer(t)
    _put_schedule(t)
    _put_training(t)
    _put_average(t)
    _put_evaluation(t)
    put_bookkeeping(t)
    put_run_hints(t, command)


def _put_header(t: Translation) -> None:
    has_job_name = "job_name" in t.given.flags and t.given.has("job_name")
    if has_job_name:
        t.put("name", "job_name")
    else:
        t.draft.set("name", f"{t.given['model']}_imported")
    t.put("seed", "seed")
    t.put("input_size", "input_size")


def _put_model(t: Translation) -> None:
    name = t.given["model"]
    if name not in MODELS:
        guess = nearest(name, MODELS)
        t.refuse("model", f"the released code has {', '.join(MODELS)}" + (f"; did you mean {guess}?" if guess else ""))
    t.put("model.name", "model")
    t.put("model.drop_path_rate", "drop_path")
    start = t.given["layer_scale_init_value"]
    if start > 0:
        t.put("model.layer_scale_init", "layer_scale_init_value")
    else:
        t.put("model.layer_scale_init", "layer_scale_init_value", None, f"{start:g} turns layer scale off")


def _put_augmentations(t: Translation) -> None:
    small = t.given["input_size"] <= 32
    interpolation = t.given["train_interpolation"]
    if interpolation not in ("bicubic", "bilinear"):
        why = "with timm 0.3.2 that is bilinear or random; convrun takes bicubic or bilinear from here"
        t.refuse("train_interpolation", why)
        interpolation = "bicubic"
    if small:
        item = t.draft.item("augmentations", "random_crop")
        t.put(f"{item}.padding", "input_size", 4, "32 pixels or less are not resized, and cropped from a margin")
    else:
        item = t.draft.item("augmentations", "random_resized_crop")
        t.put(f"{item}.interpolation", "train_interpolation", interpolation)
    t.draft.item("augmentations", "horizontal_flip")
    put_policy(t, interpolation)
    if small and not t.given["aa"]:
        t.no_effect("train_interpolation", "images of 32 pixels or less are not resized")
    put_erasing(t)
    put_mixing(t)
    t.draft.set("loss.name", "cross_entropy", "--smoothing")
    note = "main.py smooths the mixed targets, which is equivalent" if is_mixing(t) else ""
    if t.given["smoothing"] < 0 and not is_mixing(t):
        t.no_effect("smoothing", "below 0 it is off")
        return
    t.put("loss.label_smoothing", "smoothing", note=note)


def _put_optimizer(t: Translation) -> None:
    put_released_optimizer(t)
    t.put("optimizer.lr", "lr", note="of the whole batch, not scaled with it")
    decay, model = t.given["layer_decay"], t.given["model"]
    note = ""
    if decay != 1 and model not in _DECAYED_MODELS:
        note = f"main.py refuses it for {model}; the levels are convrun's own"
    t.put("optimizer.layer_decay", "layer_decay", note=note)
    end = t.given["weight_decay_end"]
    if end is not None and end != t.given["weight_decay"]:
        t.refuse("weight_decay_end", "convrun's weight decay stays the same through the run")
    else:
        t.no_effect("weight_decay_end", "it equals --weight_decay")


def _put_schedule(t: Translation) -> None:
    t.draft.set("scheduler.name", "cosine")
    steps, epochs = t.given["warmup_steps"], t.given["warmup_epochs"]
    if steps > 0:
        t.put("scheduler.warmup_steps", "warmup_steps", note="above 0 it replaces --warmup_epochs")
        t.no_effect("warmup_epochs", "--warmup_steps replaces it")
        if epochs <= 0:
            text = "main.py itself stops with an error at --warmup_steps beside --warmup_epochs 0; this recipe runs"
            t.draft.differs.append(text)
    else:
        t.put("scheduler.warmup_epochs", "warmup_epochs")
        t.no_effect("warmup_steps", "0 or less leaves --warmup_epochs in charge")
    t.put("scheduler.min_lr", "min_lr")


def _put_training(t: Translation) -> None:
    given = t.given
    t.put("training.epochs", "epochs")
    t.put_batch("update_freq", also=("nodes", "ngpus") if "nodes" in given.flags else ())
    if given["use_amp"]:
        t.put("training.precision", "use_amp", "fp16", "autocast with loss scaling")
    else:
        t.put("training.precision", "use_amp", "float32")
    if given["clip_grad"] is None:
        return
    if given["use_amp"]:
        t.put("training.clip_grad_norm", "clip_grad")
    else:
        t.no_effect("clip_grad", "main.py clips only under --use_amp true")


def _put_average(t: Translation) -> None:
    if t.given["model_ema"]:
        t.put("ema.decay", "model_ema_decay", also=("model_ema",))
    else:
        for dest in ("model_ema", "model_ema_decay"):
            t.no_effect(dest, "there is no average of the weights")


def _put_evaluation(t: Translation) -> None:
    given = t.given
    if given["disable_eval"]:
        t.put("evaluation", "disable_eval", None)
        for dest in ("crop_pct", "model_ema_eval"):
            t.no_effect(dest, "--disable_eval")
        return
    t.draft.set("evaluation.every_epochs", 1, comment="main.py's")
    if given["model_ema"] and given["model_ema_eval"]:
        t.put("evaluation.report", "model_ema_eval", "ema", "both are evaluated")
    else:
        t.put("evaluation.report", "model_ema_eval", "model")
        if given["model_ema_eval"]:
            t.no_effect("model_ema_eval", "--model_ema is off")
    size = given["input_size"]
    if size >= 384:
        t.no_effect("crop_pct", "from 384 pixels on main.py resizes to the square and crops nothing")
    elif size <= 32:
        t.no_effect("crop_pct", "32 pixels or less are evaluated whole")
    elif given["crop_pct"] is not None:
        t.put("evaluation.crop_ratio", "crop_pct")
