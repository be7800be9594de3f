"""`validate --data`: the data, opened: classes, images, the first problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convrun.contracts.data import notes_of
from convrun.errors import DataError
from convrun.plan import Plan

if TYPE_CHECKING:
    from PIL import Image

    from convrun.data.skipped import SkippedImage


def _shown(found: tuple[Image.Image, int] | SkippedImage) -> str:
    if isinstance(found, tuple):
        return f"{found[0].width} × {found[0].height}"
    return f"skipped ({found.place}: {found.reason})"


def opened_data(plan: Plan) -> tuple[list[str], dict[str, Any]]:
    """Lines and data about both splits; the first and the last image of each are decoded.

    Raises:
        DataError: the data are missing, not what the recipe says, or one of these images is broken.
    """
    from convrun.data.sample import Images, Tolerance
    from convrun.training.run import check_counts, open_data

    lines, data, splits, settings = [], {}, open_data(plan.data), plan.data.settings
    check_counts(plan, *splits)
    for name, images in zip(("train", "val"), splits, strict=True):
        opened = Images(images, name, Tolerance(settings.retries, settings.bad_images == "skip", None))
        found = [opened.load(i) for i in dict.fromkeys((0, len(images) - 1))] if len(images) else []
        if not found and name == "train":
            raise DataError("the train split holds no image")
        if not found:
            continue  # a recipe may evaluate nothing
        notes = notes_of(images)
        shown = " and ".join(_shown(image) for image in found)
        classes = list(images.class_names)
        lines.append(
            f"{'opened':<12} {name}: {len(images):,} images of {len(classes):,} classes "
            f"({classes[0]} ... {classes[-1]}); first and last are {shown}"
        )
        lines += [f"{'note':<12} {line}" for line in notes]
        data[name] = {"images": len(images), "classes": classes, "notes": notes}
    return lines, data
