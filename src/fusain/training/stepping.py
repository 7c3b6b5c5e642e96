"""From gradients to a step of the weights: once all are there, or each weight as soon as its own gradient is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from fusain.training import rounding, sharding

if TYPE_CHECKING:
    from fusain.training.trainer import TrainSettings


class Stepping(Protocol):
    """What the loop asks for between the backward pass and the next batch."""

    odd: str
    """The parameter whose gradient was not finite when others had moved already; empty where none has."""
    was_skipped: bool
    """Whether the last step was passed over, for its gradients had overflowed in fp16."""

    def finish(self) -> float:
        """After the backward pass: the length of the whole gradient before it was clipped."""

    def step(self) -> None:
        """Move what has not moved yet, and give all gradients back."""


def make_stepping(
    train: TrainSettings, accelerator: Any, optimizer: Any, parameters: Mapping[str, torch.nn.Parameter]
) -> Stepping:
    """How a run takes its steps; `optimizer` as the accelerator prepared it."""
    if not train.fused_backward:
        return AtOnce(accelerator, optimizer, parameters, train.clip_norm)
    return Fused(optimizer, parameters, train.clip_norm)


class AtOnce:
    """All gradients are clipped together, then all weights move."""

    odd = ""
    was_skipped = False

    def __init__(
        self, accelerator: Any, optimizer: Any, parameters: Mapping[str, torch.nn.Parameter], clip_norm: float
    ) -> None:
        self._accelerator, self._optimizer = accelerator, optimizer
        self._parameters, self._longest = list(parameters.values()), clip_norm or math.inf

    def finish(self) -> float:
        learning = [parameter for parameter in self._parameters if parameter.grad is not None]
        return float(sharding.whole(self._accelerator.clip_grad_norm_(learning, self._longest)))

    def step(self) -> None:
        """Only the scale tells what was skipped: a step in one kernel is called all the same, and then does nothing."""
        scaler = self._accelerator.scaler
        before = scaler.get_scale() if scaler else 0.0
        self._optimizer.step()
        self.was_skipped = scaler is not None and scaler.get_scale() < before
        self._optimizer.zero_grad(set_to_none=True)


class Fused:
    """Within the backward pass each weight moves, clipped by itself, and its gradient is given back.

    From a gradient that is not finite on nothing moves any more: the run stops, and what moved before is not saved.
    """

    was_skipped = False  # never in fp16

    def __init__(self, optimizer: Any, parameters: Mapping[str, torch.nn.Parameter], clip_norm: float) -> None:
        self.odd, self._optimizer, self._longest = "", optimizer, clip_norm or math.inf
        self._own: Any = getattr(optimizer, "optimizer", optimizer)
        self._squares = 0.0
        self._is_there = False
        # A group for each weight, so that what an optimizer counts in its groups is counted once a step.
        apart = [(group, one) for group in self._own.param_groups for one in group["params"]]
        self._own.param_groups = [{**group, "params": [one]} for group, one in apart]
        places = {id(one): place for place, (_, one) in enumerate(apart)}
        for name, parameter in parameters.items():
            hook = partial(self._arrived, name, places[id(parameter)])
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _arrived(self, name: str, place: int, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None, "hooks run once there is a gradient"
        length = float(parameter.grad.norm())
        self._squares += length**2
        if not self.odd and not math.isfinite(length):
            self.odd = name
        if not self.odd:
            if length > self._longest:
                parameter.grad.mul_(self._longest / (length + 1e-6))
            with rounding.in_full(parameter):
                self._move(place)
        parameter.grad = None

    def _move(self, place: int) -> None:
        groups = self._own.param_groups
        if not self._is_there and hasattr(self._own, "to_gpu"):
            self._own.to_gpu()  # bitsandbytes brings what it remembers to a GPU once, of the groups it sees then
        self._is_there = True
        self._own.param_groups = [groups[place]]
        try:
            self._own.step()
        finally:
            self._own.param_groups = groups

    def finish(self) -> float:
        length, self._squares = math.sqrt(self._squares), 0.0
        return length

    def step(self) -> None:
        """All have moved."""
