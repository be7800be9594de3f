"""The training loop of a plan, from what the plan names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from convrun.augment.crops import evaluation_transform
from convrun.contracts.augmentation import ImageFormat
from convrun.contracts.data import ImageSet
from convrun.contracts.logger import RunInfo
from convrun.data.order import TrainingOrder
from convrun.data.pipeline import EvaluationBatches, TrainingBatches
from convrun.data.sample import Tolerance
from convrun.distributed.group import Group
from convrun.plan import Plan
from convrun.training.evaluation import Evaluation
from convrun.training.loop import Loop
from convrun.training.model import Normalised, strategy_for
from convrun.training.parameter_groups import parameter_groups
from convrun.training.recording.contract import Recorder
from convrun.training.state import RunState
from convrun.training.step import Step


def build_loop(
    plan: Plan,
    model: nn.Module,
    images: tuple[ImageSet, ImageSet],
    info: RunInfo,
    recorder: Recorder,
    should_stop: Callable[[], bool] = lambda: False,
    group: Group | None = None,
) -> Loop:
    """The loop of a plan, at the first step.

    Args:
        plan: made for this machine.
        model: on its device (convrun.training.model.placed), with its first weights.
        images: the training and the validation split.
        info: what callbacks are told of the run.
        recorder: logs and saves.
        should_stop: asked after each step, by all ranks alike.
        group: all ranks; by default this one alone.
    """
    group = group or Group()
    device = next(model.parameters()).device
    strategy = strategy_for(plan, model, group)
    groups = parameter_groups(model, plan.optimizer.settings.layer_decay, plan.optimizer.settings.layer_decay_levels)
    callbacks = [choice.create(info) for choice in plan.callbacks]
    state = RunState(plan, model, plan.optimizer.create(groups), strategy, callbacks)
    inputs = Normalised(plan.data.settings.mean, plan.data.settings.std, device)
    augmentations = [choice.create(image_format_of(plan)) for choice in plan.batch_augmentations]
    step = Step(plan, state, plan.loss.create(), inputs, augmentations, strategy)
    batches, validation = batches_of(plan, images, device, group, recorder)
    evaluation = Evaluation(validation, inputs, state.precision, strategy, plan.input_size)
    return Loop(plan, state, batches, step, evaluation, callbacks, recorder, should_stop)


def batches_of(
    plan: Plan, images: tuple[ImageSet, ImageSet], device: torch.device, group: Group, recorder: Recorder
) -> tuple[TrainingBatches, EvaluationBatches]:
    """Where this rank's images come from, in training and in evaluation."""
    data, (train_set, val_set) = plan.data.settings, images
    loading: dict[str, Any] = {
        "input_size": plan.input_size,
        "prefetch": data.prefetch,
        "workers": plan.workers,
        "device": device,
        "tolerance": Tolerance(data.retries, data.bad_images == "skip", data.timeout),
        "on_skipped": recorder.note_skipped,
    }
    transform = evaluation_transform(plan.input_size, plan.crop_ratio, plan.interpolation)
    augmentations = [choice.create(image_format_of(plan)) for choice in plan.image_augmentations]
    if not any(choice.component.meta.get("crops", False) for choice in plan.image_augmentations):
        augmentations.append(_WithoutDraws(transform))
    order = TrainingOrder(
        seed=plan.seed,
        images=plan.train_images,
        batch_size=plan.training.batch_size,
        micro_batch=plan.micro_batch,
        rank=group.rank,
        world=group.size,
        end_step=plan.total_steps,
    )
    validation = EvaluationBatches(
        val_set, transform, batch_size=plan.evaluation_batch, rank=group.rank, world=group.size, **loading
    )
    return TrainingBatches(train_set, order, augmentations, **loading), validation


def image_format_of(plan: Plan) -> ImageFormat:
    """What augmentations know of the run's images."""
    return ImageFormat(plan.input_size, plan.num_classes, plan.data.settings.mean, plan.data.settings.std)


@dataclasses.dataclass(frozen=True)
class _WithoutDraws:
    """The evaluation's geometry in the place of an augmentation, for recipes that list no crop."""

    transform: Any

    def __call__(self, image: Any, _generator: Any) -> Any:
        return self.transform(image)
