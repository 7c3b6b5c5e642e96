"""Prodigy with groups that learn at paces of their own; imported only where it is chosen."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_optimizer
import torch


class Prodigy(pytorch_optimizer.Prodigy):  # type: ignore[misc]
    """Mishchenko and Defazio 2024: one distance over all weights, by which the rate is found.

    The library goes by the rate of the first group alone. Here the steps of the others are stretched by their rates
    beside that one.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        assert closure is None, "Prodigy needs no closure"
        first = self.param_groups[0]["factor"]
        stretched = [
            (parameter, parameter.clone(), group["factor"] / first)
            for group in self.param_groups
            if group["factor"] != first
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        super().step()
        for parameter, before, factor in stretched:
            parameter.copy_(before.lerp(parameter, factor))
        return None
