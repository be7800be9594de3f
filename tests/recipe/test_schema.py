"""The JSON Schema that editors complete and check recipes with."""

import json
import subprocess
import sys

import jsonschema
import pytest

from convrun.recipe.schema import recipe_schema
from convrun.recipe.shipped import FOLDER
from convrun.recipe.tree import read_file, read_text

STALE = "recipes/recipe.schema.json is stale: run `make schema`"


@pytest.fixture(scope="module")
def schema():
    """The schema of what convrun brings along: other tests of this process may have registered plugins."""
    return json.loads((FOLDER / "recipe.schema.json").read_text())


@pytest.fixture(scope="module")
def errors(schema):
    validator = jsonschema.Draft202012Validator(schema)

    def errors(recipe):
        return [error.message for error in validator.iter_errors(recipe)]

    return errors


def test_the_schema_is_a_schema(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_file_in_docs_is_what_the_verb_prints():
    command = [
        sys.executable,
        "-m",
        "convrun",
        "schema",
        "--no-plugins",
    ]  # in a process of its own, without plugins
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == (FOLDER / "recipe.schema.json").read_text(), STALE


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_file_is_valid(errors, path):
    assert errors(read_file(path).plain()) == []


def read(text):
    return read_text(text, "test").plain()  # YAML 1.2, as editors read it


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "extends: other",
        "model: convnext_tiny",
        "model: timm/resnet50",
        "model: {name: timm/resnet50, drop_rate: 0.1}",
        "model: {drop_path_rate: 0.1}",
        "ema: null",
        "evaluation: null",
        "training: {micro_batch: auto}",
        'training: {batch_size: "${env:BATCH}"}',
        "init: {from: weights.safetensors}",
        "logging: {to: [jsonl, {name: csv}]}",
        "augmentations: [horizontal_flip, {name: random_crop, padding: 4}]",
        "checkpoints: {keep: {last: 3}}",
    ],
)
def test_what_convrun_takes_is_valid(errors, text):
    assert errors(read(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "modle: convnext_tiny",
        "model: convnext_tinny",
        "model: {name: convnext_tiny, drop_pth_rate: 0.1}",
        "model: {drop_pth_rate: 0.1}",
        "model: {name: convnext_tiny, drop_path_rate: 1.5}",
        "model: {name: convnext_tiny, depths: [1, 1, 1, 1]}",
        "model: {name: convnext, depths: [1, 1, 1]}",
        "model: 3",
        "training: {batch_sise: 3}",
        "training: {batch_size: 0}",
        "training: {batch_size: many}",
        "training: {precision: fp8}",
        "optimizer: {name: adamw, lr: -1}",
        "optimizer: {name: adamw, momentum: 0.9}",
        "augmentations: horizontal_flip",
        "augmentations: [{name: random_crop, pading: 4}]",
        "logging: {to: [json]}",
        "checkpoints: {keep: {lst: 3}}",
        "ema: {decay: 1}",
        "seed: -1",
    ],
)
def test_what_convrun_refuses_is_not(errors, text):
    assert errors(read(text)) != []


def test_every_component_and_key_is_described(schema):
    optimizer = next(
        s for s in schema["$defs"]["optimizer"]["anyOf"] if s.get("properties", {}).get("name") == {"const": "adamw"}
    )
    assert optimizer["description"].startswith("AdamW")
    assert set(optimizer["properties"]) >= {"name", "lr", "betas", "eps", "weight_decay", "layer_decay", "lr_for_batch"}
    assert all("description" in value for key, value in optimizer["properties"].items() if key != "name")


def test_a_type_that_refers_to_another_leaves_no_dangling_reference(fresh_registry):
    from pydantic import BaseModel

    class Inner(BaseModel):
        x: int = 0

    @fresh_registry.register("loss", "with_model")
    def with_model(*, inner: Inner | None = None):
        """A loss."""

    text = json.dumps(recipe_schema())
    assert "with_model" in text
    assert "#/$defs/Inner" not in text
