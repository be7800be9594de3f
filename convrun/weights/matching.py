"""Which tensor of a file is which of a model, whatever prefix and layout the file's names have."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from convrun.errors import ModelError
from convrun.text.wording import listed
from convrun.weights.layouts import layouts, renamed
from convrun.weights.tables import TABLES

# Modules that wrap a part of a model and put themselves into its names: torch.compile, FSDP, checkpointing, Fabric.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
OWN_NAMES = "the model's own names"
# What a classifier is called, as the first part of a name.
IS_HEAD = re.compile(r"(\w+_)?(heads?|fc|classifiers?|linear|logits|cls)")
# What training keeps beside a model. The first part of a name that is no tensor of the model:
IS_OF_TRAINING = re.compile(r"\w*(loss|criterion|metric)\w*")
# ... a name without the model's prefix: DINOv3's ConvNeXt has its last norm once more, EUPE's has heads to distil.
IS_OF_RELEASED = re.compile(r"(norms|projectors)\..+")
# ... buffers that earlier versions of timm saved, and compute from the shapes.
IS_COMPUTED = re.compile(r"(.+\.)?(relative_position_index|relative_coords_table|attn_mask)")
# ... the decoder of a masked autoencoder, where there is a mask.
MASK, IS_DECODER = "mask_token", re.compile(r"(decoder|proj|pred)\..+|mask_token")


@dataclasses.dataclass
class Match:
    """The tensors of a file, each under the name it has in convrun's layout.

    Attributes:
        layout: of the file's names, in words.
        prefix: what stood before each of these names.
        tensors: convrun's name -> the tensor, in convrun's axes; also those that the model has not.
        origins: convrun's name -> the file's.
        outside: the file's tensors without the prefix, under the file's names.
    """

    layout: str
    prefix: str
    tensors: dict[str, Tensor]
    origins: dict[str, str]
    outside: dict[str, Tensor]

    def rest(self, own: Collection[str]) -> dict[str, Tensor]:
        """The file's tensors that are none of the model's, under the file's names."""
        inside = {self.origins[name]: tensor for name, tensor in self.tensors.items() if name not in own}
        return inside | self.outside

    def within(self, raw: str) -> str:
        """A name of the file without what it shares with the model's prefix: `model.fc.bias` beside `model.net.`."""
        parts, prefix = plain_name(raw).split("."), self.prefix.split(".")
        shared = 0
        while shared < len(parts) - 1 and parts[shared] == prefix[shared] != "":
            shared += 1
        return ".".join(parts[shared:])

    def is_of_head(self, raw: str) -> bool:
        """Whether a tensor of the file has a classifier's name, as far as one can tell."""
        return IS_HEAD.fullmatch(self.within(raw).partition(".")[0]) is not None

    def take_head(self, head: Mapping[str, Tensor], own: Collection[str]) -> str:
        """Takes a classifier of another name for the model's, if there is exactly one of its shapes; its name."""
        if not head or any(name in self.tensors for name in head):
            return ""
        ours = {_part(name): tensor for name, tensor in head.items()}
        found = {
            layer: tensors
            for layer, tensors in _by_layer(self.rest(own)).items()
            if self.is_of_head(f"{layer}.")
            and tensors.keys() == ours.keys()
            and all(essential_shape(tensors[part]) == essential_shape(tensor) for part, tensor in ours.items())
        }
        if len(found) != 1:
            return ""
        ((layer, tensors),) = found.items()
        raws = {f"{layer}.{part}" for part in tensors}
        self.outside = {raw: tensor for raw, tensor in self.outside.items() if raw not in raws}
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if self.origins[name] not in raws}
        for name in head:
            self.tensors[name], self.origins[name] = tensors[_part(name)], f"{layer}.{_part(name)}"
        return layer


def matched(state: Mapping[str, Tensor], own: Mapping[str, Tensor], body: Collection[str]) -> Match:
    """The prefix and the layout by which most of a model's tensors are in a file.

    Args:
        state: the file's tensors.
        own: the model's.
        body: names of the model's tensors that the file must have: all but the head.

    Raises:
        ModelError: not even half of them are there, or they are there twice.
    """
    half = min(len(body), len(state)) / 2  # of the smaller one: that it is another depth is for the caller to say
    candidates = [c for prefix in _prefixes(state, half) for c in _candidates(state, prefix, body)]
    counts = [sum(name in candidate.tensors for name in body) for candidate in candidates]
    if max(counts, default=0) <= half:
        raise ModelError(
            f"the tensors' names are of no layout convrun knows ({listed(layouts())}); they begin with "
            f"{listed(list(state), 3)}; the model's begin with {listed(list(own), 3)}"
        )
    best = [c for c, count in zip(candidates, counts, strict=True) if count == max(counts)]
    fitting = [c for c in best if all(_fits(c, name, own) for name in body if name in c.tensors)]
    first = next(name for name in body if name in best[0].tensors)
    if len(places := list(dict.fromkeys(c.origins[first] for c in fitting if first in c.origins))) > 1:
        cures = [f"'init.ignore=[\"{c.prefix}*\"]'" for c in fitting if c.prefix]
        cure = f"leave one out: {' or '.join(dict.fromkeys(cures))}"
        raise ModelError(f"it holds the model {len(places)} times ({listed(places)}); {cure}")
    # A layout may hold the head behind another prefix than the rest.
    return max(fitting or best, key=lambda match: sum(name in match.tensors for name in own))


