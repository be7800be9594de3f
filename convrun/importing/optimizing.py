"""The optimizer by the scripts' names; both have flags for name, eps, betas, momentum and weight decay."""

from __future__ import annotations

from typing import Any

from convrun.importing.translation import Translation

_SGD = {"sgd": True, "nesterov": True, "momentum": False}
# The released code's own names that still mean the same optimizer in today's timm.
_SAME_IN_TIMM = {
    "adam": (),
    "adadelta": (),
    "rmsprop": ("momentum",),
    "rmsproptf": ("momentum",),
    "sgdp": ("momentum",),
}


def put_released_optimizer(t: Translation) -> None:
    """The optimizer of the released code (timm 0.3.2's)."""
    name = str(t.given["opt"]).lower()
    if name not in (*_SGD, "adamw", "adamp", *_SAME_IN_TIMM):
        t.refuse("opt", f"convrun does not have timm 0.3.2's {name}; take adamw, adamp, sgd, momentum or adam")
        return
    _put_optimizer(t, name)


def put_timm_optimizer(t: Translation) -> None:
    """The optimizer of timm's factory."""
    name, options = str(t.given["opt"]).lower(), dict(t.given["opt_kwargs"])
    own = (*_SGD, "adamw", "adamp", "lion")
    if options and name in own:
        _put_family(t, name, options)
    elif name == "adahessian" or name.startswith(("fused", "bnb")):
        t.refuse("opt", "it needs second derivatives or a package that convrun does not use")
    elif name in own:
        _put_optimizer(t, name)
    else:
        _put_family(t, name, options)
    if t.given.has("opt_kwargs"):
        t.put("optimizer.options", "opt_kwargs", t.draft.values["optimizer"].get("options", options))


def _put_optimizer(t: Translation, name: str) -> None:
    if name in _SGD:
        t.put("optimizer.name", "opt", "sgd")
        t.put("optimizer.weight_decay", "weight_decay")
        t.put("optimizer.momentum", "momentum")
        t.put("optimizer.nesterov", "opt", _SGD[name], f"what the script makes of {name}")
        t.no_effect("opt_eps", f"{name} has none")
        if t.given["opt_betas"] is not None:
            t.refuse("opt_betas", f"{name} has none")
        return
    if name not in ("adamw", "adamp", "lion"):
        _put_family(t, name, {})
        return
    t.put("optimizer.name", "opt", name)
    t.put("optimizer.weight_decay", "weight_decay")
    if t.given["opt_betas"] is not None:
        t.put("optimizer.betas", "opt_betas")
    elif name != "lion":
        t.put("optimizer.betas", "opt_betas", [0.9, 0.999], "PyTorch's")
    if name == "lion":
        t.no_effect("opt_eps", "lion has none")
    else:
        t.put("optimizer.eps", "opt_eps", 1e-8 if t.given["opt_eps"] is None else t.given["opt_eps"])
    if name == "adamp":
        t.put("optimizer.wd_ratio", "opt", 0.01, "what the script makes of adamp")
        t.put("optimizer.nesterov", "opt", True, "what the script makes of adamp")
    t.no_effect("momentum", f"{name} has betas instead")


def _put_family(t: Translation, name: str, options: dict[str, Any]) -> None:
    """An optimizer of timm by its name there, built by timm itself."""
    t.put("optimizer.name", "opt", f"timm/{name}")
    t.put("optimizer.weight_decay", "weight_decay")
    for dest, key in (("opt_eps", "eps"), ("opt_betas", "betas"), ("momentum", "momentum")):
        is_told = t.given.has(dest) or (dest == "opt_eps" and t.given["opt_eps"] is not None)
        if is_told and t.given[dest] is not None:
            options.setdefault(key, t.given[dest])
    if options:
        brought = next((d for d in ("opt_eps", "opt_betas", "momentum") if t.given.has(d)), "opt")
        t.put("optimizer.options", brought, options)
