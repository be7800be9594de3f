"""The kinds of component, and each kind's contract, one file a kind.

`convrun describe KIND` prints these texts, so they are the only place where a contract is written.
"""

from __future__ import annotations

from convrun.contracts.augmentation import AUGMENTATION
from convrun.contracts.callback import CALLBACK
from convrun.contracts.data import DATA
from convrun.contracts.kind import Kind
from convrun.contracts.launcher import LAUNCHER
from convrun.contracts.logger import LOGGER
from convrun.contracts.loss import LOSS
from convrun.contracts.model import MODEL
from convrun.contracts.optimizer import OPTIMIZER
from convrun.contracts.scheduler import SCHEDULER

__all__ = ["KINDS", "Kind"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (MODEL, DATA, AUGMENTATION, LOSS, OPTIMIZER, SCHEDULER, LAUNCHER, LOGGER, CALLBACK)
}
