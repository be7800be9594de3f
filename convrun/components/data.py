"""The data sets a recipe can name. Nothing heavy is imported here: the plan asks for a set's facts without torch."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convrun.contracts.data import DataFacts, NumClasses, TrainImages, ValImages, WrittenGreyRange
from convrun.errors import DataError, KeyProblem
from convrun.keys import NonNegativeInt, PositiveInt
from convrun.registry import register

if TYPE_CHECKING:
    from convrun.contracts.data import ImageSet
    from convrun.data.sets.image_folder import FolderScan
    from convrun.data.sets.parquet_scan import Split

Patterns = str | tuple[str, ...]
DIGITS = Path(__file__).parents[1] / "assets" / "digits.npz"


def check_declared(where: str, found: DataFacts, **declared: int | None) -> None:
    """Compares the numbers a recipe declares (None: not declared) with those found.

    Args:
        where: the data set, for the message.
        found: the numbers found.
        declared: any of the names of `DataFacts`.

    Raises:
        DataError: with every disagreement, and the overrides that make the recipe right.
    """
    numbers = {field.name: getattr(found, field.name) for field in fields(found)}
    wrong = [
        f"{name} is {declared[name]}, found {number}"
        for name, number in numbers.items()
        if declared.get(name) not in (None, number)
    ]
    if wrong:
        cure = " ".join(f"data.{name}={number}" for name, number in numbers.items())
        raise DataError(f"{where} is not what the recipe declares: {'; '.join(wrong)}; check the data, or set {cure}")


def _need(key: str, path: str) -> None:
    if not path.strip():
        raise KeyProblem(key, "is empty", f"set data.{key}={'FOLDER' if key == 'root' else 'FILE'}")


def _checked_range(grey_range: WrittenGreyRange) -> tuple[float, float] | None:
    if grey_range == "auto":
        return None
    black, white = grey_range
    if not black < white:
        raise KeyProblem("grey_range", f"[{black:g}, {white:g}] is no range", "write [BLACK, WHITE], the lower first")
    return black, white


def _declared(keys: dict[str, Any]) -> DataFacts | None:
    """The numbers that a recipe declares, if it declares all of them."""
    numbers = [keys[field.name] for field in fields(DataFacts)]
    return None if None in numbers else DataFacts(*numbers)


def _without_val(keys: dict[str, Any], key: str) -> dict[str, Any]:
    """Keys that declare no validation images, if `key` is null; a KeyProblem if they declare some."""
    if keys[key] is not None:
        return keys
    if keys["val_images"]:
        raise KeyProblem("val_images", f"there are none where {key} is null", "remove it")
    return {**keys, "val_images": 0}


# Image folders ------------------------------------------------------------------------------------------------------


def image_folder_facts(*, grey_range: Any = "auto", **keys: Any) -> DataFacts:
    """The declared numbers if all three are there, without a look at the disk; else what the folders hold."""
    _need("root", keys["root"])
    _checked_range(grey_range)
    return _declared(_without_val(keys, "val_folder")) or measure_image_folder(**keys)


def measure_image_folder(*, grey_range: Any = "auto", **keys: Any) -> DataFacts:
    """What the folders hold; a DataError if the recipe declares something else."""
    _need("root", keys["root"])
    return _scanned_folders(**keys)[0]


def _scanned_folders(
    root: str, train_folder: str, val_folder: str | None, **declared: int | None
) -> tuple[DataFacts, dict[str, FolderScan]]:
    from convrun.data.sets.image_folder import check_class_folders, scan_tree

    train, val = scan_tree(root, train_folder, val_folder)
    check_class_folders(train, root, train_folder, val_folder)
    found = DataFacts(len(train.class_names), len(train), len(val))
    try:
        check_declared(root, found, **declared)
    except DataError as error:  # what is passed over may be what was counted when the numbers were written down
        raise DataError(". ".join([str(error), *train.notes, *val.notes])) from None
    return found, {"train": train, "val": val}


@register("data", "image_folder", facts=image_folder_facts, measure=measure_image_folder)
def image_folder(
    split: str,
    *,
    root: str,
    num_classes: NumClasses = None,
    train_images: TrainImages = None,
    val_images: ValImages = None,
    train_folder: str = "train",
    val_folder: str | None = "val",
    grey_range: WrittenGreyRange = "auto",
) -> ImageSet:
    """Image files in one folder a class: ROOT/train/CLASS/**/*.jpg (.png, .webp, ...) and ROOT/val/CLASS/**/*.jpg.

    root: the folder that holds the train and val folders
    train_folder: name of the folder of training images, below root; `.` is root itself
    val_folder: name of the folder of validation images, below root; null: there are none, so evaluation must be off
    """
    from convrun.data.sets.image_folder import ImageFolder

    declared = {"num_classes": num_classes, "train_images": train_images, "val_images": val_images}
    _, scans = _scanned_folders(root, train_folder, val_folder, **declared)
    return ImageFolder(scans[split], _checked_range(grey_range))


# One file -----------------------------------------------------------------------------------------------------------


def npz_facts(**keys: Any) -> DataFacts:
    """The declared numbers if all three are there; else what the file holds."""
    _need("path", keys["path"])
    return _declared(_without_val(keys, "val")) or measure_npz(**keys)


def measure_npz(path: str, val: str | None = "val", **declared: int | None) -> DataFacts:
    """What the file's labels say (this imports numpy); a DataError if the recipe declares something else."""
    from convrun.data.sets.npz import scan_npz

    _need("path", path)
    scan = scan_npz(path, val, declared["num_classes"])
    found = DataFacts(len(scan.class_names), len(scan.labels["train"]), len(scan.labels["val"]))
    check_declared(path, found, **declared)
    return found


