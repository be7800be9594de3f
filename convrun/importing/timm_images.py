"""timm's train.py: the data, what happens to training images, the loss, and how validation images are evaluated."""

from __future__ import annotations

from convrun.importing.pipeline import is_mixing, put_erasing, put_mixing, put_policy
from convrun.importing.timm_models import Pretrained
from convrun.importing.translation import Translation

_FOLDERS = ("", "folder", "image_folder", "torch/image_folder", "torch/folder", "torch/imagenet")
_TRAIN_NAMES = ("train", "training")
_VAL_NAMES = ("val", "valid", "validation", "eval", "evaluation")
_FILTERS = ("bicubic", "bilinear", "nearest", "lanczos")


def put_data(t: Translation, config: Pretrained) -> None:
    """The data, their size and statistics."""
    given, name = t.given, t.given["dataset"].lower()
    root = given["data_dir"] or "${env:IMAGENET_DIR:imagenet}"
    if name in _FOLDERS:
        t.put("data.name", "dataset", "image_folder")
        t.put("data.root", "data_dir", root)
        _put_splits(t)
        t.no_effect("dataset_download", "folders of images are not downloaded")
    elif name in ("torch/cifar10", "torch/cifar100"):
        t.put("data.name", "dataset", name.partition("/")[2])
        t.put("data.root", "data_dir", root)
        t.put("data.download", "dataset_download")
        for dest in ("train_split", "val_split"):
            t.no_effect(dest, "CIFAR's own splits")
    else:
        t.refuse("dataset", "convrun reads folders of images and CIFAR; convrun list components --kind data")
    if given["input_img_mode"] not in (None, "RGB"):
        t.refuse("input_img_mode", "convrun's images are RGB")
    t.no_effect("input_img_mode", "RGB is convrun's way")
    _put_size(t, config)
    for i, (dest, key) in enumerate((("mean", "data.mean"), ("std", "data.std"))):
        if given[dest] is not None:
            values = given[dest] * 3 if len(given[dest]) == 1 else given[dest]
            t.put(key, dest, values)
        elif config.statistics:
            t.put(key, dest, list(config.statistics[i]), "the model's")


def _put_splits(t: Translation) -> None:
    train, val = t.given["train_split"], t.given["val_split"]
    for dest, split in (("train_split", train), ("val_split", val)):
        if "[" in split:
            t.refuse(dest, "convrun takes a whole folder")
    t.put("data.train_folder", "train_split", "train" if train in _TRAIN_NAMES else train)
    if not val:
        t.put("data.val_folder", "val_split", None)
        return
    note = "train.py looks for validation, val or valid; name yours" if val in _VAL_NAMES else ""
    t.put("data.val_folder", "val_split", "val" if val in _VAL_NAMES else val, note)


def _put_size(t: Translation, config: Pretrained) -> None:
    given = t.given
    if given["in_chans"] not in (None, 3):
        t.refuse("in_chans", "convrun's images have 3 channels")
    t.no_effect("in_chans", "convrun's images have 3 channels")
    if given["input_size"] is not None:
        channels, height, width = given["input_size"]
        if channels != 3 or height != width:
            t.refuse("input_size", "convrun's images are square and have 3 channels")
        t.put("input_size", "input_size", width)
        t.no_effect("img_size", "--input-size has precedence")
    elif given["img_size"] is not None:
        t.put("input_size", "img_size")
    else:
        t.put("input_size", "img_size", config.size, "the model's")
    told = [given[dest] is not None for dest in ("img_size", "crop_pct", "mean", "std")]
    if not config.is_known and not (all(told) and given["interpolation"]):
        t.draft.differs.append(
            f"train.py takes input size, crop, mean, deviation and interpolation from timm's configuration of "
            f"{given['model']}, which convrun import does not know; where no flag says otherwise 224, 0.875, "
            "ImageNet's and bicubic are assumed"
        )


