"""What an unknown key was most likely meant to be: a misspelt key, another section's key, or another tool's word."""

from __future__ import annotations

import dataclasses
from typing import Any

from convrun.contracts import KINDS
from convrun.errors import ConvrunError
from convrun.keys import is_section, keys_of_section
from convrun.recipe.inheritance import LIST_SECTIONS, SINGLE_SECTIONS
from convrun.recipe.problems import Path, dotted
from convrun.recipe.sections import PLAIN_SECTIONS, Header
from convrun.recipe.tree import Node
from convrun.registry import registry
from convrun.text.wording import is_one_slip, listed, nearest

# Words of other training scripts -> convrun's keys.
OTHER_WORDS = {
    "learning_rate": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "opt": "optimizer.name",
    "opt_betas": "optimizer.betas",
    "opt_eps": "optimizer.eps",
    "bs": "training.batch_size",
    "update_freq": "training.batch_size",
    "grad_accum_steps": "training.batch_size",
    "accumulation": "training.batch_size",
    "clip_grad": "training.clip_grad_norm",
    "amp": "training.precision",
    "use_amp": "training.precision",
    "torchcompile": "training.compile",
    "drop_path": "model.drop_path_rate",
    "layer_scale_init_value": "model.layer_scale_init",
    "model_ema": "ema",
    "model_ema_decay": "ema.decay",
    "smoothing": "loss.label_smoothing",
    "warmup": "scheduler.warmup_epochs",
    "sched": "scheduler.name",
    "img_size": "input_size",
    "data_path": "data.root",
    "data_dir": "data.root",
    "nb_classes": "data.num_classes",
    "num_workers": "data.workers",
    "crop_pct": "evaluation.crop_ratio",
    "aa": "augmentations",
    "reprob": "augmentations",
    "mixup": "augmentations",
    "cutmix": "augmentations",
    "schedule": "scheduler",
    "callback": "callbacks",
}


@dataclasses.dataclass(frozen=True)
class Guess:
    """A cure to print, and the key of this section that it proposes, if it proposes one."""

    cure: str
    name: str | None = None


def guessed_key(path: Path, names: set[str], tree: Node) -> Guess:
    """The best guess at the key that was meant at `path`, where `names` are allowed."""
    key, section = str(path[-1]), path[:-1]
    slip = nearest(key, [name for name in names if is_one_slip(key, name)])
    if slip:
        return Guess(f"did you mean {slip}?", slip)
    if key in OTHER_WORDS:
        where, _, name = OTHER_WORDS[key].rpartition(".")
        return Guess(f"it is {OTHER_WORDS[key]} here", name if where == dotted(section) else None)
    elsewhere = [place for place in places_of(key, tree) if place != dotted(path)]
    if elsewhere:
        return Guess(f"it belongs at {' or '.join(elsewhere[:3])}")
    similar = nearest(key, names)
    if similar:
        return Guess(f"did you mean {similar}?", similar)
    cousins = _same_kind(key, section, tree)
    if cousins:
        return Guess(f"{listed(cousins, 4)} would take it")
    if not names:
        return Guess("")
    return Guess(f"{dotted(section) or 'a recipe'} takes {listed(sorted(names), 30)}")


def places_of(key: str, tree: Node) -> list[str]:
    """The dotted paths at which a key of this name is allowed in this recipe."""
    found = [key] if key in (*PLAIN_SECTIONS, *SINGLE_SECTIONS, "augmentations", "callbacks") else []
    found += [k.name for k in keys_of_section(Header) if k.name == key]
    found += [section for section in LIST_SECTIONS if section.endswith(f".{key}")]
    for section, fields in PLAIN_SECTIONS.items():
        found += _within(section, fields, key)
    for path, kind, name in _components(tree):
        try:
            component = registry.find(kind, name)
        except ConvrunError:
            continue
        if key in component.keys.keys:
            found.append(f"{path}.{key}")
    return found


def _within(path: str, section: type[Any], key: str) -> list[str]:
    """The paths of a key in a plain section and in the sections it holds."""
    found = []
    for each in keys_of_section(section):
        if each.name == key:
            found.append(f"{path}.{key}")
        if is_section(each.annotation):
            found += _within(f"{path}.{each.name}", each.annotation, key)
    return found


def _components(tree: Node) -> list[tuple[str, str, str]]:
    """(path, kind, name) of each component the recipe names."""
    found = []
    for section, kind in SINGLE_SECTIONS.items():
        node = tree.at((section, "name"))
        if node is not None and isinstance(node.value, str):
            found.append((section, kind, node.value))
    listed_nodes = tree.at(("augmentations",))
    if listed_nodes is not None and isinstance(listed_nodes.value, list):
        for i in range(len(listed_nodes.value)):
            node = tree.at(("augmentations", i, "name"))
            if node is not None and isinstance(node.value, str):
                found.append((f"augmentations.{node.value}", "augmentation", node.value))
    return found


def _same_kind(key: str, section: Path, tree: Node) -> list[str]:
    """Other components of the section's kind that take such a key."""
    kinds = [kind.name for kind in KINDS.values() if kind.section == dotted(s for s in section if isinstance(s, str))]
    if not kinds:
        return []
    return [f"{kinds[0]}/{c.name}" for c in registry.all(kinds[0]) if key in {k.name for k in c.own_keys}]
