"""What timm knows of its pretrained classifiers: input, statistics, evaluation and classes."""

from __future__ import annotations

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from convrun.errors import ModelError
from convrun.weights.facts import ModelFacts
from convrun.weights.hub import timm_config


def timm_facts(name: str) -> ModelFacts:
    """Those of `convnext_tiny.fb_in1k`, or without a tag of the default weights; classes are named by their synsets.

    Raises:
        CheckpointError: timm has no such weights.
        ModelError: they classify nothing, or are evaluated as convrun does not.
    """
    config, plain = timm_config(name), name.partition(".")[0]
    if not config.num_classes:
        raise ModelError(f"timm:{name} has no classifier; train one from it: init={{from: timm:{name}, head: reinit}}")
    crop_pct, crop_mode = config.test_crop_pct or config.crop_pct, config.crop_mode
    if crop_mode not in ("center", "squash") or (crop_mode == "squash" and crop_pct != 1) or crop_pct > 1:
        raise ModelError(
            f"timm:{name} is evaluated with crop mode {crop_mode} at {crop_pct}, which convrun does not do"
        )
    size = (config.test_input_size or config.input_size)[-1]
    count = config.num_classes
    subset = infer_imagenet_subset({"num_classes": count})
    info = ImageNetInfo(subset) if subset else None
    names = [info.index_to_label_name(i) if info else f"class {i}" for i in range(count)]
    return ModelFacts(
        model={"name": f"timm/{plain}"},
        class_names=tuple(names),
        num_classes=count,
        input_size=size,
        mean=tuple(config.mean),
        std=tuple(config.std),
        crop_ratio=None if crop_mode == "squash" else crop_pct,
        interpolation=config.interpolation,
    )
