"""The plan of a run: the sections of its recipe, and what follows from them on a machine. Plain data, no torch.

Every derived number is a function (`convrun.plan.arithmetic`) or a documented property; the training loop reads only
this.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from convrun.augment.evaluation_geometry import evaluation_text
from convrun.contracts.metrics import Weights
from convrun.contracts.scheduler import Horizon
from convrun.plan.warmup import horizon_of, warmed_up
from convrun.recipe.recipe import Choice, Sections
from convrun.recipe.sections import Arithmetic


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Sections):
    """A run, resolved. Steps count from 0; an interval of n steps falls after steps n, 2n, ... and after the last.

    The recipe's sections are as written: `training.micro_batch` may be `auto`; `micro_batch` is the resulting number.

    Attributes:
        written: the sections as plain data, as `recipe.yaml` has them: `${env:NAME}` for secrets.
        train_images: images in the training split.
        num_classes: size of the model's head; `data_classes` is the number of classes in the data.
        micro_batch: images of one forward pass on one device.
        accumulation: micro-batches a process sums up for one optimizer step.
        steps_per_epoch: optimizer steps of one pass; the remaining images are left out.
        peak_lr: the learning rate after the warm-up, scaled to the batch where the recipe asks for it.
        precision: None only if the recipe says `auto` and the machine is unknown.
        stop_after_seconds: how long one start may last.
        evaluation_interval: steps between evaluations; None: never evaluated.
        evaluation_batch: images of one forward pass on one device.
        crop_ratio: of the evaluation; None: the whole image is resized to a square.
        checkpoint_interval: steps between checkpoints.
        keep_interval: checkpoints at multiples of this step are never deleted; None: there are none.
        workers: loader processes of each training process.
    """

    recipe_hash: str
    written: Mapping[str, Any] = dataclasses.field(repr=False, compare=False)
    processes: int
    device: Literal["cuda", "cpu"] | None
    train_images: int
    val_images: int
    num_classes: int
    data_classes: int
    micro_batch: int
    accumulation: int
    steps_per_epoch: int
    total_steps: int
    peak_lr: float
    precision: Arithmetic | None
    stop_after_seconds: int | None
    evaluation_interval: int | None
    evaluation_batch: int
    crop_ratio: float | None
    checkpoint_interval: int
    keep_interval: int | None
    workers: int

    @property
    def micro_batch_is_auto(self) -> bool:
        """Whether the recipe leaves the micro-batch to convrun, which may then split it if memory runs out."""
        return self.training.micro_batch == "auto"

    @property
    def evaluation_batch_is_auto(self) -> bool:
        """Whether the recipe leaves the evaluation's batch to convrun."""
        return self.evaluation is None or self.evaluation.batch_size == "auto"

    @property
    def interpolation(self) -> str:
        """How images are resized where no augmentation crops them."""
        return self.evaluation.interpolation if self.evaluation else "bicubic"

    @property
    def report(self) -> Weights:
        """The weights whose top-1 counts."""
        return self.evaluation.report if self.evaluation else "model"

    @property
    def horizon(self) -> Horizon:
        """What the schedule spans."""
        return horizon_of(self.scheduler.settings, self.total_steps, self.steps_per_epoch, self.peak_lr)

    @functools.cached_property
    def lr(self) -> Callable[[int], float]:
        """The learning rate of optimizer step s, counted from 0."""
        horizon = self.horizon
        return warmed_up(self.scheduler.create(horizon), horizon, self.scheduler.settings.warmup_start_lr)

    @property
    def epochs(self) -> int:
        """Epochs begun in the run: ceil(total_steps / steps_per_epoch)."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def images_left_out(self) -> int:
        """Images of each epoch that do not fill a batch: train_images − steps_per_epoch × batch_size."""
        return self.train_images - self.steps_per_epoch * self.training.batch_size

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a share of the weights: fsdp on more than one process."""
        return self.distributed.strategy == "fsdp" and self.processes > 1

    @property
    def image_augmentations(self) -> list[Choice[None]]:
        """The augmentations of one image, in a loader worker."""
        return [c for c in self.augmentations if c.component.meta["place"] == "image"]

    @property
    def batch_augmentations(self) -> list[Choice[None]]:
        """The augmentations of a micro-batch, on the device."""
        return [c for c in self.augmentations if c.component.meta["place"] == "batch"]

    def is_evaluated_after(self, step: int) -> bool:
        """Whether the weights are evaluated once `step` optimizer steps are done."""
        return self.evaluation_interval is not None and self._is_due(step, self.evaluation_interval)

    def is_saved_after(self, step: int) -> bool:
        """Whether a checkpoint is written once `step` optimizer steps are done."""
        return self._is_due(step, self.checkpoint_interval)

    def is_logged_after(self, step: int) -> bool:
        """Whether a row is logged once `step` optimizer steps are done."""
        return self._is_due(step, self.logging.every_steps)

    def _is_due(self, step: int, interval: int) -> bool:
        return step > 0 and (step % interval == 0 or step == self.total_steps)

    def epoch_after(self, step: int) -> float:
        """Passes over the training images once `step` optimizer steps are done."""
        return round(step / self.steps_per_epoch, 4)

    def ema_horizon(self) -> float | None:
        """Steps after which a weight's share of the EMA has fallen to 1/e: 1 / (1 − decay)."""
        return None if self.ema is None else 1 / (1 - self.ema.decay)

    def parameters(self) -> int | None:
        """Parameters of the model; None if only building it tells."""
        model = self.model.component
        if "parameters" not in model.meta:
            return None
        return int(model.ask("parameters", self.num_classes, **self.model.own_values()))

    def training_pipeline(self) -> list[str]:
        """What happens to a training image, step by step, in words."""
        steps = [choice.text() for choice in self.image_augmentations]
        if not any(c.component.meta.get("crops", False) for c in self.image_augmentations):
            steps.append(self._evaluation_geometry())
        return [*steps, self._normalisation(), *(choice.text() for choice in self.batch_augmentations)]

    def evaluation_pipeline(self) -> list[str]:
        """What happens to a validation image, in words."""
        return [self._evaluation_geometry(), self._normalisation()]

    def _evaluation_geometry(self) -> str:
        return evaluation_text(self.input_size, self.crop_ratio, self.interpolation)

    def _normalisation(self) -> str:
        mean, std = (
            ", ".join(f"{v:g}" for v in values) for values in (self.data.settings.mean, self.data.settings.std)
        )
        return f"normalise (mean {mean}; std {std})"

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON-serializable data: the sections as written, and every derived number beside them."""
        derived = [f.name for f in dataclasses.fields(self) if f.name not in {*self.sections(), "written"}]
        return {
            **self.written,
            **{name: getattr(self, name) for name in derived},
            "batch_size": self.training.batch_size,
            "micro_batch_is_auto": self.micro_batch_is_auto,
            "report": self.report,
            "epochs": self.epochs,
            "images_left_out": self.images_left_out,
            "parameters": self.parameters(),
            "checkpoint_bytes": checkpoint_bytes(self),
            "first_lr": self.lr(0),
            "final_lr": self.lr(self.total_steps - 1),
            "training_pipeline": self.training_pipeline(),
            "evaluation_pipeline": self.evaluation_pipeline(),
            "warnings": warnings(self),
        }


def checkpoint_bytes(plan: Plan) -> int | None:
    """Bytes of one checkpoint: 4 × parameters × (weights + EMA + optimizer state per parameter)."""
    parameters = plan.parameters()
    slots = plan.optimizer.component.meta.get("slots")
    if parameters is None or slots is None:
        return None
    return 4 * parameters * (1 + (plan.ema is not None) + int(slots))


def kept_checkpoints(plan: Plan) -> int:
    """The largest number of checkpoints on disk: the last, the best, those never deleted, and the one being written."""
    for_good = plan.total_steps // plan.keep_interval if plan.keep_interval else 0
    keep = plan.checkpoints.keep
    return keep.last + (keep.best if plan.evaluation else 0) + for_good + 1


def sharding_note(plan: Plan) -> str:
    """A note if fsdp has no effect. It is no error, because the recipe may be meant for other machines."""
    if plan.distributed.strategy == "fsdp" and not plan.is_sharded:
        return "distributed.strategy fsdp has no effect: a single process holds all weights"
    return ""


def warnings(plan: Plan) -> list[str]:
    """What is allowed but rarely intended."""
    found = []
    if plan.num_classes > plan.data_classes:
        idle = plan.num_classes - plan.data_classes
        found.append(
            f"the model's head is larger than the data: {idle:,} of its {plan.num_classes:,} outputs "
            f"(model.num_classes) stand for no class, the data have {plan.data_classes:,}"
        )
    if plan.images_left_out > plan.train_images * 0.05:
        share = plan.images_left_out / plan.train_images
        found.append(
            f"{plan.images_left_out:,} images ({share:.0%}) of each epoch do not fill a batch and are left out"
        )
    if plan.ema is not None and (left := plan.ema.decay**plan.total_steps) > 0.05:
        found.append(
            f"the EMA will still hold {left:.0%} of the initial weights at the end: decay is high for this run"
        )
    if note := sharding_note(plan):
        found.append(note)
    if plan.logging.every_steps > plan.total_steps:
        found.append(f"only one row is logged, at the end: logging.every_steps exceeds the {plan.total_steps} steps")
    if plan.lr(plan.total_steps - 1) > plan.peak_lr / 2 and plan.scheduler.name == "cosine":
        found.append("the learning rate is still above half its peak at the end")
    return found
