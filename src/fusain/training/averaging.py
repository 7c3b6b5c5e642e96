"""The average of the weights that samples are drawn from: a moving one (EMA), or the one that an optimizer keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

from fusain.training.sharding import like


class Averaging(Protocol):
    """What the loop asks of an average."""

    def update(self, step: int) -> None: ...

    def in_place(self) -> contextlib.AbstractContextManager[None]: ...

    def tensors(self) -> Mapping[str, torch.Tensor]: ...

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None: ...


def make_average(optimizer: Any, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> Averaging | None:
    """The average of a run: the optimizer's own where it has one, else a moving one unless its decay is 0."""
    if callable(getattr(getattr(optimizer, "optimizer", optimizer), "eval", None)):
        return OptimizersAverage(optimizer, parameters)
    return Average(parameters, decay) if decay else None


CPU = torch.device("cpu")


class Average:
    """Keeps a moving average in fp32 in the machine's memory, with a warm-up that suits short runs.

    It never takes room on a GPU, neither while it trains nor while images are drawn from it.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._live = list(parameters.values())
        self._names = list(parameters)
        self._average = [parameter.detach().to(CPU, torch.float32, copy=True) for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step number `step`. The decay rises as (1 + step) / (10 + step), so that the random start is
        forgotten within a tenth of any run."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if all(parameter.device == CPU for parameter in self._live):
            torch._foreach_lerp_(self._average, [parameter.float() for parameter in self._live], 1 - decay)
            return
        for average, parameter in zip(self._average, self._live, strict=True):  # one at a time: copies take room
            average.lerp_(parameter.to(CPU, torch.float32), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the network holds the average; afterwards exactly what it held before."""
        kept = [parameter.detach().to(CPU, copy=True) for parameter in self._live]
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
            average.copy_(like(tensors[name], average))


class OptimizersAverage:
    """The average of a schedule-free optimizer, which computes it from the weights and its memory when it is asked."""

    def __init__(self, optimizer: Any, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self._optimizer = optimizer
        self._live = dict(parameters)

    def update(self, step: int) -> None:
        """The optimizer's step did it."""

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        kept = [parameter.detach().clone() for parameter in self._live.values()]
        self._optimizer.eval()
        try:
            yield
        finally:
            self._optimizer.train()
            with torch.no_grad():  # its own way back is one of rounding
                for parameter, value in zip(self._live.values(), kept, strict=True):
                    parameter.copy_(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        with self.in_place():
            return {name: parameter.detach().clone() for name, parameter in self._live.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Nothing of its own: it follows from the weights and the optimizer's memory."""
