"""A trained model, ready to use: from a run folder, a file of weights, or timm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from convrun.augment.crops import evaluation_transform
from convrun.errors import CheckpointError, ConvrunError, DataError, ModelError, UsageError
from convrun.keys.key_sets import InvalidKeys
from convrun.plugins import load_plugins
from convrun.recipe import load_plugins_of
from convrun.recipe.inheritance import read_with_parents
from convrun.recipe.sections import Init
from convrun.registry import registry
from convrun.run_folder import RunFolder
from convrun.text.wording import listed
from convrun.weights.facts import ModelFacts, facts_beside, facts_in
from convrun.weights.initial import load_initial
from convrun.weights.reading import metadata_of, read_weights

Which = Literal["best", "last", "best_ema", "last_ema"]


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A trained classifier.

    Attributes:
        model: in evaluation mode, on the CPU: float images [n, 3, input_size, input_size] -> logits [n, num_classes].
        classes: their names, in label order; a head may be larger than the data were.
        transform: a PIL image -> a float tensor [3, input_size, input_size] as the run's evaluation makes it.
        input_size: height and width in pixels.
        mean: what the transform subtracts from each channel of values in 0..1.
        std: what it divides by then.
        source: where the weights are from, for messages.
    """

    model: nn.Module
    classes: tuple[str, ...]
    transform: Callable[[Image.Image], Tensor]
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class ToInput:
    """A PIL image -> what a model takes; a value, so that it can be sent to other processes."""

    geometry: Callable[[Image.Image], Image.Image]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> Tensor:
        """A float tensor [3, height, width].

        Raises:
            DataError: its pixels have more than 8 bits a channel, and nothing tells which value is white.
        """
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise DataError(f"an image of mode {image.mode} has no 8 bits a channel; convert it to RGB first")
        pixels = torch.from_numpy(np.array(self.geometry(image.convert("RGB")))).permute(2, 0, 1).contiguous()
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)


def load_model(source: str | Path, weights: Which = "best") -> LoadedModel:
    """The model of a run, with the transform of its evaluation and the names of its classes.

    Example:
        loaded = load_model("runs/digits_demo/20250101-120000-ab12cd")
        logits = loaded.model(loaded.transform(image)[None])
        name = loaded.classes[logits.argmax()]

    Args:
        source: a run folder, a safetensors file that a run wrote, or `timm:NAME` for weights that timm has.
        weights: which of a run folder's; of another source there is one.

    Raises:
        UsageError: there is no such source.
        CheckpointError: the run has no such weights yet, or the file is damaged, or does not say what it is of.
        ModelError: the weights are not of the model that they are said to be of.
    """
    text = str(source)
    if text.startswith("timm:"):
        return _from_timm(text)
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_file(_file_of_run(RunFolder(path), weights), text)
    if not path.exists():
        raise UsageError(f"there is no run folder or file {text} (looked from {Path.cwd()})")
    load_plugins((), Path("plugins"))
    return _from_file(path, text)


def _file_of_run(folder: RunFolder, weights: Which) -> Path:
    if not folder.recipe.is_file():
        raise UsageError(
            f"{folder.path} is no run folder: it has no recipe.yaml; give a run folder or a file of weights"
        )
    load_plugins_of(read_with_parents(folder.recipe))
    path = folder.weights / f"{weights}.safetensors"
    if path.is_file():
        return path
    there = sorted(p.stem for p in folder.weights.glob("*.safetensors"))
    if there:
        raise CheckpointError(f"the run in {folder.path} has no weights {weights!r}, but {listed(there)}")
    status: Mapping[str, Any] = folder.read_json("status.json") or {}
    how = f"{status.get('state', 'not begun')}, step {status.get('step', 0)} of {status.get('total_steps', '?')}"
    cure = f"they are written at its end: convrun run {folder.path} goes on with it"
    raise CheckpointError(f"the run in {folder.path} has no weights yet ({how}); {cure}")


def _from_file(path: Path, source: str) -> LoadedModel:
    facts = facts_in(metadata_of(path), str(path)) or facts_beside(path)
    if facts is None:
        raise CheckpointError(
            f"{path} does not say which model it is of; give the run folder, or a file in its weights/ (a weights file "
            "alone can start a run: init.from)"
        )
    model = _built(facts, path)
    _load(model, read_weights(path), path, facts)
    return _loaded(model, facts, source)


def _from_timm(source: str) -> LoadedModel:
    from convrun.results.timm_facts import timm_facts

    facts = timm_facts(source.removeprefix("timm:"))
    model = _built(facts, source)
    load_initial(model, Init(from_=source), facts.num_classes)
    return _loaded(model, facts, source)


def _built(facts: ModelFacts, source: Path | str) -> nn.Module:
    """The model, with weights of no meaning; the global generator stays as it was."""
    values = dict(facts.model)
    name = values.pop("name")
    try:
        component = registry.find("model", name)
        checked = component.keys.check(values)
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = component.create(facts.num_classes, **checked)
    except (ConvrunError, InvalidKeys) as error:
        raise ModelError(
            f"the model of {source} cannot be built here: {error} (it was written by convrun {facts.version})"
        ) from error
    return model.eval()


def _load(model: nn.Module, state: Mapping[str, Tensor], path: Path, facts: ModelFacts) -> None:
    own = model.state_dict()
    for key in [*own, *(key for key in state if key not in own)]:
        has = list(state[key].shape) if key in state else "not there"
        needs = list(own[key].shape) if key in own else "not there"
        if has != needs:
            raise ModelError(
                f"{path} is not of the model that it names: {key} is {has}, in {facts.model['name']} with "
                f"{facts.num_classes} classes {needs}; take the file that the run wrote"
            )
    model.load_state_dict(dict(state))


def _loaded(model: nn.Module, facts: ModelFacts, source: str) -> LoadedModel:
    geometry = evaluation_transform(facts.input_size, facts.crop_ratio, facts.interpolation)
    transform = ToInput(geometry, facts.mean, facts.std)
    return LoadedModel(model, facts.class_names, transform, facts.input_size, facts.mean, facts.std, source)
