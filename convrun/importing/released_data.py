"""The released ConvNeXt code's data sets and the weights its fine-tuning starts from."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

from convrun.importing.translation import Translation

# Images of the ImageNet-22K release that has so many classes.
_FALL_2011 = {21841: 14_197_122}


def put_init(t: Translation) -> None:
    """The weights a run starts from, and its head."""
    given, source = t.given, t.given["finetune"]
    if not source:
        for dest in ("finetune", "model_key", "model_prefix"):
            t.no_effect(dest, "without --finetune no weights are loaded")
        if given["head_init_scale"] != 1:
            t.put("init.head_init_scale", "head_init_scale", note="scales the new head of a training from scratch too")
        else:
            t.no_effect("head_init_scale", "1 leaves the head as it is")
        return
    t.put("init.from", "finetune")
    _put_weights(t)
    classes = 100 if given["data_set"] == "CIFAR" else 1000 if given["data_set"] == "IMNET" else given["nb_classes"]
    loaded = classes_of_checkpoint(source)
    head = t.head or ("keep" if loaded in (None, classes) else "reinit")
    scale = given["head_init_scale"]
    if head == "reinit":
        why = "as you said" if t.head else f"the name says {loaded} classes, the data have {classes}"
        t.put("init.head", "finetune", head, why)
        t.put("init.head_init_scale", "head_init_scale")
        return
    why = "as you said" if t.head else f"the name says {classes} classes, as the data" if loaded else "see above"
    t.put("init.head", "finetune", head, why)
    t.no_effect("head_init_scale", "main.py scales the head, then overwrites it with the loaded one")
    if not (t.head or loaded):
        t.draft.hints.append(
            f"main.py keeps the checkpoint's head if it has {classes} classes, else it makes a new one. The command "
            "does not tell, so this recipe keeps it, and the run stops at its start if the classes differ. For a new "
            f"head: init.head=reinit init.head_init_scale={scale:g} (or convrun import --head reinit)"
        )


def _put_weights(t: Translation) -> None:
    keys = t.given["model_key"].split("|")
    if keys[0] == "model_ema":
        t.put("init.weights", "model_key", "ema")
    elif keys[0] in ("model", "module"):
        t.put("init.weights", "model_key", "model")
    else:
        t.refuse("model_key", "convrun finds the weights under model, module or model_ema by itself")
    t.no_effect("model_prefix", "convrun takes a prefix off by itself, whatever it is")


def classes_of_checkpoint(path: str) -> int | None:
    """The number of classes, from a published file's name: ..._22k_224.pth has 21841, ..._22k_1k_224.pth 1000."""
    parts = re.split(r"[_.-]", Path(path).name.lower())
    known = [part for part in parts if part in ("1k", "in1k", "22k", "in22k")]
    if not known:
        return None
    return 1000 if known[-1] in ("1k", "in1k") else 21841


def put_data(t: Translation) -> None:
    """The data set, its folders and its normalisation."""
    given, kind = t.given, t.given["data_set"]
    if kind == "image_folder":
        t.put("data.name", "data_set", "image_folder")
        _put_folders(t)
    elif kind == "CIFAR":
        t.put("data.name", "data_set", "cifar100", "CIFAR is CIFAR-100 there")
        t.put("data.root", "data_path")
        t.put("data.download", "data_set", True, "main.py fetches it")
    else:
        t.put("data.name", "data_set", "image_folder", "ImageNet-1K, in DATA_PATH/train and DATA_PATH/val")
        root = given["data_path"] if given.has("data_path") else "${env:IMAGENET_DIR:imagenet}"
        t.put("data.root", "data_path", root)
        t.put("data.num_classes", "data_set", 1000, "whatever the folders hold; for other data use image_folder")
        t.put("data.train_images", "data_set", 1_281_167)
        t.put("data.val_images", "data_set", 50_000)
    if kind != "image_folder":
        t.no_effect("nb_classes", f"--data_set {kind} has {100 if kind == 'CIFAR' else 1000}")
        t.no_effect("eval_data_path", "main.py reads it for --data_set image_folder only")
    if not given["imagenet_default_mean_and_std"]:
        t.put("data.mean", "imagenet_default_mean_and_std", [0.5, 0.5, 0.5])
        t.put("data.std", "imagenet_default_mean_and_std", [0.5, 0.5, 0.5])
    else:
        t.no_effect("imagenet_default_mean_and_std", "ImageNet's mean and deviation are convrun's defaults")
    if given.has("num_workers"):
        t.put("data.workers", "num_workers")


def _put_folders(t: Translation) -> None:
    """Folders of classes anywhere on the disk, as a root and two folders below it."""
    given = t.given
    train, val = os.path.normpath(given["data_path"]), given["eval_data_path"]
    classes = given["nb_classes"]
    if given["disable_eval"]:
        t.no_effect("eval_data_path", "--disable_eval")
        val = None
    elif val is None:
        t.refuse("data_set", "image_folder evaluates in --eval_data_path, which is missing; or --disable_eval true")
    root = train
    if val is not None:
        val = os.path.normpath(val)
        root = _common_folder(train, val)
        if not root:
            t.refuse("eval_data_path", "it has no folder in common with --data_path; link both into one")
            return
    t.put("data.root", "data_path", root)
    t.put("data.num_classes", "nb_classes")
    if classes in _FALL_2011:
        note = "the fall-2011 release of ImageNet-22K; remove it if yours is another"
        t.put("data.train_images", "nb_classes", _FALL_2011[classes], note)
    t.put("data.train_folder", "data_path", os.path.relpath(train, root))
    if val is None:
        t.put("data.val_folder", "disable_eval", None)
    else:
        t.put("data.val_folder", "eval_data_path", os.path.relpath(val, root))


def _common_folder(a: str, b: str) -> str:
    if Path(a).is_absolute() != Path(b).is_absolute():
        return ""
    return os.path.commonpath([a, b]) or "."