@register("data", "npz", facts=npz_facts, measure=measure_npz)
def npz(
    split: str,
    *,
    path: str,
    val: str | None = "val",
    num_classes: NumClasses = None,
    train_images: TrainImages = None,
    val_images: ValImages = None,
) -> ImageSet:
    """A MedMNIST-style .npz file, held in memory: train_images, train_labels, val_images, val_labels (, class_names).

    path: the file; images are uint8 [n, h, w] or [n, h, w, 3], labels integers [n] or [n, 1]; where it has no
        class_names, num_classes may be more than the labels show
    val: the arrays of validation images: val names val_images and val_labels, test the test images' test_images and
        test_labels; null for none, and evaluation null as well
    """
    from convrun.data.sets.npz import NpzImages

    measure_npz(path=path, val=val, num_classes=num_classes, train_images=train_images, val_images=val_images)
    return NpzImages(path, split, val=val, num_classes=num_classes)


def digits_facts() -> DataFacts:
    """Constants: the file comes with convrun."""
    return DataFacts(10, 1438, 359)


@register("data", "digits", facts=digits_facts)
def digits(split: str) -> ImageSet:
    """Handwritten digits, 8×8 pixels, that come with convrun (Alpaydin and Kaynak, UCI): for a first run, offline."""
    from convrun.data.sets.npz import NpzImages

    return NpzImages(str(DIGITS), split, name=DIGITS.name)


# Parquet ------------------------------------------------------------------------------------------------------------


def parquet_facts(*, grey_range: Any = "auto", **keys: Any) -> DataFacts:
    """The declared numbers if all three are there, without a look at the disk; else what the files hold."""
    _need("root", keys["root"])
    _checked_range(grey_range)
    return _declared(_without_val(keys, "val")) or measure_parquet(**keys)


def measure_parquet(*, grey_range: Any = "auto", **keys: Any) -> DataFacts:
    """What the files' labels and metadata say (this imports pyarrow); a DataError if the recipe declares otherwise."""
    _need("root", keys["root"])
    return _scanned_parquet(**{name: value for name, value in keys.items() if name != "cache"})[0]


def _scanned_parquet(
    root: str, train: Patterns, val: Patterns | None, image_column: str, label_column: str, **declared: int | None
) -> tuple[DataFacts, dict[str, Split]]:
    from convrun.data.sets.parquet_scan import scan_splits

    splits = scan_splits(root, train, val, image_column, label_column, declared["num_classes"])
    found = DataFacts(len(splits["train"].class_names), len(splits["train"]), len(splits["val"]))
    check_declared(root, found, **declared)
    return found, splits


