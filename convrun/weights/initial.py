"""The weights a run starts from, loaded into its model: every tensor is accounted for, and one line tells how."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from convrun.errors import ModelError
from convrun.recipe.sections import Init
from convrun.text.wording import listed
from convrun.weights.architecture import architecture_text
from convrun.weights.classes import are_comparable, rows_of_head, with_rows
from convrun.weights.matching import Match, essential_shape, ignoring, is_counter, is_known_extra, matched
from convrun.weights.reading import read_weights_and_classes
from convrun.weights.sources import located, name_of

# Weights pre-trained without labels have no head, and no norm before it.
FINAL_NORMS = ("head.norm.", "norm.", "fc_norm.")


def load_initial(model: nn.Module, init: Init, num_classes: int, class_names: Sequence[str] | None = None) -> str:
    """Loads what `init` names into a model that was just built, and scales its head if that is new.

    A new head is the one the model was built with, so it follows from the run's seed. On the meta device nothing is
    loaded, but everything is checked.

    Args:
        model: with the weights it was built with, on the CPU or the meta device.
        init: the recipe's section.
        num_classes: size of the model's head.
        class_names: of the data, in label order. A head that is kept is put into their order if the file names its
            classes; None: they are not known, and nothing is compared.

    Returns:
        One line: how many tensors were loaded, from where, and which are new.

    Raises:
        CheckpointError: the file is not there, cannot be read, or lacks the weights asked for.
        ModelError: the weights do not fit the model, or a head that is kept is of other classes.
    """
    head = _head_of(model, num_classes)
    is_new_head = init.from_ is None or init.head == "reinit"
    if not head and is_new_head and (init.head_init_scale != 1 or init.head == "reinit"):
        message = f"init: no layer of {type(model).__name__} has {num_classes:,} outputs, so its head cannot be told"
        raise ModelError(f"{message}; leave head and head_init_scale out")
    line = "init: all weights are new" if init.from_ is None else _load(model, init, head, class_names)
    if is_new_head and init.head_init_scale != 1:
        with torch.no_grad():
            for tensor in _heads_tensors(model, head).values():
                tensor.mul_(init.head_init_scale)
        line += f" (the head's times {init.head_init_scale:g})"
    return line


def _load(model: nn.Module, init: Init, head: Collection[str], class_names: Sequence[str] | None) -> str:
    assert init.from_ is not None
    name, own = name_of(init.from_), model.state_dict()
    own_head = _heads_tensors(model, head)
    state, their_classes = read_weights_and_classes(located(init.from_, init.sha256), init.weights)
    state, ignored = _without_ignored(name, state, init.ignore)
    try:
        match = matched(state, own, [key for key in own if key not in own_head])
    except ModelError as error:
        raise ModelError(f"{name} does not fit the model: {error}") from error
    other_head = match.take_head(own_head, own) if init.head == "keep" else ""
    new = set(own_head)
    if own_head and not new & match.tensors.keys():
        new |= {key for key in own.keys() - match.tensors.keys() if key.startswith(FINAL_NORMS)}
    counters = {key for key in own.keys() - match.tensors.keys() if is_counter(own[key])}
    # The head comes last: that the architecture is another one says more than that the classes are.
    left_out = _check_fit(name, match, own, new | counters, is_new_head=True)
    if init.head == "keep":
        _check_head(name, match, own_head, own)
        left_out = _check_fit(name, match, own, counters, is_new_head=False)
        new = set()
    given = {key: tensor for key, tensor in match.tensors.items() if key in own and key not in new}
    classes = ""
    if init.head == "keep" and their_classes and class_names:
        classes, ordered = _head_in_order(name, {key: given[key] for key in own_head}, their_classes, class_names)
        given |= ordered
    _check_finite(name, given)
    with torch.no_grad():
        for key, tensor in given.items():
            own[key].copy_(tensor.reshape(own[key].shape))
    how = [match.layout] + [f"without the prefix {match.prefix}"] * bool(match.prefix)
    how += [f"head from {other_head}"] * bool(other_head)
    how += [classes] * bool(classes) + ["EMA"] * (init.weights == "ema")
    return (
        f"init: {len(given)} tensors loaded from {name} ({', '.join(how)})"
        + (f", {len(new)} made new: {', '.join(k for k in own if k in new)}" if new else "")
        + (f", {len(counters)} kept as built: {_sample(sorted(counters))}" if counters else "")
        + (f", {len(left_out)} of the file left out: {_sample(left_out)}" if left_out else "")
        + (f", {len(ignored)} ignored: {_sample(ignored)}" if ignored else "")
    )


def _head_in_order(
    name: str, head: Mapping[str, Tensor], theirs: Sequence[str], ours: Sequence[str]
) -> tuple[str, dict[str, Tensor]]:
    """What is to be told of a head's classes, and its tensors with a row a class in the order of the data."""
    if not are_comparable(theirs, ours):
        return "classes not compared: numbers stand for names", {}
    rows = rows_of_head(name, theirs, ours)
    if rows is None:
        return "", {}
    num_classes = next(iter(head.values())).shape[0]
    return "head put into the data's order of classes", with_rows(name, head, rows, num_classes)


