"""The weights a run starts from, loaded into its model: every tensor is accounted for, and one line tells how."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from convrun.errors import ModelError
from convrun.recipe.sections import Init
from convrun.weights.architecture import architecture_text
from convrun.weights.layouts import detect, to_convrun
from convrun.weights.reading import read_weights
from convrun.weights.sources import located, name_of

# Weights pre-trained without labels have no head, and no norm before it.
FINAL_NORMS = ("head.norm.", "norm.", "fc_norm.")


def load_initial(model: nn.Module, init: Init, num_classes: int) -> str:
    """Loads what `init` names into a model that was just built, and scales its head if that is new.

    A new head is the one the model was built with, so it follows from the run's seed. On the meta device nothing is
    loaded, but everything is checked.

    Args:
        model: with the weights it was built with, on the CPU or the meta device.
        init: the recipe's section.
        num_classes: size of the model's head.

    Returns:
        One line: how many tensors were loaded, from where, and which are new.

    Raises:
        CheckpointError: the file is not there, cannot be read, or lacks the weights asked for.
        ModelError: the weights do not fit the model.
    """
    head = _head_of(model, num_classes)
    is_new_head = init.from_ is None or init.head == "reinit"
    if not head and is_new_head and (init.head_init_scale != 1 or init.head == "reinit"):
        message = f"init: no layer of {type(model).__name__} has {num_classes:,} outputs, so its head cannot be told"
        raise ModelError(f"{message}; leave head and head_init_scale out")
    line = "init: all weights are new" if init.from_ is None else _load(model, init, head)
    if is_new_head and init.head_init_scale != 1:
        with torch.no_grad():
            for tensor in _heads_tensors(model, head).values():
                tensor.mul_(init.head_init_scale)
        line += f" (the head's times {init.head_init_scale:g})"
    return line


def _load(model: nn.Module, init: Init, head: Collection[str]) -> str:
    assert init.from_ is not None
    name = name_of(init.from_)
    state = read_weights(located(init.from_, init.sha256), init.weights)
    own = model.state_dict()
    layout, state = _renamed(state, own, name)
    own_head = _heads_tensors(model, head)
    new = set(own_head)
    if own_head and not new & state.keys():
        new |= {key for key in own.keys() - state.keys() if key.startswith(FINAL_NORMS)}
    # The head comes last: that the architecture is another one says more than that the classes are.
    _check_fit(name, _without(new, state), _without(new, own), state)
    if init.head == "keep":
        _check_head(name, state, own_head)
        _check_fit(name, state, own, state)
        new = set()
    given = _without(new, state)
    _check_finite(name, given)
    with torch.no_grad():
        for key, tensor in given.items():
            own[key].copy_(tensor.reshape(own[key].shape))
    made_new = f", {len(new)} made new: {', '.join(k for k in own if k in new)}" if new else ""
    return f"init: {len(given)} tensors loaded from {name} ({layout}{', EMA' * (init.weights == 'ema')}){made_new}"


def _head_of(model: nn.Module, num_classes: int) -> list[str]:
    """Names of the classifier's modules: what the model says they are, else its last linear layer of that size."""
    modules = dict(model.named_modules())
    classifier = getattr(model, "get_classifier", lambda: None)()
    said = classifier if isinstance(classifier, tuple | list) else [classifier]
    names = [
        n for n, module in modules.items() if n and any(module is head for head in said) and [*module.parameters()]
    ]
    linear = [n for n, m in modules.items() if n and isinstance(m, nn.Linear) and m.out_features == num_classes]
    return names or linear[-1:]


def _heads_tensors(model: nn.Module, head: Collection[str]) -> dict[str, Tensor]:
    return {key: t for key, t in model.state_dict().items() if any(key.startswith(f"{name}.") for name in head)}


def _without(names: Collection[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key not in names}


def _renamed(state: dict[str, Tensor], own: Mapping[str, Tensor], name: str) -> tuple[str, dict[str, Tensor]]:
    """The layout, in words, and the tensors in the model's names."""
    # Names that are the model's own need no table: any architecture can start from its own weights.
    if 2 * len(own.keys() & state.keys()) > len(state):
        return "the model's own names", state
    try:
        layout = detect(state)
    except ModelError as error:
        raise ModelError(f"{name} does not fit the model: {error}; the model's begin with {_sample(own)}") from error
    return f"{layout} layout", to_convrun(state)


def _check_head(name: str, state: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> None:
    for key, tensor in head.items():
        if key not in state:
            cure = f"init.head=reinit makes a new one of {len(tensor):,} classes"
            raise ModelError(f"{name} holds no classifier ({key} is not there); {cure}")
        if state[key].shape[:1] != tensor.shape[:1]:
            raise ModelError(
                f"{name} has a head of {state[key].shape[:1].numel():,} classes, but the model has {len(tensor):,}; "
                f"init.head=reinit makes a new one of {len(tensor):,}"
            )


def _check_fit(name: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Every tensor of the model is given, none is left, shapes agree but for axes of length 1."""
    problems = []
    if missing := [key for key in own if key not in given]:
        problems.append(f"{_tensors(missing)} of the model not in the file ({_sample(missing)})")
    if unexpected := [key for key in given if key not in own]:
        problems.append(f"{_tensors(unexpected)} of the file not in the model ({_sample(unexpected)})")
    both = [key for key in own if key in given]
    if wrong := [key for key in both if _essential(given[key]) != _essential(own[key])]:
        pairs = [f"{key}: {_shape(given[key])} in the file, {_shape(own[key])} in the model" for key in wrong[:3]]
        problems.append(f"{_tensors(wrong)} of another shape ({'; '.join(pairs)}{'; …' * (len(wrong) > 3)})")
    if problems:
        raise ModelError(f"{name} does not fit the model: {', '.join(problems)}. {_cure(state, own)}")


def _check_finite(name: str, given: Mapping[str, Tensor]) -> None:
    if sick := [key for key, tensor in given.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"{name} holds NaN or infinite values in {_tensors(sick)} ({_sample(sick)}); take weights from before its "
            "training diverged"
        )


def _cure(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    theirs, ours = architecture_text(state), architecture_text(own)
    if theirs is None or ours is None or theirs == ours:
        return "Give weights of the same architecture, or set the model section to the file's"
    return f"The file is of {theirs}, the model is {ours}: set the model section to the file's, or take another file"


def _essential(tensor: Tensor) -> tuple[bool, list[int]]:
    """What must agree: axes of length 1 come and go (1x1 convolutions for linear layers), order and sizes do not."""
    return tensor.is_floating_point(), [size for size in tensor.shape if size != 1]


def _shape(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{'×'.join(map(str, tensor.shape)) or 'a number'}{kind}"


def _tensors(names: Collection[str]) -> str:
    return f"{len(names):,} tensor{'s' * (len(names) != 1)}"


def _sample(names: Collection[str]) -> str:
    return ", ".join(list(names)[:3]) + ", …" * (len(names) > 3)