def plain_name(raw: str) -> str:
    """A name without the modules that wrap parts of a model."""
    return ".".join(part for part in raw.split(".") if part not in WRAPPERS)


def essential_shape(tensor: Tensor) -> tuple[bool, list[int]]:
    """What must agree: axes of length 1 come and go (1x1 convolutions for linear layers), order and sizes do not."""
    return tensor.is_floating_point(), [size for size in tensor.shape if size != 1]


def is_counter(tensor: Tensor) -> bool:
    """Whether it counts something: a batch norm's batches, the updates of an average."""
    return tensor.ndim == 0 and not tensor.is_floating_point()


def is_known_extra(match: Match, raw: str, rest: Mapping[str, Tensor], is_new_head: bool) -> bool:
    """Whether a tensor that is none of the model's is known to be of no use to it.

    Args:
        match: how the file's names were read.
        raw: its name in the file.
        rest: all such tensors.
        is_new_head: whether the model's head is made new, so that none of the file's is of use.
    """
    name = match.within(raw)
    first = name.partition(".")[0]
    if is_counter(rest[raw]) or (is_new_head and match.is_of_head(raw)):
        return True
    if MASK in {match.within(other) for other in rest} and IS_DECODER.fullmatch(name):
        return True
    return any(
        pattern.fullmatch(text)
        for pattern, text in ((IS_OF_TRAINING, first), (IS_OF_RELEASED, name), (IS_COMPUTED, name))
    )


def ignoring(unwanted: Iterable[str], wanted: Collection[str]) -> str:
    """The override that leaves out all unwanted names and none of those wanted, to paste into a shell."""
    patterns: dict[str, None] = {}
    for name in unwanted:
        parts = name.split(".")
        parents = (".".join(parts[:count]) for count in range(1, len(parts)))
        free = (parent for parent in parents if not any(other.startswith(f"{parent}.") for other in wanted))
        parent = next(free, None)
        pattern = re.sub(r"([*?[])", r"[\1]", parent or name)
        patterns[pattern if parent is None else f"{pattern}.*"] = None
    return f"'init.ignore={json.dumps(list(patterns))}'"


def _prefixes(state: Collection[str], least: float) -> list[str]:
    """What stands, up to a dot, before at least so many names; the shortest first."""
    counts: Counter[str] = Counter()
    for raw in state:
        name = plain_name(raw)
        counts.update(name[: match.end()] for match in re.finditer(r"\.|^", name))
    return sorted((prefix for prefix, count in counts.items() if count >= least), key=len)


def _candidates(state: Mapping[str, Tensor], prefix: str, body: Collection[str]) -> Iterable[Match]:
    """The readings of the names behind a prefix; only the model's own names where they hold all."""
    inside: dict[str, Tensor] = {}
    raws: dict[str, str] = {}
    outside: dict[str, Tensor] = {}
    for raw, tensor in state.items():
        name = plain_name(raw)
        if not name.startswith(prefix):
            outside[raw] = tensor
            continue
        name = name.removeprefix(prefix)
        if name in raws:
            raise ModelError(f"{raws[name]} and {raw} are the same tensor of a model; leave one out with init.ignore")
        inside[name], raws[name] = tensor, raw
    yield Match(OWN_NAMES, prefix, dict(inside), dict(raws), dict(outside))
    if all(name in inside for name in body):
        return
    for table in TABLES:
        try:
            found = renamed(inside, table)
        except ModelError:
            continue  # names of two layouts in one file: another reading may fit
        tensors = {ours: tensor for ours, (_, tensor) in found.items()}
        origins = {ours: raws[theirs] for ours, (theirs, _) in found.items()}
        yield Match(f"{table.layout} layout", prefix, tensors, origins, dict(outside))


def _fits(match: Match, name: str, own: Mapping[str, Tensor]) -> bool:
    return essential_shape(match.tensors[name]) == essential_shape(own[name])


def _part(name: str) -> str:
    return name.rpartition(".")[2]


def _by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor
    return layers
