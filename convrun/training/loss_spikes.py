"""Loss spikes: steps whose loss is far above what it was of late."""

from __future__ import annotations

import dataclasses
import math

MEMORY = 100  # steps
DEVIATIONS = 7
LEAST_RISE = 0.25  # of the mean


@dataclasses.dataclass
class LossSpikes:
    """Mean and variance of the steps' losses, as exponential averages; they tell which loss stands out.

    A spike lies 7 standard deviations above the mean, and by a quarter of it: in a run so steady that seven deviations
    are next to nothing, that is no news. The 7 are those of OLMo 2's spike score (arXiv:2501.00656, section 3.2), which
    counts values that far from the average of the last 1,000, on either side. Here the averages reach back about 100
    steps, since an image classifier's loss falls fast at first; while it falls it lies below its average, and marks
    nothing. The first 100 steps are never marked.

    Attributes:
        mean: of the losses.
        variance: of the losses.
        steps: losses seen.
    """

    mean: float = 0.0
    variance: float = 0.0
    steps: int = 0

    def is_spike(self, loss: float) -> bool:
        """Whether this loss is one; it is part of the averages from then on."""
        rise = loss - self.mean
        limit = max(DEVIATIONS * math.sqrt(self.variance), LEAST_RISE * abs(self.mean))
        is_spike = self.steps >= MEMORY and rise > limit
        # The plain mean at first, so that the start weighs no more than other steps; the variance as in West (1979).
        self.steps += 1
        weight = 1 / min(self.steps, MEMORY)
        self.mean += weight * rise
        self.variance = (1 - weight) * (self.variance + weight * rise * rise)
        return is_spike
