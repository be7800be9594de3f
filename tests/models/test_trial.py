import pytest
import timm
import torch
from torch import nn

from convrun.errors import KeyProblem
from convrun.models.trial import check_takes_images


class OfValues(nn.Module):
    """Its shapes depend on the values of its input."""

    def __init__(self, smallest=1):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, smallest), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, images):
        images = images[:, :, : images.shape[2] + int(images.sum().item() > 1e9)]
        return self.fc(self.norm(self.conv(images)).mean((2, 3)))


def on(device, create):
    with torch.device(device):
        return create()


def of_timm(name, **options):
    return lambda: timm.create_model(name, num_classes=5, **options)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("create", "size", "message"),
    [
        (of_timm("convnext_atto"), 28, "Kernel size: .* it takes 32 × 32: set input_size=32"),
        (of_timm("convnext_atto", in_chans=1), 32, "its first layer takes 1: remove that option of the model"),
        (of_timm("vit_tiny_patch16_224", depth=1), 28, r"Input height \(28\).* it takes 224 × 224: set input_size=224"),
        (of_timm("vgg11"), 16, "it takes 32 × 32: set input_size=32"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5)), 28, "it takes 64 × 64: set input_size=64"),
        (
            lambda: nn.Conv2d(3, 5, 1),
            28,
            r"it returns a tensor \[1, 5, 28, 28\], not logits \[1, 5\]; use another model",
        ),
        (of_timm("resnet10t", features_only=True), 64, "it returns a list, not a tensor of logits"),
        (lambda: OfValues(40), 28, "it takes|use another model"),
    ],
    ids=["too small", "one channel", "fixed size", "pooling", "flat", "no logits", "features", "values"],
)
def test_a_model_that_cannot_take_the_images_is_told_with_a_cure(device, create, size, message):
    if isinstance(create(), nn.Sequential) or size:
        model = on(device, create)
    with pytest.raises(
        KeyProblem, match=rf"the model mine cannot take images of {size} × {size}, a tensor .*{message}"
    ) as e:
        check_takes_images(model, size, "mine", num_classes=5, on_cpu=create)
    assert len(str(e.value)) < 500
    assert "\n" not in str(e.value)


def test_batch_norm_over_one_value_is_found_and_cured():
    model = of_timm("resnet10t")()
    with pytest.raises(
        KeyProblem, match=r"cannot be trained on .* more than 1 value .* training\.micro_batch to more than 1"
    ):
        check_takes_images(model, 32, "mine", num_classes=5, micro_batch=1)
    assert check_takes_images(model, 32, "mine", num_classes=5, micro_batch=2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_models_that_take_the_images_pass(device):
    for create, size in (
        (of_timm("convnext_atto"), 32),
        (of_timm("resnet10t"), 33),
        (of_timm("mobilenetv3_small_050"), 64),
    ):
        assert check_takes_images(on(device, create), size, "mine", num_classes=5, micro_batch=4)


def test_a_model_that_looks_at_values_gets_a_real_image():
    assert not check_takes_images(OfValues(), 8, "mine", num_classes=5, micro_batch=64)
    assert not check_takes_images(on("meta", OfValues), 8, "mine", num_classes=5, on_cpu=OfValues, micro_batch=64)


@pytest.mark.parametrize("create", [of_timm("resnet10t", drop_rate=0.5), OfValues])
def test_the_model_and_the_generator_stay_as_they_were(create):
    model = create().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    check_takes_images(model, 64, "mine", num_classes=5, micro_batch=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(
        torch.equal(tensor, before[key]) and tensor.device.type == "cpu" for key, tensor in model.state_dict().items()
    )
