"""2,000 broken recipes and overrides: each is accepted or refused with a message, never with a traceback."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convrun.display.plan_text import plan_text
from convrun.errors import ConvrunError
from convrun.plan import Machine, make_plan
from convrun.recipe import load_recipe, shipped_recipes, split_arguments
from convrun.recipe.problems import RecipeError
from convrun.recipe.writing import origins_text, recipe_yaml

WHOLE = shipped_recipes()["digits_demo"].read_text()
TINY = shipped_recipes()["convnext_tiny_in1k"].read_text()
HELD = tempfile.TemporaryDirectory(prefix="convrun-fuzz-")  # removed when the tests are over
FOLDER = Path(HELD.name)
NUMBERS = itertools.count()
# CONVRUN_FUZZ=50 looks fifty times as long, with HYPOTHESIS_PROFILE=explore at other examples.
SHARE = float(os.environ.get("CONVRUN_FUZZ", "1"))

# What people and machines write by mistake in the place of a value.
ODD_VALUES = st.sampled_from([
    "", "~", "null", "true", "-1", "0", "1", "1e999", "-.inf", ".nan", "9" * 30, "0x" + "f" * 400, "1_000", "[]", "{}",
    "[1, 2]", "{a: 1}", "'", '"', "auto", "[[[[", "${env:", "${env:NOWHERE}", "${env:NOWHERE:3}", "${}", "*a", "&a 1",
    "!!python/name:os.system x", "2020-01-01", "\t", "|", ">-", "? ", "<<", "@", "%", "--- 1", "...", "#", "\x00",
    "\x7f", "\ud800", "é", "日本", "😀", "\u2028", "a" * 3000, "timm/", "timm/*", "timm/resnet50", "cosine", "digits",
])  # fmt: skip
TOKEN = re.compile(r"[\w.+-]+|[^\w\s]|\s+")


@st.composite
def broken_recipes(draw: st.DrawFn) -> bytes:
    """A real recipe with lines gone or doubled, tokens swapped, values replaced."""
    text = draw(st.sampled_from([WHOLE, WHOLE, TINY]))
    for _ in range(draw(st.integers(1, 3))):
        lines, tokens = text.splitlines(keepends=True), TOKEN.findall(text)
        how = draw(st.sampled_from(["drop", "double", "swap", "value", "value", "value", "insert", "indent"]))
        i, j = (draw(st.integers(0, 10_000)) for _ in range(2))
        if how == "drop" and lines:
            text = "".join(line for k, line in enumerate(lines) if k != i % len(lines))
        elif how == "double" and lines:
            text = "".join([*lines, lines[i % len(lines)]])
        elif how == "indent" and lines:
            lines[i % len(lines)] = draw(st.sampled_from([" ", "  ", "\t", "- "])) + lines[i % len(lines)]
            text = "".join(lines)
        elif tokens:
            i, j = i % len(tokens), j % len(tokens)
            if how == "swap":
                tokens[i], tokens[j] = tokens[j], tokens[i]
            elif how == "insert":
                tokens.insert(i, draw(st.text(max_size=4)))
            else:
                values = [k for k, token in enumerate(tokens) if re.fullmatch(r"[\w.+-]+", token)]
                if values:
                    tokens[values[i % len(values)]] = draw(ODD_VALUES)
            text = "".join(tokens)
    return text.encode("utf-8", "surrogatepass")


def survive(source: str | Path, overrides: list[str]) -> None:
    """Does all that `validate` and `show` do, and loads what is shown; a traceback is anything but a ConvrunError."""
    try:
        recipe = load_recipe(source, overrides, plugins=False)
        plan_text(recipe, make_plan(recipe, Machine()))
        origins_text(recipe)
        shown = FOLDER / "shown.yaml"
        shown.write_text(recipe_yaml(recipe))
        assert load_recipe(shown, plugins=False).resolved() == recipe.resolved(), "what is shown is another recipe"
    except RecipeError as error:
        for problem in error.problems:
            assert problem.message
            assert "\n" not in problem.render().split("\n    ")[0], "a problem is one line"
    except ConvrunError as error:
        assert str(error)


def survive_file(content: bytes) -> None:
    path = FOLDER / f"{next(NUMBERS) % 50}.yaml"
    path.write_bytes(content)
    survive(path, [])


@settings(max_examples=int(900 * SHARE))
@example(b"")
@example(b"\xff\xfen\x00")
@example(b"seed: 0x" + b"f" * 5000)
@example(b"seed: " + b"9" * 5000)
@example(b"[" * 100_000)
@example(b"{a: " * 100_000)
@example(b"- " * 100_000)
@example(b"a: &a [*a]")
@example(b"\x00")
@example(b"\xef\xbb\xbf\xef\xbb\xbfname: x")
@example(b"extends: ''\n")
@example(b"extends: .\n")
@example(b"extends: '" + b"x" * 5000 + b"'\n")
@example(b'extends: "a\\0b/c.yaml"\n')
@given(broken_recipes())
def test_a_mutated_recipe_gives_a_message(content: bytes) -> None:
    survive_file(content)


@settings(max_examples=int(300 * SHARE))
@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_message(content: bytes) -> None:
    survive_file(content)


@settings(max_examples=int(200 * SHARE))
@given(st.text(max_size=200))
def test_arbitrary_text_gives_a_message(content: str) -> None:
    survive_file(content.encode("utf-8", "surrogatepass"))


KEYS = st.sampled_from([
    "name", "seed", "model", "model.name", "model.depths", "data", "data.name", "data.mean", "data.mean.0",
    "augmentations", "augmentations.0", "augmentations.mixup_cutmix", "augmentations.mixup_cutmix.mixup_alpha",
    "augmentations.random_crop.name", "loss", "optimizer", "optimizer.lr", "optimizer.betas", "optimizer.lr_for_batch",
    "optimizer.layer_decay", "scheduler", "scheduler.warmup_epochs", "scheduler.min_lr", "training",
    "training.batch_size", "training.micro_batch", "training.epochs", "training.steps", "ema", "ema.decay",
    "evaluation", "evaluation.report", "evaluation.crop_ratio", "logging", "logging.to", "logging.to.0", "checkpoints",
    "checkpoints.keep", "checkpoints.keep.best", "callbacks", "launcher", "init", "expect", "expect.top1", "extends",
    "plugins", "plugins.0", "notes", "input_size", "nonsense", "model.nonsense",
])  # fmt: skip


@settings(max_examples=int(400 * SHARE))
@example([".".join("a" * 5000) + "=1"])
@example(["=" * 300])
@example(["training.batch_size=1000000000000000000000000", "data={name: synthetic, train_images: 1" + "0" * 24 + "}"])
@example(["scheduler.warmup_epochs=1e308"])
@example(["optimizer.lr=1e308", "optimizer.lr_for_batch=1"])
@given(st.lists(st.builds("{}={}".format, KEYS, ODD_VALUES | st.text(max_size=20)), min_size=1, max_size=3))
def test_odd_overrides_of_real_keys_give_a_message(overrides: list[str]) -> None:
    survive("digits_demo", overrides)


@settings(max_examples=int(200 * SHARE))
@given(st.lists(st.text(max_size=60), min_size=1, max_size=3))
def test_arbitrary_overrides_give_a_message(overrides: list[str]) -> None:
    split_arguments(overrides)
    survive("digits_demo", overrides)


@pytest.mark.parametrize("text", ["", ".", "..", "/", "a\0b", "x" * 5000, "\udcff", "/dev/null", "a=" + "b" * 5000])
def test_an_odd_recipe_argument_gives_a_message(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    split_arguments([text])
    with pytest.raises(ConvrunError):
        load_recipe(text, plugins=False)