@register("data", "parquet", facts=parquet_facts, measure=measure_parquet)
def parquet(
    split: str,
    *,
    root: str,
    train: Patterns = "data/train-*.parquet",
    val: Patterns | None = "data/validation-*.parquet",
    image_column: str = "auto",
    label_column: str = "auto",
    num_classes: NumClasses = None,
    train_images: TrainImages = None,
    val_images: ValImages = None,
    cache: bool = True,
    grey_range: WrittenGreyRange = "auto",
) -> ImageSet:
    """Parquet files that hold encoded images and labels, as image data sets on the Hugging Face hub do.

    root: the folder that holds the files, a downloaded data set's own
    train: the files of training images: a path or pattern below root (data/train-*.parquet), or a list of them
    val: the files of validation images, likewise; data/test-*.parquet evaluates on the test images; null: the data have
        none, and evaluation must be null
    image_column: the column of images, bytes or a struct with a field `bytes`; auto: image, else the only one that
        plainly is it (img, pixel_values, ...)
    label_column: the column of labels, whole numbers from 0 or words; auto: label, else the only one that plainly is
        it (labels, class, category, fine_label, ...). Classes have the names in the files' metadata, or the words,
        sorted; where there are numbers alone, num_classes may be more than they show
    cache: copy the images once, where any can be read alone, to $CONVRUN_CACHE (else $XDG_CACHE_HOME/convrun, else
        ~/.cache/convrun); it takes the disk space of the files again. false: read the hundred around each, slowly
    """
    from convrun.data.sets.parquet import ParquetImages
    from convrun.data.sets.parquet_paths import pattern_notes

    declared = {"num_classes": num_classes, "train_images": train_images, "val_images": val_images}
    _, splits = _scanned_parquet(root, train, val, image_column, label_column, **declared)
    notes = pattern_notes(root, split, {"train": train, "val": val}[split])
    return ParquetImages(splits[split], cache=cache, grey_range=_checked_range(grey_range), notes=notes)


# CIFAR --------------------------------------------------------------------------------------------------------------


def _cifar_facts(num_classes: int, root: str, download: bool) -> DataFacts:
    """As published."""
    _need("root", root)
    return DataFacts(num_classes, 50_000, 10_000)


@register("data", "cifar10", facts=partial(_cifar_facts, 10))
def cifar10(split: str, *, root: str, download: bool = False) -> ImageSet:
    """CIFAR-10 (Krizhevsky, 2009): 32×32 images; the published test set serves as val.

    root: the folder that holds cifar-10-batches-py; only files with the published MD5 are opened
    download: fetch the files (170 MB) when the run starts if they are not there
    """
    from convrun.data.sets.cifar import CifarImages

    return CifarImages("cifar10", root, split, download=download)


@register("data", "cifar100", facts=partial(_cifar_facts, 100))
def cifar100(split: str, *, root: str, download: bool = False) -> ImageSet:
    """CIFAR-100 (Krizhevsky, 2009), fine labels: 32×32 images; the published test set serves as val.

    root: the folder that holds cifar-100-python; only files with the published MD5 are opened
    download: fetch the files (169 MB) when the run starts if they are not there
    """
    from convrun.data.sets.cifar import CifarImages

    return CifarImages("cifar100", root, split, download=download)


# Made up ------------------------------------------------------------------------------------------------------------


def synthetic_facts(**keys: Any) -> DataFacts:
    """The keys' own numbers."""
    if keys["num_classes"] > keys["train_images"]:
        raise KeyProblem("num_classes", "is more than train_images, so some class would have no image", "lower it")
    return DataFacts(keys["num_classes"], keys["train_images"], keys["val_images"])


@register("data", "synthetic", facts=synthetic_facts)
def synthetic(
    split: str,
    *,
    train_images: PositiveInt = 1000,
    val_images: NonNegativeInt = 200,
    num_classes: PositiveInt = 10,
    image_size: PositiveInt = 32,
) -> ImageSet:
    """Made-up images, a coloured pattern for each class under noise: for trying things out and for timing.

    train_images: how many training images are made
    val_images: how many validation images are made
    num_classes: how many classes they show
    image_size: height and width in pixels
    """
    from convrun.data.sets.synthetic import SyntheticImages

    return SyntheticImages(split, {"train": train_images, "val": val_images}[split], num_classes, image_size)