def _without_ignored(
    name: str, state: Mapping[str, Tensor], patterns: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that no pattern matches, and the names of the others."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(raw, pattern) for raw in state):
            message = f"init.ignore: {pattern} matches no tensor of {name}"
            raise ModelError(f"{message}, whose names are {_sample(list(state))}; correct the pattern or remove it")
    ignored = [raw for raw in state if any(fnmatch.fnmatchcase(raw, pattern) for pattern in patterns)]
    return _without(ignored, state), ignored


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


def _check_head(name: str, match: Match, head: Mapping[str, Tensor], own: Collection[str]) -> None:
    for key, tensor in head.items():
        cure = f"init.head=reinit makes a new one of {len(tensor):,} classes"
        if key not in match.tensors:
            others = [f"{raw}: {_shape(found)}" for raw, found in match.rest(own).items() if match.is_of_head(raw)]
            also = f", but {_sample(others)}" if others else ""
            raise ModelError(f"{name} holds no classifier ({key} is not there{also}); {cure}")
        if match.tensors[key].shape[:1] != tensor.shape[:1]:
            raise ModelError(
                f"{name} has a head of {match.tensors[key].shape[:1].numel():,} classes, but the model has "
                f"{len(tensor):,}; {cure.removesuffix(' classes')}"
            )


def _check_fit(
    name: str, match: Match, own: Mapping[str, Tensor], unneeded: Collection[str], *, is_new_head: bool
) -> list[str]:
    """Every tensor of the model is given but those unneeded, none is left but known ones, shapes agree.

    Returns:
        Names of the file's tensors that are left out.
    """
    given, wanted, problems = match.tensors, _without(unneeded, own), []
    if missing := [key for key in wanted if key not in given]:
        problems.append(f"{_tensors(missing)} of the model not in the file ({_sample(missing)})")
    rest = match.rest(own)
    unexpected = [raw for raw in rest if not is_known_extra(match, raw, rest, is_new_head)]
    if unexpected:
        problems.append(f"{_tensors(unexpected)} of the file not in the model ({_sample(unexpected)})")
    both = [key for key in wanted if key in given]
    if wrong := [key for key in both if essential_shape(given[key]) != essential_shape(wanted[key])]:
        pairs = [f"{key}: {_shape(given[key])} in the file, {_shape(wanted[key])} in the model" for key in wrong[:3]]
        problems.append(f"{_tensors(wrong)} of another shape ({'; '.join(pairs)}{'; …' * (len(wrong) > 3)})")
    if problems:
        cure = _cure(match, own, missing, unexpected, wrong)
        raise ModelError(f"{name} does not fit the model: {', '.join(problems)}. {cure}")
    return list(rest)


def _check_finite(name: str, given: Mapping[str, Tensor]) -> None:
    if sick := [key for key, tensor in given.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"{name} holds NaN or infinite values in {_tensors(sick)} ({_sample(sick)}); take weights from before its "
            "training diverged"
        )


def _cure(
    match: Match, own: Mapping[str, Tensor], missing: Collection[str], unexpected: Collection[str], wrong: object
) -> str:
    theirs, ours = architecture_text(match.tensors), architecture_text(own)
    if theirs is not None and ours is not None and theirs != ours:
        return (
            f"The file is of {theirs}, the model is {ours}: set the model section to the file's, or take another file"
        )
    if wrong:
        return "Give weights of the same architecture, or set the model section to the file's"
    if missing:
        return "Give a file that holds them"
    used = [match.origins[key] for key in own if key in match.tensors]
    return f"If the model needs none of them, leave them out: {ignoring(unexpected, used)}"


def _shape(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{'×'.join(map(str, tensor.shape)) or 'a number'}{kind}"


def _tensors(names: Collection[str]) -> str:
    return f"{len(names):,} tensor{'s' * (len(names) != 1)}"


def _sample(names: Collection[str]) -> str:
    return listed(list(names), 3)
