"""`validate --build` of models whose images, options or shapes are out of the ordinary."""

import json

import pytest

PLUGIN = """
from convrun.registry import register

@register("model", "of_values")
def of_values(num_classes):
    "A model that looks at values when it is built, or when it computes."
    import torch
    from torch import nn

    class OfValues(nn.Module):
        def __init__(self):
            super().__init__()
            BUILD
            self.fc = nn.Linear(3, num_classes)

        def forward(self, images):
            FORWARD
            return self.fc(images.mean((2, 3)))

    return OfValues()
"""


@pytest.fixture
def plugin(tmp_path):
    def plugin(build="pass", forward="pass"):
        (tmp_path / "of_values.py").write_text(PLUGIN.replace("BUILD", build).replace("FORWARD", forward))
        return f"plugins=[{tmp_path / 'of_values.py'}]"

    return plugin


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("{name: timm/convnext_atto, options: {in_chans: 1}}", 32, "its first layer takes 1: remove that option"),
        ("timm/convnext_atto", 28, "it takes 32 × 32: set input_size=32"),
        ("{name: timm/vit_tiny_patch16_224, options: {depth: 1}}", 32, "it takes 224 × 224: set input_size=224"),
        ("{name: timm/convnext_atto, options: {depths: [1, 1]}}", 32, "timm/convnext_atto refuses options: "),
        ("{name: timm/convnext_atto, options: {kernel_sizes: none}}", 32, "timm/convnext_atto refuses options: "),
    ],
)
def test_a_model_that_cannot_take_the_images_is_one_message_and_exit_code_2(convrun, tiny_file, model, size, message):
    code, out, errors = convrun("validate", tiny_file, f"model={model}", f"input_size={size}", "--build")
    assert (code, out) == (2, "")
    assert len([line for line in errors.splitlines() if line]) <= 4
    assert "Traceback" not in errors
    assert message in errors


def test_a_model_that_cannot_be_built_without_memory_is_built_with_it(convrun, tiny_file, plugin):
    override = plugin(build="self.count = int(torch.ones(3).sum().item())")
    code, out, _ = convrun("validate", tiny_file, override, "model=of_values", "optimizer.layer_decay=1", "--build")
    assert code == 0
    assert "12 parameters" in out
    assert "memory       of a process" in out


def test_a_model_whose_shapes_depend_on_values_has_all_but_its_memory(convrun, tiny_file, plugin):
    override = plugin(forward="images = images[:, :, : images.shape[2] + int(images.sum().item() > 1e9)]")
    code, out, _ = convrun("validate", tiny_file, override, "model=of_values", "optimizer.layer_decay=1", "--build")
    assert code == 0
    assert "12 parameters" in out
    assert "memory       not known: the model's shapes depend on values" in out
    found = json.loads(
        convrun(
            "validate", tiny_file, override, "model=of_values", "optimizer.layer_decay=1", "--build", "--format", "json"
        )[1]
    )
    assert found[0]["model"]["memory"] == []


def test_a_plugin_that_fails_on_any_device_is_named(convrun, tiny_file, plugin):
    override = plugin(build="raise ValueError('never')")
    code, _, errors = convrun("validate", tiny_file, override, "model=of_values", "optimizer.layer_decay=1", "--build")
    assert code == 1
    assert "model/of_values from plugin" in errors
    assert "failed: ValueError: never" in errors
