"""The table of optimizers, and learning-rate schedules as functions of the step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import torch

from fusain.training.muon import Muon

OptimizerName = Literal["adam", "adamw", "lion", "muon"]
ScheduleName = Literal["constant", "linear", "cosine"]


class Lion(torch.optim.Optimizer):
    """The sign of a momentum, with decoupled weight decay (Chen et al. 2023, algorithm 2)."""

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        assert closure is None, "Lion needs no closure"
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                direction = torch.lerp(parameter.grad, momentum, first).sign_()
                parameter.add_(direction, alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - second)
        return None


_BY_WEIGHTS: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),  # one kernel over all weights: a third of the plain step's time
    "adamw": partial(torch.optim.AdamW, fused=True),
    "lion": Lion,
}
_BY_NAMES: dict[OptimizerName, Callable[..., torch.optim.Optimizer]] = {"muon": Muon}
"""Those to which not all weights are alike."""


def make_optimizer(
    name: OptimizerName,
    parameters: Mapping[str, torch.nn.Parameter],
    factors: Mapping[str, float] | None = None,
    *,
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """A fresh optimizer over all parameters that learn; those of one factor of the rate are a group, which keeps it."""
    factors = factors or {}
    if name in _BY_NAMES:
        return _BY_NAMES[name](parameters, lr=learning_rate, weight_decay=weight_decay, factors=factors)
    groups: dict[float, list[torch.nn.Parameter]] = defaultdict(list)
    for parameter_name, parameter in parameters.items():
        groups[factors.get(parameter_name, 1.0)].append(parameter)
    listed = [{"params": group, "factor": factor} for factor, group in groups.items()]
    return _BY_WEIGHTS[name](listed, lr=learning_rate, weight_decay=weight_decay)


def learning_rate(name: ScheduleName, base: float, *, step: int, total: int, warmup: int) -> float:
    """The rate of step number `step`, counted from 0: nothing to save, nothing to drift after a resume."""
    if step < warmup:
        return base * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    factors = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * min(1.0, done)))}
    return base * max(0.0, factors[name])
