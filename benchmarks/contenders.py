"""Three ways to train the same model on the same images: a bare loop, convrun's own loop, and timm's training step.

All hold the model in channels_last, take a fused AdamW where the device has one, and keep an EMA of the weights with
foreach kernels. The images are on the device before the clock starts. What differs is what each does beside:

- bare: no more than that. Its images are normalised already, so nothing can train this model faster without changing
  the model or the arithmetic. convrun's overhead is what it takes longer than this.
- timm: the body of timm's train.py with the flags that make it fastest (--channels-last --amp --amp-dtype bfloat16
  --opt adamw --opt-kwargs fused=True --model-ema, cudnn.benchmark as it sets it), after the normalisation of uint8
  images that its loader does on the device. It does not read each step's loss, as train.py does: that would hold the
  host up, and favour convrun.
- convrun: `Loop.run` itself, from the micro-batch as a loader hands it over to the row that is logged.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from convrun.contracts.logger import RunInfo
from convrun.data.pipeline import MicroBatch
from convrun.plan import Machine, Plan, make_plan
from convrun.recipe import load_recipe
from convrun.training.building import build_loop
from convrun.training.loop import Loop
from convrun.training.model import build_model, placed
from convrun.training.run import open_data

Device = Literal["cpu", "cuda"]
NAMES = ("bare", "convrun", "timm")
SMOOTHING, DECAY, LR, WEIGHT_DECAY = 0.1, 0.9999, 1e-4, 0.05
RECIPE = """
input_size: {size}
model: {model}
data: {{name: synthetic, train_images: {train_images}, num_classes: 1000, image_size: {size}, workers: 0}}
loss: {{name: cross_entropy, label_smoothing: 0.1}}
optimizer: {{name: adamw, lr: 1e-4, weight_decay: 0.05}}
scheduler: {{name: constant}}
training: {{steps: 1000000, batch_size: {images}, micro_batch: {images}, precision: {precision}, compile: {compile}}}
ema: {{decay: 0.9999}}
evaluation: null
"""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        model: a model section of a recipe in one line: `{name: convnext_tiny, drop_path_rate: 0.1}`.
        images: of one step.
        size: pixels, height and width.
        precision: `float32`, or `bf16` by autocast.
        device: where.
    """

    model: str
    images: int
    size: int
    precision: str
    device: Device

    def plan(self, *, is_compiled: bool = False) -> Plan:
        """The plan of a recipe that trains it."""
        values = {"model": self.model, "images": self.images, "size": self.size, "precision": self.precision}
        values |= {"train_images": max(1000, self.images), "compile": str(is_compiled).lower()}
        with tempfile.TemporaryDirectory(prefix="convrun-benchmark-") as folder:
            path = Path(folder) / "recipe.yaml"
            path.write_text(RECIPE.format(**values), encoding="utf-8")
            recipe = load_recipe(path, plugins=False)
        return make_plan(recipe, Machine(device=self.device, has_bf16=True))

    def batch(self) -> tuple[Tensor, Tensor]:
        """uint8 [images, 3, size, size] in channels_last, as a loader makes them, and int64 labels; on the device."""
        draws = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (self.images, self.size, self.size, 3), dtype=torch.uint8, generator=draws)
        labels = torch.randint(1000, (self.images,), generator=draws)
        return pixels.to(self.device).permute(0, 3, 1, 2), labels.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)


class Contender:
    """One way to train.

    Args:
        name: of `NAMES`.
        task: what is trained.
        is_compiled: whether torch.compile compiles the model.

    Attributes:
        label: `convrun, compiled`.
    """

    def __init__(self, name: str, task: Task, *, is_compiled: bool) -> None:
        self.label = f"{name}, {'compiled' if is_compiled else 'eager'}"
        self._device, self._tunes_cudnn = task.device, name == "timm"
        make = {"bare": bare_steps, "convrun": convrun_steps, "timm": timm_steps}[name]
        self._take = make(task, is_compiled)

    def seconds(self, steps: int) -> float:
        """Takes so many steps; how long they took, the device's work included."""
        # timm's train.py sets cudnn.benchmark; convrun leaves it as torch has it, and so the bare loop does here.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=self._tunes_cudnn, deterministic=False, allow_tf32=torch.backends.cudnn.allow_tf32
        ):
            return self._take(steps)