def put_images(t: Translation, config: Pretrained) -> None:
    """What happens to training images."""
    given = t.given
    if given["train_crop_mode"] not in (None, "rrc"):
        t.refuse("train_crop_mode", "convrun has the random resized crop, rrc")
    t.no_effect("train_crop_mode", "rrc is random_resized_crop")
    interpolation = _training_filter(t)
    item = t.draft.item("augmentations", "random_resized_crop")
    for dest in ("scale", "ratio"):
        if len(given[dest]) != 2:
            t.refuse(dest, "two numbers, least and most")
        t.put(f"{item}.{dest}", dest)
    t.put(f"{item}.interpolation", "train_interpolation", interpolation)
    if given["hflip"] > 0:
        t.put(f"{t.draft.item('augmentations', 'horizontal_flip')}.probability", "hflip")
    else:
        t.no_effect("hflip", "0 is off")
    if given["color_jitter_prob"] is not None:
        if given["aa"] or not given["color_jitter"]:
            t.no_effect("color_jitter_prob", "there is no colour jitter")
        else:
            t.refuse("color_jitter_prob", "convrun's colour jitter is applied to every image")
    put_policy(t, interpolation)
    put_erasing(t)
    put_mixing(t)
    if given["reprob"] > 0 and is_mixing(t) and not given["no_prefetcher"]:
        t.draft.differs.append("train.py's prefetcher mixes first, then erases; convrun erases first, then mixes")
    t.no_effect("no_prefetcher", "convrun erases, then mixes, as train.py does without its prefetcher")


def _training_filter(t: Translation) -> str:
    written = t.given["train_interpolation"] or t.given["interpolation"] or "bicubic"
    if written == "random":
        t.draft.differs.append(
            "train.py resizes each training image with bilinear or bicubic at random (--train-interpolation random); "
            "convrun with bicubic"
        )
        return "bicubic"
    if written not in _FILTERS:
        t.refuse("train_interpolation", f"convrun resizes with {', '.join(_FILTERS)}")
        return "bicubic"
    return str(written)


def put_loss(t: Translation) -> None:
    """The loss, with label smoothing in it."""
    given, smoothing = t.given, t.given["smoothing"]
    is_binary = given["bce_loss"] and (is_mixing(t) or smoothing)
    if not is_binary:
        t.draft.set("loss.name", "cross_entropy", "--smoothing", "the default")
        t.put("loss.label_smoothing", "smoothing")
        t.no_effect("bce_loss", "train.py ignores it without mixing and without smoothing")
        for dest in ("bce_sum", "bce_target_thresh"):
            t.no_effect(dest, "the loss is cross-entropy")
        return
    t.put("loss.name", "bce_loss", "binary_cross_entropy")
    t.put("loss.label_smoothing", "smoothing")
    if given["bce_target_thresh"] is not None:
        t.put("loss.target_threshold", "bce_target_thresh")
    t.put("loss.sum_classes", "bce_sum")


def put_evaluation(t: Translation, config: Pretrained) -> None:
    """When and how validation images are evaluated."""
    given = t.given
    if not given["val_split"]:
        t.put("evaluation", "val_split", None, "no split to evaluate")
        for dest in ("val_interval", "crop_pct", "validation_batch_size", "interpolation", "model_ema_force_cpu"):
            t.no_effect(dest, "nothing is evaluated")
        return
    t.put("evaluation.every_epochs", "val_interval")
    if given["model_ema"] and not given["model_ema_force_cpu"]:
        t.put("evaluation.report", "model_ema", "ema")
    elif given["model_ema"]:
        t.put("evaluation.report", "model_ema_force_cpu", "model", "then train.py does not evaluate the EMA")
    else:
        t.put("evaluation.report", "model_ema", "model")
    crop = given["crop_pct"] or config.crop
    t.put("evaluation.crop_ratio", "crop_pct", crop, "" if given["crop_pct"] else "the model's")
    written = given["interpolation"] or "bicubic"
    if written not in _FILTERS:
        t.refuse("interpolation", f"convrun resizes with {', '.join(_FILTERS)}")
    t.put("evaluation.interpolation", "interpolation", written)
    if given["validation_batch_size"]:
        t.put("evaluation.batch_size", "validation_batch_size")
