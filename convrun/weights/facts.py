"""What one must know of a classifier's weights to use them: it lies beside them, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import convrun
from convrun.errors import CheckpointError
from convrun.plan import Plan

_LIST = "write the list of their names in label order there, or remove the file"


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """A trained classifier but for its weights.

    Attributes:
        model: the model section of its recipe, every key spelled out.
        class_names: in label order; as many as the data had.
        num_classes: size of the head, which may be larger.
        input_size: height and width of its images in pixels.
        mean: what is subtracted from each channel (red, green, blue) of values in 0..1.
        std: what is divided by then.
        crop_ratio: of the evaluation, see `convrun.augment.crops.evaluation_transform`; None: squashed.
        interpolation: PIL's filter of the evaluation's resize.
        recipe_hash: of the run's recipe; not known of a file alone.
        version: the convrun that wrote it.
    """

    model: Mapping[str, Any]
    class_names: tuple[str, ...]
    num_classes: int
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float | None
    interpolation: str
    recipe_hash: str = ""
    version: str = convrun.__version__

    def as_dict(self) -> dict[str, Any]:
        """All but the class names, as JSON has it."""
        return {
            "model": dict(self.model),
            "num_classes": self.num_classes,
            "input_size": self.input_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "crop_ratio": "squash" if self.crop_ratio is None else self.crop_ratio,
            "interpolation": self.interpolation,
            "recipe_hash": self.recipe_hash,
            "convrun": self.version,
        }

    def metadata(self) -> dict[str, str]:
        """As the metadata of a safetensors file: each value that is no text as JSON, in ASCII.

        The recipe's hash is left out: it changes with keys that change no weight (data.workers, checkpoints), and the
        same weights shall be the same bytes.
        """
        values = {**self.as_dict(), "class_names": list(self.class_names)}
        del values["recipe_hash"]
        return {"format": "pt", **{k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}}


def facts_of(plan: Plan, class_names: Sequence[str]) -> ModelFacts:
    """Those of the model that a plan trains on classes of these names."""
    return ModelFacts(
        model=plan.model.as_written(),
        class_names=tuple(class_names),
        num_classes=plan.num_classes,
        input_size=plan.input_size,
        mean=tuple(plan.data.settings.mean),
        std=tuple(plan.data.settings.std),
        crop_ratio=plan.crop_ratio,
        interpolation=plan.interpolation,
        recipe_hash=plan.recipe_hash,
    )


def facts_in(metadata: Mapping[str, str], shown: str) -> ModelFacts | None:
    """Those in the metadata of a safetensors file; None if it has none of convrun's.

    Args:
        metadata: as `ModelFacts.metadata` gives it.
        shown: what errors call the file.

    Raises:
        CheckpointError: it has some, and they are not what convrun writes.
    """
    if "convrun" not in metadata or "model" not in metadata:
        return None
    try:
        crop_ratio = metadata["crop_ratio"]
        found = ModelFacts(
            model=json.loads(metadata["model"]),
            class_names=tuple(json.loads(metadata["class_names"])),
            num_classes=json.loads(metadata["num_classes"]),
            input_size=json.loads(metadata["input_size"]),
            mean=tuple(json.loads(metadata["mean"])),
            std=tuple(json.loads(metadata["std"])),
            crop_ratio=None if crop_ratio == "squash" else json.loads(crop_ratio),
            interpolation=metadata["interpolation"],
            version=metadata["convrun"],
        )
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(_damaged(shown, error)) from error
    _check(found, shown)
    return found


def facts_beside(path: Path) -> ModelFacts | None:
    """Those in the `model.json` and `classes.json` beside a file of weights; None if they are not of this file.

    Raises:
        CheckpointError: they cannot be read, or are not what convrun writes.
    """
    described = path.parent / "model.json"
    try:
        values = json.loads(described.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{described} cannot be read ({error}); take the one that the run wrote") from error
    if not isinstance(values, dict) or path.name not in values.get("files", ()):
        return None
    values["class_names"] = list(class_names_in(path.parent / "classes.json"))
    return facts_in({k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}, str(described))


def class_names_in(path: Path) -> tuple[str, ...]:
    """A `classes.json`: the names of the classes, in label order.

    It is a list of names; from other programs also a map from names to labels, or from labels to names.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}); {_LIST}") from error
    names = _by_label(found) if isinstance(found, dict) else found
    if not _is_names(names):
        raise CheckpointError(f"{path} holds something else than class names; {_LIST}")
    return tuple(names)


def _by_label(found: dict[str, Any]) -> list[Any]:
    """A map's names in label order; nothing if its labels are not 0, 1, 2, ..."""
    labels = list(found.values()) if all(type(value) is int for value in found.values()) else list(found)
    names = list(found) if labels and type(labels[0]) is int else list(found.values())
    pairs = sorted((int(label), name) for label, name in zip(labels, names, strict=True) if str(label).isdecimal())
    return [name for _, name in pairs] if [label for label, _ in pairs] == list(range(len(found))) else []


def _check(facts: ModelFacts, shown: str) -> None:
    """Raises CheckpointError unless every value is of its kind: a file may hold anything."""
    is_right = {
        "model": isinstance(facts.model, dict) and isinstance(facts.model.get("name"), str),
        "class_names": _is_names(list(facts.class_names)),
        "num_classes": type(facts.num_classes) is int and facts.num_classes >= len(facts.class_names),
        "input_size": type(facts.input_size) is int and 0 < facts.input_size <= 1 << 16,
        "mean": _are_numbers(facts.mean),
        "std": _are_numbers(facts.std) and all(facts.std),
        "crop_ratio": facts.crop_ratio is None or (_are_numbers([facts.crop_ratio] * 3) and 0 < facts.crop_ratio <= 1),
    }
    if wrong := [name for name, is_fine in is_right.items() if not is_fine]:
        raise CheckpointError(_damaged(shown, f"{wrong[0]} is {getattr(facts, wrong[0])!r}"))


def _damaged(shown: str, reason: object) -> str:
    return f"the metadata of {shown} is not what convrun writes ({reason}); take the file that the run wrote"


def _is_names(names: Any) -> bool:
    return isinstance(names, list) and len(names) > 0 and all(isinstance(name, str) for name in names)


def _are_numbers(values: Sequence[Any]) -> bool:
    return len(values) == 3 and all(type(value) in (int, float) for value in values)
