"""The sections of a recipe that are plain settings: one dataclass each, with one line for every key.

Component sections (model, data, optimizer, ...) take their keys from the registry instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from convrun.contracts.augmentation import Interpolation
from convrun.contracts.metrics import Weights
from convrun.keys import Limits, NonNegativeInt, PositiveFloat, PositiveInt
from convrun.keys.durations import Duration

Arithmetic = Literal["float32", "bf16", "fp16"]
Precision = Literal[Arithmetic, "auto"]
Strategy = Literal["ddp", "fsdp"]
Percent = Annotated[float, Limits(ge=0, le=100)]


@dataclass(frozen=True)
class Header:
    """What describes the recipe itself, and the settings that belong to no section.

    extends: the recipe this one changes: a shipped name, or a path relative to this file
    name: names the run's folder; the file's name if not given
    summary: one line for lists
    notes: anything a reader should know
    seed: every random draw follows from it and from its position in the run
    input_size: height and width of the images the model sees, in pixels
    plugins: Python files (relative to this recipe) or modules that register components
    """

    extends: str | None = None
    name: Annotated[str, Limits(min_length=1, max_length=100)] | None = None
    summary: str = ""
    notes: str = ""
    seed: Annotated[int, Limits(ge=0, lt=2**63)] = 0
    input_size: Annotated[int, Limits(ge=4, le=4096)] = 224
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expect:
    """A published or measured result, for comparison.

    top1: top-1 accuracy in percent on the validation images
    top5: top-5 accuracy in percent
    weights: which weights reached it
    source: where it is published, or how it was measured
    needs: GPUs, hours and disk, as far as they are known
    """

    top1: Percent | None = None
    top5: Percent | None = None
    weights: Weights = "model"
    source: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Init:
    """The weights a run starts from.

    from: a file, a URL, timm:NAME (timm's pretrained weights) or hf:OWNER/NAME (a repository of the Hugging Face hub)
    weights: which weights to take from a file that holds both: the model's, or their EMA
    head: keep loads the classifier too; reinit makes a new one for this data set's classes
    head_init_scale: factor on the initial weights and bias of a new head
    sha256: the file's checksum, or its first digits (at least 8); another file is refused
    ignore: patterns (`*` matches anything) for the names of tensors in the file that are left out
    """

    from_: Annotated[str, Limits(min_length=1)] | None = None
    weights: Weights = "model"
    head: Literal["keep", "reinit"] = "keep"
    head_init_scale: PositiveFloat = 1.0
    sha256: str | None = None
    ignore: tuple[Annotated[str, Limits(min_length=1)], ...] = ()


@dataclass(frozen=True)
class Training:
    """How long to train, in which batches and with which arithmetic.

    batch_size: images of one optimizer step, over all processes and accumulation
    epochs: passes over the training images (or give steps)
    steps: optimizer steps of the whole run (or give epochs)
    micro_batch: images of one forward pass on one device; auto: the largest divisor of a process's share up to 128
    precision: arithmetic of the forward pass; auto: bf16 on a GPU that supports it, else float32
    clip_grad_norm: largest norm of a step's gradient; a larger gradient is scaled down to it
    nonfinite: what happens when the loss or the gradient of a step is non-finite. stop: the run ends (exit code 3), and
        its last checkpoint can be resumed; skip: the step is not applied, which costs a wait for the device each
        step. In fp16 a step whose gradient overflows is skipped either way: that is how the loss scale is found
    nonfinite_limit: how many steps of a run may be skipped this way; only with nonfinite: skip
    compile: whether torch.compile compiles the model
    stop_after: how long one start may last; then the run saves and ends with exit code 75, to be started again. Make
        it shorter than the job's time limit, by more than a step and a checkpoint take
    """

    batch_size: Annotated[int, Limits(gt=0, le=2**20)]
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    micro_batch: PositiveInt | Literal["auto"] = "auto"
    precision: Precision = "float32"
    clip_grad_norm: PositiveFloat | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    nonfinite_limit: PositiveInt = 10
    compile: bool = False
    stop_after: Duration | None = None


@dataclass(frozen=True)
class Distributed:
    """How several processes hold a model. It may change whenever a run is resumed.

    strategy: ddp: each process holds all weights, gradients, optimizer state and the EMA; fsdp: each holds a share of
        them, and a block's weights are gathered when they are needed, in bf16 if that is the precision
    activation_checkpointing: whether the backward pass recomputes a block's activations from its input, instead of
        keeping them from the forward pass: less memory for about a third more computation, and the same numbers
    """

    strategy: Strategy = "ddp"
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class Ema:
    """An exponential moving average of the weights, in float32, updated after each optimizer step.

    decay: share of the average that each step keeps; it averages over about 1 / (1 - decay) steps
    """

    decay: Annotated[float, Limits(gt=0, lt=1)]


@dataclass(frozen=True)
class Evaluation:
    """When and how the validation images are evaluated; `evaluation: null` turns it off.

    every_epochs: epochs between evaluations; the end of the run is always evaluated (or give every_steps)
    every_steps: optimizer steps between evaluations
    report: the weights whose top-1 counts as the result and picks the best checkpoint
    crop_ratio: centre crop as a share of the resized short side; squash: resize to the square, no crop; auto: 0.875
        below 384 pixels, squash from 384 on, no resize at 32 and below
    interpolation: how images are resized
    batch_size: images of one forward pass on one device; auto: the micro-batch
    """

    every_epochs: PositiveInt | None = None
    every_steps: PositiveInt | None = None
    report: Weights = "model"
    crop_ratio: Annotated[float, Limits(gt=0, le=1)] | Literal["auto", "squash"] = "auto"
    interpolation: Interpolation = "bicubic"
    batch_size: PositiveInt | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Logging:
    """What is recorded while training.

    every_steps: optimizer steps between two rows; a row's loss is the mean over the steps since the last
    """

    every_steps: PositiveInt = 50


@dataclass(frozen=True)
class Keep:
    """Which checkpoints are kept.

    last: how many of the newest
    best: how many of the best by the reported top-1
    every_epochs: those at the end of epochs n, 2n, ... are never deleted
    """

    last: PositiveInt = 2
    best: NonNegativeInt = 1
    every_epochs: PositiveInt | None = None


@dataclass(frozen=True)
class Checkpoints:
    """When the state of the run is saved; it is always saved at the end of the run and on a signal.

    every_epochs: epochs between checkpoints (or give every_steps)
    every_steps: optimizer steps between checkpoints
    keep: which of them are kept
    """

    every_epochs: PositiveInt | None = None
    every_steps: PositiveInt | None = None
    keep: Keep = field(default_factory=Keep)


# Sections of plain settings, in the order in which a recipe lists them.
PLAIN_SECTIONS: dict[str, type[Any]] = {
    "expect": Expect,
    "init": Init,
    "training": Training,
    "distributed": Distributed,
    "ema": Ema,
    "evaluation": Evaluation,
    "logging": Logging,
    "checkpoints": Checkpoints,
}
# Component sections that may be left out, and their defaults.
DEFAULT_COMPONENTS: dict[str, dict[str, Any]] = {
    "loss": {"name": "cross_entropy"},
    "launcher": {"name": "local"},
}
DEFAULT_LISTS: dict[str, list[dict[str, Any]]] = {
    "augmentations": [],
    "logging.to": [{"name": "console"}, {"name": "jsonl"}, {"name": "tensorboard"}],
    "callbacks": [],
}
# The order of a recipe's keys, for what convrun writes.
ORDER = (
    "name", "summary", "expect", "notes", "seed", "input_size", "plugins", "model", "init", "data", "augmentations",
    "loss", "optimizer", "scheduler", "training", "distributed", "ema", "evaluation", "logging", "checkpoints",
    "callbacks", "launcher",
)  # fmt: skip
