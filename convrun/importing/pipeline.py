"""Augmentations, mixing and label smoothing: the flags that the released code and timm's train.py share by name."""

from __future__ import annotations

from convrun.augment.policy import parse_policy
from convrun.errors import KeyProblem
from convrun.importing.translation import Translation

_WARPS = ("bicubic", "bilinear", "nearest")


def put_policy(t: Translation, interpolation: str) -> None:
    """RandAugment, or the colour jitter that only works without it."""
    policy = t.given["aa"]
    if not policy:
        _put_color_jitter(t)
        return
    t.no_effect("color_jitter", "the script jitters colours only where --aa is empty")
    try:
        parse_policy(policy)
    except KeyProblem as error:
        message = str(error)
        if not policy.startswith("rand"):
            message = "convrun has RandAugment (rand-m9-mstd0.5-inc1) and trivial_augment, not this policy"
        t.refuse("aa", message)
        return
    if interpolation not in _WARPS:
        t.refuse("train_interpolation", f"RandAugment warps with {', '.join(_WARPS)} only")
        return
    item = t.draft.item("augmentations", "rand_augment")
    t.put(f"{item}.policy", "aa")
    t.put(f"{item}.interpolation", "train_interpolation", interpolation)


def _put_color_jitter(t: Translation) -> None:
    amount = t.given["color_jitter"]
    t.no_effect("aa", "an empty policy is no policy")
    if not amount:
        t.no_effect("color_jitter", "0 is off")
        return
    item = t.draft.item("augmentations", "color_jitter")
    for key in ("brightness", "contrast", "saturation"):
        t.put(f"{item}.{key}", "color_jitter")


def put_erasing(t: Translation) -> None:
    """Random erasing."""
    probability, count = t.given["reprob"], t.given["recount"]
    if probability <= 0:
        t.no_effect("reprob", "0 is off")
        t.no_effect("remode", "nothing is erased: --reprob is 0")
        t.no_effect("recount", "nothing is erased: --reprob is 0")
        return
    if count > 1:
        why = f"timm erases a random number of rectangles from 1 to {count}, convrun always the same number; use 1"
        t.refuse("recount", why)
    item = t.draft.item("augmentations", "random_erasing")
    t.put(f"{item}.probability", "reprob")
    t.put(f"{item}.mode", "remode")
    t.put(f"{item}.count", "recount")


def put_mixing(t: Translation) -> None:
    """Mixup and CutMix."""
    given = t.given
    mixup, cutmix = max(given["mixup"], 0.0), max(given["cutmix"], 0.0)
    options = ("mixup_prob", "mixup_switch_prob", "mixup_mode")
    if given["cutmix_minmax"] is not None:
        t.refuse("cutmix_minmax", "convrun draws CutMix's box from Beta(alpha, alpha) only; use --cutmix")
    if mixup == cutmix == 0:
        for dest in ("mixup", "cutmix"):
            t.no_effect(dest, "0 is off")
        for dest in options:
            t.no_effect(dest, "--mixup and --cutmix are 0, so nothing is mixed")
        return
    if given["mixup_mode"] != "batch":
        t.refuse("mixup_mode", "convrun mixes a micro-batch as one, which is the mode batch")
    if given["mixup_prob"] <= 0:
        for dest in ("mixup", "cutmix", *options):
            t.no_effect(dest, "with --mixup_prob 0 nothing is mixed; labels are smoothed all the same")
        return
    mixup, cutmix = _switched(t, mixup, cutmix)
    item = t.draft.item("augmentations", "mixup_cutmix")
    t.put(f"{item}.mixup_alpha", "mixup", mixup)
    t.put(f"{item}.cutmix_alpha", "cutmix", cutmix)
    t.put(f"{item}.probability", "mixup_prob")
    if mixup and cutmix:
        t.put(f"{item}.switch_probability", "mixup_switch_prob")
    t.no_effect("mixup_mode", "batch is convrun's way")


def _switched(t: Translation, mixup: float, cutmix: float) -> tuple[float, float]:
    """The two alphas, one of them 0 where the switch never falls its way."""
    chance = t.given["mixup_switch_prob"]
    if not (mixup and cutmix):
        t.no_effect("mixup_switch_prob", "only one of --mixup and --cutmix is on")
    elif chance <= 0:
        t.no_effect("cutmix", "--mixup_switch_prob 0 never chooses CutMix")
        return mixup, 0.0
    elif chance >= 1:
        t.no_effect("mixup", "--mixup_switch_prob 1 always chooses CutMix")
        return 0.0, cutmix
    return mixup, cutmix


def is_mixing(t: Translation) -> bool:
    """Whether the script builds its mixing, with a probability of 0 even."""
    given = t.given
    return bool(given["mixup"] > 0 or given["cutmix"] > 0 or given["cutmix_minmax"] is not None)
