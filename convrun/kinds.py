"""The kinds of component, and each kind's contract: what convrun hands in and what it expects back.

`convrun describe KIND` prints these texts, so they are the only place where a contract is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from convrun.keys import Limits, NonNegativeInt, PositiveFloat, PositiveInt

Statistics = Annotated[tuple[float, ...], Limits(min_length=3, max_length=3)]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelSettings:
    """Keys that every model section takes beside the model's own.

    num_classes: size of the head; null: the classes of the data. A larger one leaves outputs that nothing trains for
    """

    num_classes: PositiveInt | None = None


@dataclass(frozen=True)
class OptimizerSettings:
    """Keys that every optimizer section takes beside the optimizer's own.

    layer_decay: factor per depth level that multiplies the learning rate of earlier layers (1 = off)
    layer_decay_levels: what a level is: `group`, three blocks of stage 2 and each other stage whole (V1's
        fine-tuning), or `block`, every block (V2's `single`)
    lr_for_batch: the batch size that `lr` is meant for; the plan scales lr by batch_size / lr_for_batch
    """

    layer_decay: Annotated[float, Limits(gt=0, le=1)] = 1.0
    layer_decay_levels: Literal["group", "block"] = "group"
    lr_for_batch: PositiveInt | None = None


@dataclass(frozen=True)
class DataSettings:
    """Keys that every data section takes beside the data set's own.

    mean: per-channel mean (red, green, blue; pixel values in 0..1) that is subtracted
    std: per-channel standard deviation (same scale) that is divided by
    workers: loader processes for each training process; auto: the machine's cores shared out, at most 8
    prefetch: micro-batches each worker keeps ready
    bad_images: what happens if an image cannot be read: `error` ends the run; `skip` trains on another one in its
        place, drawn from (seed, epoch, sample), evaluates without it, and lists it in skipped_images.jsonl
    bad_images_limit: most images of each split that may be skipped before the run ends: a number, or a share below 1
    retries: how often an image is read again after an error that may pass (input/output error, stale file handle,
        time-out of a network file system, ...), after 0.1 s, 0.2 s, 0.4 s and so on
    timeout: seconds that training waits for one image before the run ends, naming it; null: for ever. With
        workers: 0 there is no one to notice
    """

    mean: Statistics = IMAGENET_MEAN
    std: Statistics = IMAGENET_STD
    workers: NonNegativeInt | Literal["auto"] = "auto"
    prefetch: PositiveInt = 2
    bad_images: Literal["error", "skip"] = "error"
    bad_images_limit: PositiveInt | Annotated[float, Limits(gt=0, lt=1)] = 0.01
    retries: NonNegativeInt = 3
    timeout: PositiveFloat | None = 120.0


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Attributes:
        name: `optimizer`.
        module: the module that holds convrun's own components of this kind.
        section: where a recipe names them.
        receives: the positional parameters convrun hands in, each with its meaning.
        returns: what the component must give back.
        settings: a dataclass of keys that every section of the kind takes, or None.
        is_list: whether the section is a list of components.
        required_meta: names that `register(..., name=value)` must give for the kind.
        optional_meta: names that it may give.
    """

    name: str
    module: str
    section: str
    receives: dict[str, str]
    returns: str
    settings: type[Any] | None = None
    is_list: bool = False
    required_meta: dict[str, str] = field(default_factory=dict)
    optional_meta: dict[str, str] = field(default_factory=dict)

    @property
    def with_article(self) -> str:
        """`an optimizer`, `a model`: for messages."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"


_ALL = (
    Kind(
        "model",
        "convrun.components.models",
        "model",
        {"num_classes": "int, the size of the head"},
        "torch.nn.Module: float images [n, 3, height, width] -> logits [n, num_classes]",
        settings=ModelSettings,
        optional_meta={
            "parameters": "function(num_classes, **keys) -> int, without torch, so that validate knows sizes",
            "check": "function(**keys), without torch, that raises KeyProblem",
        },
    ),
    Kind(
        "data",
        "convrun.components.data",
        "data",
        {"split": "'train' or 'val'"},
        "convrun.data.image_set.ImageSet: len(), class_names, load(index) -> (PIL image in RGB, label), place(index)",
        settings=DataSettings,
        required_meta={"facts": "function(**keys) -> DataFacts(num_classes, train_images, val_images), without torch"},
        optional_meta={"measure": "function(**keys) -> DataFacts found on the disk, whatever the recipe declares"},
    ),
    Kind(
        "augmentation",
        "convrun.components.augmentations",
        "augmentations",
        {"shape": "convrun.components.augmentations.Shape(input_size, num_classes, mean, std)"},
        "place='image': function(PIL image in RGB, random.Random) -> PIL image, in a loader worker; place='batch': "
        "function(float images [n, 3, h, w], targets [n] or [n, classes], Draws) -> (images, targets), on the device",
        is_list=True,
        required_meta={"place": "'image' or 'batch'"},
        optional_meta={
            "crops": "True: it yields input_size × input_size",
            "mixes": "True: it mixes the images of a micro-batch",
            "at_most_once": "True: a second entry makes no sense",
            "conflicts": "{other: why the two cannot both be listed}",
            "after": "names it must come after where both are listed",
            "check": "function(**keys), without torch, that raises KeyProblem",
        },
    ),
    Kind(
        "loss",
        "convrun.components.losses",
        "loss",
        {},
        "function(logits [n, classes], targets: int64 [n] or float [n, classes]) -> scalar, the mean over the n images",
    ),
    Kind(
        "optimizer",
        "convrun.components.optimizers",
        "optimizer",
        {"parameter_groups": "list of {params, lr_scale, weight_decay}; weight_decay is there only where it is 0"},
        "torch.optim.Optimizer; before each step convrun sets every group's lr to lr(step) × lr_scale",
        settings=OptimizerSettings,
        optional_meta={
            "slots": "values kept for each parameter, so that validate knows the size of checkpoints",
            "shards": "whether it computes the same on torch's DTensors, of which each process holds a share (fsdp)",
            "check": "function(**keys), without torch, that raises KeyProblem",
        },
    ),
    Kind(
        "scheduler",
        "convrun.components.schedulers",
        "scheduler",
        {"horizon": "convrun.components.schedulers.Horizon(total_steps, steps_per_epoch, peak_lr)"},
        "function(step: int, from 0) -> learning rate of that optimizer step; plain arithmetic, no torch",
    ),
    Kind(
        "launcher",
        "convrun.components.launchers",
        "launcher",
        {},
        "convrun.components.launchers.Launcher: processes (how many train, or None), script(submission) -> the text "
        "`--dry-run` shows, submit(submission) -> what is needed to find each job again, query(infos) -> JobStates, "
        "cancel(info); every process does what `python -m convrun.launching.task FOLDER NONCE` does",
        optional_meta={"check": "function(**keys) that raises KeyProblem"},
    ),
    Kind(
        "logger",
        "convrun.components.loggers",
        "logging.to",
        {"run": "convrun.components.loggers.RunInfo: name, folder, recipe, steps, the screen"},
        "convrun.components.loggers.Logger: log(row), flush() if it has one, close(); rows are the lines of "
        "metrics.jsonl",
        is_list=True,
    ),
    Kind(
        "callback",
        "convrun.components.callbacks",
        "callbacks",
        {"run": "convrun.components.loggers.RunInfo"},
        "convrun.components.callbacks.Callback: on_evaluation(row) -> None or a reason to stop, and its state",
        is_list=True,
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
