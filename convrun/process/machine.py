"""What a plan needs to know of where a run happens."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a plan needs to know of where the run happens.

    Attributes:
        processes: training processes over all nodes, one a device.
        device: `cuda` or `cpu`; None: unknown (`convrun validate` does not look).
        has_bf16: whether the device computes in bf16.
        cores: processor cores of one node, shared by its processes.
        nodes: over how many the processes are spread evenly.
    """

    processes: int = 1
    device: Literal["cuda", "cpu"] | None = None
    has_bf16: bool = False
    cores: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    nodes: int = 1
