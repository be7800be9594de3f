"""Tries whether a model takes the run's images, for models that do not declare it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from convrun.errors import KeyProblem

# Sizes that are tried for the cure, in pixels: those of small images and of published models.
SIZES = (28, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
MOST_WITH_VALUES = 2  # images of a pass with values: more are slow, and show no more


def check_takes_images(
    model: nn.Module,
    input_size: int,
    name: str,
    *,
    num_classes: int | None = None,
    micro_batch: int = 1,
    on_cpu: Callable[[], nn.Module] | None = None,
) -> bool:
    """Raises KeyProblem, with a cure that was tried, if a model cannot be trained and evaluated on the run's images.

    Only shapes are computed, on the meta device, which needs neither memory nor random draws and does not change the
    model. A model that fails there is tried with values, because its forward pass may depend on them.

    Args:
        model: on the CPU or the meta device.
        input_size: height and width of the images in pixels.
        name: of the model, for the message.
        num_classes: size that its head should have; None: any.
        micro_batch: images of a forward pass in training; batch norm cannot be trained on some shapes with one.
        on_cpu: builds the model on the CPU; needed if `model` is on the meta device and cannot be computed there.

    Returns:
        Whether shapes alone were enough.
    """
    shapes, values = _Passes(model, num_classes), None
    for images, is_training in ((1, False), (micro_batch, True)):
        if values is None:
            fault = shapes.fault(images, input_size, is_training)
            if fault is None:
                continue
            real = model if _device(model).type != "meta" else on_cpu() if on_cpu is not None else None
            if real is None:
                raise _problem(shapes, images, input_size, is_training, name, fault)
            values = _Passes(real, num_classes, has_values=True)
        images = min(images, MOST_WITH_VALUES)
        if (fault := values.fault(images, input_size, is_training)) is not None:
            raise _problem(shapes, images, input_size, is_training, name, fault)
    return values is None


class _Passes:
    """Forward passes of one model, with shapes only or with values."""

    def __init__(self, model: nn.Module, num_classes: int | None, has_values: bool = False) -> None:
        self.model, self.num_classes, self.has_values = model, num_classes, has_values

    def fault(self, images: int, size: int, is_training: bool) -> str | None:
        """What is wrong with a pass over that many images, in one line; None if nothing is."""
        was_training = self.model.training
        self.model.train(is_training)
        try:
            return self._wrong_output(self._logits(images, size), images)
        except (torch.OutOfMemoryError, MemoryError):  # says nothing of the images' shape; training deals with it
            return None
        except Exception as error:  # a model may raise anything, an assertion for one
            return " ".join(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".split())
        finally:
            self.model.train(was_training)

    def _logits(self, images: int, size: int) -> object:
        named = itertools.chain(self.model.named_parameters(), self.model.named_buffers())
        if self.has_values:  # training changes buffers, so it gets copies
            tensors = {name: tensor.detach().clone() for name, tensor in self.model.named_buffers()}
            device = "cpu"
        else:
            tensors = {name: tensor.detach().to("meta") for name, tensor in named}
            device = "meta"
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return functional_call(self.model, tensors, (torch.zeros(images, 3, size, size, device=device),))

    def _wrong_output(self, logits: object, images: int) -> str | None:
        wanted = f"[{images}, {self.num_classes or 'classes'}]"
        if not isinstance(logits, Tensor):
            return f"it returns a {type(logits).__name__}, not a tensor of logits {wanted}"
        shape = list(logits.shape)
        if len(shape) != 2 or shape[0] != images or (self.num_classes and shape[1] != self.num_classes):
            return f"it returns a tensor {shape}, not logits {wanted}"
        return None


def _problem(shapes: _Passes, images: int, size: int, is_training: bool, name: str, fault: str) -> KeyProblem:
    what = "be trained on" if is_training else "take"
    shape = f"[{images}, 3, {size}, {size}]"
    message = f"the model {name} cannot {what} images of {size} × {size}, a tensor {shape}: {fault}"
    return KeyProblem(None, message, _cure(shapes, images, size, is_training))


def _cure(shapes: _Passes, images: int, size: int, is_training: bool) -> str:
    channels = next((m.in_channels for m in shapes.model.modules() if isinstance(m, nn.Conv2d)), 3)
    if channels != 3:
        cure = "remove that option of the model"
        return f"images have 3 channels (grey ones three equal ones), but its first layer takes {channels}: {cure}"
    if is_training and shapes.fault(images + 1, size, is_training) is None:
        return f"set training.micro_batch to more than {images}"
    modes = [(1, False), (max(images, 2), True)]
    fits = (s for s in _sizes(size, shapes.model) if not any(shapes.fault(count, s, mode) for count, mode in modes))
    fitting = next(fits, None)
    if fitting is None:
        return "use another model, or other options of this one"
    return f"it takes {fitting} × {fitting}: set input_size={fitting}, or the model's own options for its size"


def _sizes(size: int, model: nn.Module) -> list[int]:
    """Sizes to try: the larger ones, smallest first, then the smaller; with the size that timm gives the model."""
    own = getattr(model, "pretrained_cfg", None) or {}
    sizes = {*SIZES, own["input_size"][-1]} if own.get("input_size") else {*SIZES}
    return sorted(other for other in sizes if other > size) + sorted((o for o in sizes if o < size), reverse=True)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
