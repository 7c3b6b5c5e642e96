"""The moving average of the weights (EMA), with a warm-up that suits short runs; samples are drawn from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch


class Average:
    """Keeps an average in fp32 beside the learning weights."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._live = list(parameters.values())
        self._names = list(parameters)
        self._average = [parameter.detach().float().clone() for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step number `step`. The decay rises as (1 + step) / (10 + step), so that the random start is
        forgotten within a tenth of any run."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, [parameter.float() for parameter in self._live], 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the network holds the average; afterwards exactly what it held before."""
        kept = [parameter.detach().clone() for parameter in self._live]
        self._put(self._average)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._live, values, strict=True):
            parameter.copy_(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        return dict(zip(self._names, self._average, strict=True))

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(tensors[name])
