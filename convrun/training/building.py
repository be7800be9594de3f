"""A trainer from what the plan names: its feeds, optimizer, loss, augmentations and callbacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convrun.augment.crops import evaluation_transform
from convrun.contracts.augmentation import Shape
from convrun.contracts.data import ImageSet
from convrun.contracts.logger import RunInfo
from convrun.data.order import TrainingOrder
from convrun.data.pipeline import EvaluationBatches, TrainingBatches
from convrun.data.skipped import SkippedImage
from convrun.data.tolerance import Tolerance
from convrun.distributed.group import Group
from convrun.errors import CheckpointError
from convrun.plan import Plan
from convrun.training.observer import Observer
from convrun.training.parameter_groups import parameter_groups
from convrun.training.trainer import Trainer


class Feeds:
    """Where one process's images come from.

    Args:
        plan: says which, how many at a time, and what is done about those that cannot be read.
        train_set: the training split.
        val_set: the validation split.
        device: where they go.
        group: all processes; each gets its share.
        on_skipped: is told of images that cannot be read.
    """

    def __init__(
        self,
        plan: Plan,
        train_set: ImageSet,
        val_set: ImageSet,
        device: torch.device,
        group: Group,
        on_skipped: Callable[[Iterable[SkippedImage]], None],
    ) -> None:
        self.plan, self.train_set, self.group = plan, train_set, group
        data = plan.data.settings
        transform = evaluation_transform(plan.input_size, plan.crop_ratio, plan.interpolation)
        self._augmentations = [choice.create(shape_of(plan)) for choice in plan.image_augmentations]
        if not any(choice.component.meta.get("crops", False) for choice in plan.image_augmentations):
            self._augmentations.append(_WithoutDraws(transform))
        self._loading: dict[str, Any] = {
            "input_size": plan.input_size,
            "prefetch": data.prefetch,
            "workers": plan.workers,
            "device": device,
            "tolerance": Tolerance(data.retries, data.bad_images == "skip", data.timeout),
            "on_skipped": on_skipped,
        }
        share: dict[str, Any] = {"rank": group.rank, "world": group.size}
        self.validation = EvaluationBatches(
            val_set, transform, batch_size=plan.evaluation_batch, **share, **self._loading
        )

    def open(self, start_step: int) -> TrainingBatches:
        """The run's micro-batches from a step on."""
        plan = self.plan
        order = TrainingOrder(
            seed=plan.seed,
            images=plan.train_images,
            batch_size=plan.training.batch_size,
            micro_batch=plan.micro_batch,
            rank=self.group.rank,
            world=self.group.size,
            start_step=start_step,
            end_step=plan.total_steps,
        )
        return TrainingBatches(self.train_set, order, self._augmentations, **self._loading)


def shape_of(plan: Plan) -> Shape:
    """What augmentations are told of the images."""
    return Shape(plan.input_size, plan.num_classes, plan.data.settings.mean, plan.data.settings.std)


def build_trainer(
    plan: Plan,
    model: nn.Module,
    feeds: Feeds,
    info: RunInfo,
    observer: Observer,
    should_stop: Callable[[], bool],
    group: Group,
) -> Trainer:
    """The trainer of a plan, at the first step."""
    layers = plan.optimizer.settings
    return Trainer(
        plan,
        model,
        plan.optimizer.create(parameter_groups(model, layers.layer_decay, layers.layer_decay_levels)),
        plan.loss.create(),
        feeds.open,
        observer,
        batch_augmentations=[choice.create(shape_of(plan)) for choice in plan.batch_augmentations],
        validation=feeds.validation,
        callbacks=[choice.create(info) for choice in plan.callbacks],
        should_stop=should_stop,
        group=group,
    )


def restore(trainer: Trainer, saved: Mapping[str, Any], path: Path) -> None:
    """Loads a checkpoint's content into a trainer; raises CheckpointError if it does not fit."""
    try:
        trainer.load_state_dict(saved)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (AttributeError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the recipe: {error}; train in another folder") from error


@dataclasses.dataclass(frozen=True)
class _WithoutDraws:
    """The evaluation's geometry in the place of an augmentation, for recipes that list no crop."""

    transform: Any

    def __call__(self, image: Any, _generator: Any) -> Any:
        return self.transform(image)
