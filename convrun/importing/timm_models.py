"""timm's model names -> convrun's, their pretrained weights, and timm's configuration of each model."""

from __future__ import annotations

import dataclasses
import re

from convrun.importing.translation import Translation
from convrun.models.shapes import SMALLER, V1, V2

OWN_MODELS = (*V1, *(f"convnext_{size}" for size in SMALLER), *(f"convnextv2_{size}" for size in V2))
# The weights timm means by a bare name (timm 1.0), for the names convrun has.
DEFAULT_TAGS = {
    "convnext_tiny": "in12k_ft_in1k",
    "convnext_small": "in12k_ft_in1k",
    "convnext_base": "fb_in22k_ft_in1k",
    "convnext_large": "fb_in22k_ft_in1k",
    "convnext_xlarge": "fb_in22k_ft_in1k",
    "convnext_atto": "d2_in1k",
    "convnext_femto": "d1_in1k",
    "convnext_pico": "d1_in1k",
    "convnext_nano": "in12k_ft_in1k",
    "convnextv2_atto": "fcmae_ft_in1k",
    "convnextv2_femto": "fcmae_ft_in1k",
    "convnextv2_pico": "fcmae_ft_in1k",
    "convnextv2_nano": "fcmae_ft_in22k_in1k",
    "convnextv2_tiny": "fcmae_ft_in22k_in1k",
    "convnextv2_base": "fcmae_ft_in22k_in1k",
    "convnextv2_large": "fcmae_ft_in22k_in1k",
    "convnextv2_huge": "fcmae_ft_in22k_in1k_384",
}
_CLASSES = {"in1k": 1000, "in22k": 21841, "in12k": 11821}
_CLIP_WIDTH = 640  # of convnext_base, the one model of convrun's that timm has bare CLIP weights for
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """timm's configuration of a model, for what no flag sets.

    Attributes:
        is_known: whether convrun knows the configuration; else these are timm's general defaults.
        size: side of the input in pixels.
        crop: centre crop of the evaluation.
        classes: size of the head; None: unknown.
        statistics: mean and deviation where they are not ImageNet's.
    """

    is_known: bool = False
    size: int = 224
    crop: float = 0.875
    classes: int | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def pretrained_config(model: str) -> Pretrained:
    """Timm's configuration of a ConvNeXt, derived from the parts of its tag; a test compares it with timm's own."""
    name, _, tag = model.partition(".")
    tag = tag or DEFAULT_TAGS.get(name, "")
    parts = tag.split("_")
    is_clip, is_masked = parts[0] == "clip", parts == ["fcmae"]
    trained = [_CLASSES[part] for part in parts if part in _CLASSES]
    if name not in OWN_MODELS or not (trained or is_clip or is_masked):
        return Pretrained()
    classes = trained[-1] if trained else _CLIP_WIDTH if is_clip else 0
    side = re.search(r"_r?(\d{3})(_|$)", f"_{tag}")
    if side or is_clip:
        return Pretrained(True, int(side[1]) if side else 256, 1.0, classes, _CLIP if is_clip else None)
    is_wide = parts[0] == "in12k" or tag.endswith("h_in1k")
    return Pretrained(True, 224, 0.95 if is_wide else 0.875, classes)


def put_model(t: Translation) -> Pretrained:
    """The model and its weights; returns what timm's configuration of it says."""
    given, model = t.given, t.given["model"]
    config = pretrained_config(model)
    bare = model.partition(".")[0]
    if ":" in model or "/" in model:
        t.refuse(
            "model", "convrun has timm's models by name, and their weights by init.from (timm:NAME, hf:OWNER/NAME)"
        )
    options = dict(given["model_kwargs"])
    is_own = bare in OWN_MODELS and not options
    t.put("model.name", "model", bare if is_own else f"timm/{bare}")
    if given["drop_path"] is not None:
        t.put("model.drop_path_rate", "drop_path")
    t.put("model.drop_rate", "drop")
    if options:
        t.put("model.options", "model_kwargs", options)
    classes = given["num_classes"]
    if classes is None:
        note = "the model's own; remove it where the data have fewer classes and the head should too"
        t.put("model.num_classes", "num_classes", config.classes or 1000, note)
    else:
        t.put("model.num_classes", "num_classes")
    _put_weights(t, config, classes)
    return config


def _put_weights(t: Translation, config: Pretrained, classes: int | None) -> None:
    given = t.given
    if given["pretrained_path"]:
        t.put("init.from", "pretrained_path")
        t.no_effect("pretrained", "--pretrained-path says where the weights are")
        _put_head(t, "pretrained_path", "reinit", "timm makes a new head for such weights")
    elif given["initial_checkpoint"]:
        t.put("init.from", "initial_checkpoint")
        t.no_effect("pretrained", "--initial-checkpoint is loaded over these weights")
        text = "train.py takes the EMA weights of --initial-checkpoint if it holds any: init.weights=ema"
        t.draft.differs.append(text)
        _put_head(t, "initial_checkpoint", "keep", "")
    elif given["pretrained"]:
        model = given["model"]
        tag = "" if "." in model or model not in DEFAULT_TAGS else f".{DEFAULT_TAGS[model]}"
        t.put("init.from", "pretrained", f"timm:{model}{tag}", "what timm means by the bare name" if tag else "")
        wanted = classes or config.classes or 1000
        is_same = wanted == config.classes or (classes is None and config.classes is None)
        why = "the classes are the same" if is_same else f"{wanted} classes, the weights have {config.classes}"
        if config.classes is None:
            why = "the number of classes of the weights is unknown; init.head=keep loads their head"
        _put_head(t, "pretrained", "keep" if is_same else "reinit", why)
    elif given["head_init_scale"] not in (None, 1.0):
        t.put("init.head_init_scale", "head_init_scale")
    else:
        t.no_effect("head_init_scale", "1 leaves the head as it is")


def _put_head(t: Translation, dest: str, head: str, why: str) -> None:
    head = t.head or head
    t.put("init.head", dest, head, "as you said" if t.head else why)
    scale = t.given["head_init_scale"]
    if scale in (None, 1.0):
        t.no_effect("head_init_scale", "1 leaves the head as it is")
    elif head == "reinit":
        t.put("init.head_init_scale", "head_init_scale")
    else:
        t.refuse("head_init_scale", "train.py scales the loaded head; convrun scales new ones only")
