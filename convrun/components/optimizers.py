"""The optimizers a recipe can name: torch's and timm's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convrun.contracts.optimizer import AdamBetas, DecoupledDecay, Epsilon, Groups, LearningRate
from convrun.errors import KeyProblem
from convrun.keys import Betas, Fraction, NonNegativeFloat, PositiveFloat
from convrun.registry import register

if TYPE_CHECKING:
    from torch.optim import Optimizer


@register("optimizer", "adamw", slots=2, shards=True)
def adamw(
    parameter_groups: Groups,
    *,
    lr: LearningRate,
    weight_decay: DecoupledDecay = 0.05,
    betas: AdamBetas = (0.9, 0.999),
    eps: Epsilon = 1e-8,
) -> Optimizer:
    """AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2)."""
    import torch

    return torch.optim.AdamW(parameter_groups, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)


def _check_sgd(*, momentum: float, nesterov: bool, **others: Any) -> None:
    if nesterov and not momentum:
        raise KeyProblem("nesterov", "has no effect without momentum", "set momentum above 0")


@register("optimizer", "sgd", slots=1, shards=True, check=_check_sgd)
def sgd(
    parameter_groups: Groups,
    *,
    lr: LearningRate,
    weight_decay: NonNegativeFloat = 0.0,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
) -> Optimizer:
    """Stochastic gradient descent with momentum (Sutskever et al., ICML 2013, section 2).

    weight_decay: L2 penalty: this times the weight is added to its gradient
    momentum: share of the last update that is kept; 0 turns it off
    nesterov: take the gradient where the momentum leads (needs momentum above 0)
    """
    import torch

    _check_sgd(momentum=momentum, nesterov=nesterov)
    return torch.optim.SGD(parameter_groups, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)


@register("optimizer", "adamp", slots=2)
def adamp(
    parameter_groups: Groups,
    *,
    lr: LearningRate,
    weight_decay: DecoupledDecay = 0.0,
    betas: AdamBetas = (0.9, 0.999),
    eps: Epsilon = 1e-8,
    delta: PositiveFloat = 0.1,
    wd_ratio: NonNegativeFloat = 0.1,
    nesterov: bool = False,
) -> Optimizer:
    """AdamP: AdamW without the part of an update that only grows a weight's norm (arXiv:2006.08217, algorithm 2).

    delta: threshold of the cosine between weight and gradient below which a weight counts as scale-invariant
    wd_ratio: factor on the weight decay of scale-invariant weights
    nesterov: take the gradient where the momentum leads
    """
    from timm.optim.adamp import AdamP

    return AdamP(  # type: ignore[no-untyped-call]
        parameter_groups,
        lr=lr,
        weight_decay=weight_decay,
        betas=betas,
        eps=eps,
        delta=delta,
        wd_ratio=wd_ratio,
        nesterov=nesterov,
    )


@register("optimizer", "lion", slots=1, shards=True)
def lion(
    parameter_groups: Groups,
    *,
    lr: LearningRate,
    weight_decay: DecoupledDecay = 0.0,
    betas: Betas = (0.9, 0.99),
) -> Optimizer:
    """Lion: the sign of an interpolated momentum, at a learning rate 3 to 10 times below AdamW's.

    After Chen et al., arXiv:2302.06675, program 1 and section 5.

    betas: weight of the momentum in the update, then decay of the momentum per step
    """
    from timm.optim.lion import Lion

    return Lion(parameter_groups, lr=lr, weight_decay=weight_decay, betas=betas)


@register("optimizer", "lamb", slots=2, shards=True)
def lamb(
    parameter_groups: Groups,
    *,
    lr: LearningRate,
    weight_decay: NonNegativeFloat = 0.0,
    betas: AdamBetas = (0.9, 0.999),
    eps: Epsilon = 1e-6,
) -> Optimizer:
    """LAMB: Adam with each layer's step scaled to its weight norm (You et al., arXiv:1904.00962, algorithm 2).

    weight_decay: this times the weight is added to the step before it is scaled
    """
    from timm.optim.lamb import Lamb

    # timm's default would silently clip gradients to norm 1; that is what training.clip_grad_norm is for.
    return Lamb(parameter_groups, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps, max_grad_norm=None)


@register("optimizer", "timm/*")
def timm_optimizer(
    name: str,
    parameter_groups: Groups,
    *,
    lr: LearningRate,
    weight_decay: NonNegativeFloat = 0.0,
    options: dict[str, Any] | None = None,
) -> Optimizer:
    """Any optimizer of timm by its name there: timm/nadamw, timm/muon, timm/lookahead_adamw (timm.optim).

    weight_decay: as that optimizer understands it
    options: further arguments of that optimizer, by its own names
    """
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    _check_timm_name(name)
    try:
        optimizer: Optimizer = create_optimizer_v2(
            parameter_groups, opt=name, lr=lr, weight_decay=weight_decay, **(options or {})
        )
    except TypeError as error:
        raise KeyProblem("options", f"timm/{name} refuses them: {error}") from error
    except (AssertionError, ImportError, ValueError) as error:
        raise KeyProblem("name", f"timm/{name} cannot be used here: {error}") from error
    return optimizer


def _check_timm_name(name: str) -> None:
    """Reads the name strictly: timm reads only what follows the last underscore, so `adan_adamw` would be adamw."""
    import difflib

    from timm.optim import list_optimizers  # type: ignore[attr-defined]

    known = list_optimizers()
    if name.removeprefix("lookahead_") not in known:
        nearest = difflib.get_close_matches(name, known, 3)
        cure = f"did you mean {' or '.join(f'timm/{n}' for n in nearest)}?" if nearest else ""
        raise KeyProblem("name", f"timm has no optimizer named {name!r}", cure)
    if name.removeprefix("lookahead_") == "adahessian":
        raise KeyProblem("name", "adahessian needs second derivatives, which convrun does not compute")
