"""`validate --data`: the data, opened: classes, images, the first problem."""

from __future__ import annotations

from typing import Any

from convrun.errors import DataError
from convrun.plan import Plan


def opened_data(plan: Plan) -> tuple[list[str], dict[str, Any]]:
    """Lines and data about both splits; the first and the last image of each are decoded.

    Raises:
        DataError: the data are missing, not what the recipe says, or one of these images is broken.
    """
    from convrun.training.run import check_counts, open_data

    lines, data, splits = [], {}, open_data(plan.data)
    check_counts(plan, *splits)
    for name, images in zip(("train", "val"), splits, strict=True):
        sizes = [images.load(i)[0].size for i in dict.fromkeys((0, len(images) - 1))] if len(images) else []
        if not sizes and name == "train":
            raise DataError("the train split holds no image")
        if not sizes:
            continue  # a recipe may evaluate nothing
        shown = " and ".join(f"{width} × {height}" for width, height in sizes)
        classes = list(images.class_names)
        lines.append(
            f"{'opened':<12} {name}: {len(images):,} images of {len(classes):,} classes "
            f"({classes[0]} ... {classes[-1]}); first and last are {shown}"
        )
        data[name] = {"images": len(images), "classes": classes}
    return lines, data