def bare_steps(task: Task, is_compiled: bool) -> Callable[[int], float]:
    """Forward, backward, optimizer, EMA."""
    model, forward = _model(task, is_compiled)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    weights = [p.detach() for p in model.parameters()]
    averages = [w.clone() for w in weights]
    images, labels = task.batch()
    images = _normalised(images, *_statistics(task))

    def step() -> None:
        with task.autocast():
            loss = functional.cross_entropy(forward(images).float(), labels, label_smoothing=SMOOTHING)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(averages, weights, 1 - DECAY)

    return lambda steps: _timed(step, steps, task.device)


def timm_steps(task: Task, is_compiled: bool) -> Callable[[int], float]:
    """The loss, the parameter groups, the optimizer and the EMA of timm's train.py."""
    from timm.loss import LabelSmoothingCrossEntropy  # type: ignore[attr-defined]
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
    from timm.utils import ModelEmaV3  # type: ignore[attr-defined]

    model, forward = _model(task, is_compiled)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    loss_of = LabelSmoothingCrossEntropy(SMOOTHING)  # type: ignore[no-untyped-call]
    average = ModelEmaV3(model, decay=DECAY)
    images, labels = task.batch()
    statistics = _statistics(task)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        inputs = _normalised(images, *statistics)
        with task.autocast():
            loss = loss_of(forward(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(model, step=done)

    return lambda steps: _timed(step, steps, task.device)


def convrun_steps(task: Task, is_compiled: bool) -> Callable[[int], float]:
    """The loop as `convrun run` builds it, with images that are there already and a record that nobody keeps."""
    plan = task.plan(is_compiled=is_compiled)
    clock = _Clock(task.device)
    recorder = cast(Any, _NoRecord())
    model = placed(build_model(plan), plan, torch.device(task.device))
    info = cast(RunInfo, None)  # for callbacks, of which there are none
    loop = build_loop(plan, model, open_data(plan.data), info, recorder, clock.is_over)
    loop.batches = cast(Any, _Ready(*task.batch()))

    return lambda steps: clock.timed(loop, steps)


def _model(task: Task, is_compiled: bool) -> tuple[nn.Module, Any]:
    """The same model with the same weights for each, and what computes its forward pass."""
    model = build_model(task.plan()).to(task.device).to(memory_format=torch.channels_last).train()
    return model, torch.compile(model) if is_compiled else model


def _statistics(task: Task) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of pixels in 0..255, as timm's loader has them."""
    settings = task.plan().data.settings
    mean, std = (torch.tensor([255 * v for v in values]) for values in (settings.mean, settings.std))
    return mean.to(task.device).view(1, 3, 1, 1), std.to(task.device).view(1, 3, 1, 1)


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return images.float().sub_(mean).div_(std)


def _timed(step: Callable[[], None], steps: int, device: Device) -> float:
    _wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: Device) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class _Clock:
    """Ends `Loop.run` after so many steps, and times them alone: not what the loop does when it begins and ends."""

    def __init__(self, device: Device) -> None:
        self._device: Device = device
        self._left, self._started, self._seconds = 0, 0.0, 0.0

    def timed(self, loop: Loop, steps: int) -> float:
        self._left, self._started = steps, 0.0
        loop.run()
        return self._seconds

    def is_over(self) -> bool:
        """The loop asks before each step."""
        if self._left and self._started:
            self._left -= 1
            return False
        _wait(self._device)
        now = time.perf_counter()
        if self._left:
            self._left, self._started = self._left - 1, now
            return False
        self._seconds = now - self._started
        return True


class _Ready:
    """In the place of the loader: the same micro-batch for every step."""

    wait_seconds = 0.0

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images, labels

    def of_step(self, step: int) -> Iterable[MicroBatch]:
        return [MicroBatch(step, 0, self._images, self._labels)]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _NoRecord:
    """In the place of the run's record."""

    def log(self, row: object) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def save(self, state: object) -> None:
        pass

    def note_skipped(self, images: object) -> None:
        pass


def free_memory() -> None:
    """Gives back what contenders that are gone held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
