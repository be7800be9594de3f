"""What autograd keeps of an image, without computing it."""

import weakref

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from convrun.models.isotropic import IsotropicConvNeXt
from convrun.models.shapes import IsotropicShape, Shape
from convrun.models.staged import staged
from convrun.training.activation_checkpointing import checkpoint_activations
from convrun.validation.activation_memory import activation_bytes

DIM, PIXELS = 16, 8 * 8  # images of 32 pixels in patches of 4


def isotropic(depth, drop_path_rate=0.0):
    with torch.device("meta"):
        return IsotropicConvNeXt(IsotropicShape(depth, DIM, 4), 10, drop_path_rate, 1e-6)


def test_a_block_keeps_twelve_times_its_input_and_two_statistics_a_pixel():
    # input, normed input, input of fc1, 4 + 4 around the activation, output of fc2; mean and deviation of the norm
    two, three = (activation_bytes(isotropic(depth), 32, "float32") for depth in (2, 3))
    assert three.kept - two.kept == 4 * PIXELS * (12 * DIM + 2)


def test_a_checkpointed_block_keeps_its_input():
    two, three = (activation_bytes(isotropic(depth), 32, "float32") for depth in (2, 3))
    assert three.checkpointed - two.checkpointed == 4 * PIXELS * DIM
    assert two.kept - two.checkpointed == 4 * PIXELS * (11 * DIM + 2)  # of two blocks, one is computed anew


def test_bf16_keeps_about_half_and_no_copies_of_weights():
    whole, half = (activation_bytes(isotropic(3), 32, precision).kept for precision in ("float32", "bf16"))
    assert half / whole == pytest.approx(0.5, abs=0.03)


def test_it_is_what_a_real_model_keeps():
    shape = Shape((1, 1, 2, 1), (4, 8, 8, 12), patch_size=1, kernel_size=3, use_grn=True)
    model = staged(shape, 3, 0.2, None, 0.0).train()

    def real(images):
        storages = {}
        with saved_tensors_hooks(lambda t: storages.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t):
            loss = model(torch.randn(images, 3, 16, 16))
        del loss
        return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

    with torch.device("meta"):
        like = staged(shape, 3, 0.2, None, 0.0)
    assert activation_bytes(like, 16, "float32").kept == real(2) - real(1)
    assert all(parameter.is_meta for parameter in like.parameters())


def test_a_model_without_blocks_has_no_figure_for_checkpointing():
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GELU(), torch.nn.Flatten())
    found = activation_bytes(model, 8, "float32")
    assert (found.kept, found.checkpointed) == (4 * 64 * (3 + 4), None)


class LivingTensors(TorchDispatchMode):
    """The bytes of all tensors that are made inside and live, and the most there were at one time."""

    def __init__(self):
        super().__init__()
        self.storages, self.bytes, self.most = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.note(tensor.untyped_storage())
        return made

    def note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.storages:
            self.storages.add(key)
            weakref.finalize(storage, self.forget, key, size)
            self.bytes += size
            self.most = max(self.most, self.bytes)

    def forget(self, key, size):
        self.storages.discard(key)
        self.bytes -= size


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_real_step_needs_no_more_than_foretold_and_not_much_less(is_checkpointed):
    """Less, because gradients come as activations go."""
    model = staged(Shape((2, 2, 6, 2), (8, 16, 32, 64), patch_size=2), 10, 0.0, 1e-6, 0.0).train()
    found, images = activation_bytes(model, 32, "float32"), 8
    if is_checkpointed:
        checkpoint_activations(model)
    living = LivingTensors()
    with living:
        model(torch.randn(images, 3, 32, 32)).sum().backward()  # of the weights there are views
    weights_and_gradients = 2 * sum(4 * parameter.numel() for parameter in model.parameters())
    foretold = weights_and_gradients + images * (found.checkpointed if is_checkpointed else found.kept)
    assert 1 <= foretold / living.most < 1.2
