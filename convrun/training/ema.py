"""The exponential moving average (EMA) of a model's weights (Polyak and Juditsky, 1992), kept in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from convrun.errors import CheckpointError


class Ema:
    """The average of all parameters and floating-point buffers, with a constant decay.

    It starts from the weights the model has now, so build it after `init` has loaded them and after the model is on
    its device. Early on that start dominates: at a decay of 0.9999 it still weighs 37 % after 10,000 steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._sources = {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}
        self._averages = {n: t.detach().to(torch.float32, copy=True) for n, t in self._sources.items()}
        self.decay = decay

    @torch.no_grad()
    def restart(self) -> None:
        """Begins with the model's weights as they are now."""
        for name, average in self._averages.items():
            average.copy_(self._sources[name].detach())

    @torch.no_grad()
    def update(self) -> None:
        """Moves each average by (1 - decay) of the way to the model's weight; once per optimizer step."""
        # float32 weights are not copied here; the averages of all tensors move in a few kernels.
        weights = [source.detach().to(torch.float32) for source in self._sources.values()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - self.decay)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside, the model computes with the averages; afterwards its own weights are back, bit for bit.

        Tensors change places without a copy (of float32 models), so this costs neither time nor memory. Shares (fsdp)
        change contents: where they lie is what the ranks send each other.
        """
        shares = [(s, self._averages[name]) for name, s in self._sources.items() if isinstance(s, DTensor)]
        own = {name: s.data for name, s in self._sources.items() if not isinstance(s, DTensor)}
        exchanged = []
        try:
            for name in own:
                self._sources[name].data = self._averages[name].to(own[name].dtype)
            for source, average in shares:
                _exchange(source, average)
                exchanged.append((source, average))
            yield
        finally:
            for name, data in own.items():
                self._sources[name].data = data
            for source, average in exchanged:
                _exchange(source, average)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages under the names the model gives its weights; not copies."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from saved averages.

        Raises:
            CheckpointError: a name is missing or extra, or a shape differs; nothing is changed then.
        """
        wrong = sorted(self._averages.keys() ^ state.keys())
        wrong += [n for n, average in self._averages.items() if n in state and state[n].shape != average.shape]
        if wrong:
            raise CheckpointError(
                f"the saved EMA does not fit the model: {len(wrong)} tensors differ, such as {', '.join(wrong[:3])}; "
                "start from a checkpoint of the same model section"
            )
        for name, average in self._averages.items():
            average.copy_(state[name])


@torch.no_grad()
def _exchange(weight: DTensor, average: Tensor) -> None:
    """Swaps the numbers of two shares, both float32."""
    assert isinstance(average, DTensor)
    held = weight.to_local().clone()
    weight.to_local().copy_(average.to_local())
    average.to_local().copy_(held)
