"""The flags of timm's train.py (timm 1.0), and those of older versions that an args.yaml may still hold."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from convrun.importing.flags import Fate, Flag

_BATCH_NORM = "it is about batch normalization, which convrun's models do not have"
_SPEED = "it is about speed or memory"
_SIZES = "convrun trains at one resolution"
_NAFLEX = "convrun does not have timm's NaFlex loader"
_DISTILLATION = "convrun does not distil"
_WANDB = "to log to Weights & Biases, add wandb to logging.to: convrun describe logger/wandb"
_NOISE = "convrun's schedules have no noise"
_CYCLES = "convrun's cosine has one cycle"
_KEYS = "convrun reads folders of images; convrun list components --kind data shows the rest"


def key_value(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`, the value as a Python literal if it is one.

    Raises:
        ValueError: no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _several(fate: Fate, why: str, *flags: Flag) -> tuple[Flag, ...]:
    """Flags that share a fate and its reason."""
    return tuple(dataclasses.replace(flag, fate=fate, why=why) for flag in flags)


TRAIN_FLAGS: tuple[Flag, ...] = (
    Flag("config", str, "", aliases=("-c",)),
    # the data
    Flag("data-dir", str),
    Flag("dataset", str, ""),
    Flag("train-split", str, "train"),
    Flag("val-split", str, "validation"),
    Flag("dataset-download", None, False),
    Flag("class-map", str, "", "refused", "convrun numbers the class folders in their sorted order"),
    *_several("refused", _KEYS, Flag("train-num-samples", int), Flag("val-num-samples", int), Flag("input-key"),
              Flag("target-key"), Flag("dataset-trust-remote-code", None, False)),
    Flag("input-img-mode", str),
    # the model
    Flag("model", str, "resnet50"),
    Flag("pretrained", None, False),
    Flag("pretrained-path", str),
    Flag("initial-checkpoint", str, ""),
    Flag("resume", str, ""),
    Flag("no-resume-opt", None, False, "no effect", "convrun run goes on with its own run folder, optimizer and all"),
    Flag("num-classes", int),
    Flag("gp", str, None, "refused", "convrun leaves the model's pooling as it is"),
    Flag("img-size", int),
    Flag("in-chans", int),
    Flag("input-size", int, None, nargs=3),
    Flag("crop-pct", float),
    Flag("mean", float, None, nargs="+"),
    Flag("std", float, None, nargs="+"),
    Flag("interpolation", str, ""),
    Flag("batch-size", int, 128, aliases=("-b",)),
    Flag("validation-batch-size", int, None, aliases=("-vb",)),
    Flag("grad-accum-steps", int, 1),
    *_several("no effect", _SPEED, Flag("channels-last", None, False), Flag("fuser", str, ""),
              Flag("grad-checkpointing", None, False), Flag("torchscript", None, False)),
    Flag("fast-norm", None, False, "refused", "convrun normalizes in full precision"),
    Flag("model-kwargs", key_value, {}, nargs="*"),
    Flag("head-init-scale", float),
    Flag("head-init-bias", float, None, "refused", "convrun starts a new head's bias at 0"),
    Flag("torchcompile", str, None, nargs="?", const="inductor"),
    Flag("torchcompile-mode", str, None, "refused", "convrun compiles with torch.compile's default mode"),
    # the device
    Flag("device", str, "cuda"),
    Flag("amp", None, False),
    Flag("amp-dtype", str, "float16"),
    Flag("model-dtype", str),
    *_several("no effect", _SPEED, Flag("no-ddp-bb", None, False), Flag("synchronize-step", None, False)),
    Flag("local_rank", int, 0, "no effect", "convrun's launcher sets it", aliases=("--local-rank",)),
    Flag("device-modules", str, None, "refused", "convrun imports plugins, not device modules", nargs="+"),
    # the optimizer
    Flag("opt", str, "sgd"),
    Flag("opt-eps", float),
    Flag("opt-betas", float, None, nargs="+"),
    Flag("momentum", float, 0.9),
    Flag("weight-decay", float, 2e-5),
    Flag("clip-grad", float),
    Flag("clip-mode", str, "norm"),
    Flag("layer-decay", float),
    *_several("refused", "convrun's layer decay has neither floor nor threshold",
              Flag("layer-decay-min-scale", float, 0.0), Flag("layer-decay-no-opt-scale", float)),
    Flag("opt-kwargs", key_value, {}, nargs="*"),
    # the learning rate
    Flag("sched", str, "cosine"),
    Flag("sched-on-updates", None, False),
    Flag("lr", float),
    Flag("lr-base", float, 0.1),
    Flag("lr-base-size", int, 256),
    Flag("lr-base-scale", str, ""),
    Flag("lr-noise", float, None, "refused", _NOISE, nargs="+"),
    *_several("no effect", "without --lr-noise there is no noise", Flag("lr-noise-pct", float, 0.67),
              Flag("lr-noise-std", float, 1.0)),
    Flag("lr-cycle-mul", float, 1.0, "refused", _CYCLES),
    Flag("lr-cycle-decay", float, 0.5, "no effect", "there is one cycle"),
    Flag("lr-cycle-limit", int, 1, "refused", _CYCLES),
    Flag("lr-k-decay", float, 1.0, "refused", "convrun's cosine has no k-decay"),
    Flag("warmup-lr", float, 1e-5),
    Flag("min-lr", float, 0.0),
    Flag("epochs", int, 300),
    Flag("epoch-repeats", float, 0.0, "refused", "an epoch of convrun takes each image once"),
    Flag("start-epoch", int, None, "refused", "convrun starts at the beginning, or where its own run stopped"),
    Flag("decay-milestones", int, [90, 180, 270], "no effect", "--sched multistep alone reads it", nargs="+"),
    Flag("decay-epochs", float, 90.0),
    Flag("warmup-epochs", int, 5),
    Flag("warmup-prefix", None, False),
    Flag("cooldown-epochs", int, 0, "refused", "convrun's schedules end where the run ends"),
    Flag("patience-epochs", int, 10, "no effect", "--sched plateau alone reads it"),
    Flag("decay-rate", float, 0.1, aliases=("--dr",)),
    # augmentation
    Flag("no-aug", None, False, "refused", "without a crop of their own, convrun's images are cut as in evaluation"),
    Flag("train-crop-mode", str),
    Flag("scale", float, [0.08, 1.0], nargs="+"),
    Flag("ratio", float, [3 / 4, 4 / 3], nargs="+"),
    Flag("hflip", float, 0.5),
    Flag("vflip", float, 0.0, "refused", "convrun has no vertical flip"),
    Flag("color-jitter", float, 0.4),
    Flag("color-jitter-prob", float),
    Flag("grayscale-prob", float, None, "refused", "convrun has no random grey"),
    Flag("gaussian-blur-prob", float, None, "refused", "convrun has no random blur"),
    Flag("aa", str),
    Flag("aug-repeats", float, 0.0, "refused", "convrun shows each image once an epoch"),
    Flag("aug-splits", int, 0, "refused", "convrun has no augmentation splits"),
    Flag("jsd-loss", None, False, "refused", "convrun has no such loss", aliases=("--jsd",)),
    Flag("bce-loss", None, False),
    Flag("bce-sum", None, False),
    Flag("bce-target-thresh", float),
    Flag("bce-pos-weight", float, None, "refused", "convrun's binary_cross_entropy has no such weight"),
    Flag("reprob", float, 0.0),
    Flag("remode", str, "pixel"),
    Flag("recount", int, 1),
    Flag("resplit", None, False, "refused", "convrun erases in the whole batch"),
    Flag("mixup", float, 0.0),
    Flag("cutmix", float, 0.0),
    Flag("cutmix-minmax", float, None, nargs="+"),
    Flag("mixup-prob", float, 1.0),
    Flag("mixup-switch-prob", float, 0.5),
    Flag("mixup-mode", str, "batch"),
    Flag("mixup-off-epoch", int, 0, "refused", "convrun mixes to the end of the run"),
    Flag("smoothing", float, 0.1),
    Flag("train-interpolation", str, "random"),
    Flag("drop", float, 0.0),
    Flag("drop-connect", float, None, "no effect", "train.py no longer reads it; --drop-path replaces it"),
    Flag("drop-path", float),
    Flag("drop-block", float, None, "refused", "convrun has no DropBlock"),
    # batch normalization
    *_several("refused", _BATCH_NORM, Flag("bn-momentum", float), Flag("bn-eps", float),
              Flag("split-bn", None, False), Flag("bn-tf", None, False)),
    *_several("no effect", _BATCH_NORM, Flag("sync-bn", None, False), Flag("dist-bn", str, "reduce")),
    # the average of the weights
    Flag("model-ema", None, False),
    Flag("model-ema-force-cpu", None, False),
    Flag("model-ema-decay", float, 0.9998),
    Flag("model-ema-warmup", None, False),
    # the rest
    Flag("seed", int, 42),
    Flag("worker-seeding", str, "all", "no effect", "each image has draws of its own, whatever the workers"),
    Flag("log-interval", int, 50),
    Flag("val-interval", int, 1),
    Flag("recovery-interval", int, 0),
    Flag("checkpoint-hist", int, 10),
    Flag("workers", int, 4, aliases=("-j",)),
    Flag("save-images", None, False, "no effect", "convrun preview shows what the model sees"),
    *_several("no effect", _SPEED, Flag("pin-mem", None, False), Flag("use-multi-epochs-loader", None, False)),
    Flag("no-prefetcher", None, False),
    Flag("output", str, ""),
    Flag("experiment", str, ""),
    Flag("eval-metric", str, "top1"),
    Flag("tta", int, 0, "refused", "convrun evaluates each image once"),
    *_several("no effect", _WANDB, Flag("log-wandb", None, False), Flag("wandb-project"),
              Flag("wandb-tags", str, [], nargs="+"), Flag("wandb-resume-id", str, "")),
    # what convrun does not do
    *_several("refused", _SIZES, Flag("train-img-sizes", int, nargs="+"), Flag("train-batch-sizes", int, nargs="+"),
              Flag("train-size-probs", float, nargs="+"), Flag("train-size-schedule", str, "constant"),
              Flag("train-size-schedule-spread", float, 0.65), Flag("train-size-random-mix", float, 0.1),
              Flag("train-batches-per-epoch", int, aliases=("--train-steps-per-epoch",)),
              Flag("variable-batch-loss-scale", str, "none")),
    *_several("refused", _NAFLEX, Flag("naflex-loader", None, False),
              Flag("naflex-train-seq-lens", int, [128, 256, 576, 784, 1024], nargs="+"),
              Flag("naflex-max-seq-len", int, 576), Flag("naflex-patch-sizes", int, nargs="+"),
              Flag("naflex-patch-size-probs", float, nargs="+"), Flag("naflex-loss-scale", str, "linear"),
              Flag("naflex-patchify-channels-first", None, False)),
    *_several("refused", _DISTILLATION, Flag("kd-model-name"), Flag("kd-distill-type", str, "logit"),
              Flag("kd-loss-type", str, "kl"), Flag("distill-loss-weight", float), Flag("task-loss-weight", float),
              Flag("kd-temperature", float, 4.0), Flag("kd-student-feature-dim", int),
              Flag("kd-teacher-feature-dim", int), Flag("kd-token-distill-type", str, "soft")),
    # older versions
    Flag("native-amp", None, False),
    Flag("apex-amp", None, False, "refused", "convrun mixes precision by torch alone; --amp does"),
    Flag("amp-impl", str, "native", "refused", "convrun mixes precision by torch alone; --amp does"),
    Flag("aot-autograd", None, False, "no effect", _SPEED),
    Flag("jit", None, False, "no effect", _SPEED),
)  # fmt: skip
