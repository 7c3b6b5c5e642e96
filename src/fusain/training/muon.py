"""Muon: momentum made orthogonal for the matrices of a network, AdamW for all else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.optim.adamw import adamw

from fusain.training.engine import has_bf16
from fusain.training.paces import Paces

ROUNDS: Final = 5
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Of the quintic of Jordan et al. 2024: its rounds drive all singular values to about 1."""
MATCH: Final = 0.2
"""Makes a step as long as one of AdamW, so that its learning rates serve here (Liu et al. 2025, section 2.2)."""


class Muon(torch.optim.Optimizer):
    """Jordan et al. 2024; weights of convolutions count as matrices of outputs by all else.

    Vectors, and tables of embeddings, whose rows are touched now and then, learn by AdamW at the same rate.
    """

    def __init__(
        self,
        named: Mapping[str, torch.nn.Parameter],
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        paces: Paces | None = None,
    ) -> None:
        usual = {"factor": 1.0, "weight_decay": weight_decay}
        kinds: dict[tuple[bool, float, float], list[torch.nn.Parameter]] = defaultdict(list)
        for name, parameter in named.items():
            pace = (paces or {}).get(name, usual)
            kinds[_is_matrix(name, parameter), pace["factor"], pace["weight_decay"]].append(parameter)
        groups = [
            {"params": kinds[kind], "orthogonal": kind[0], "factor": kind[1], "weight_decay": kind[2]}
            for kind in sorted(kinds, key=lambda kind: (not kind[0], *kind[1:]))
        ]
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        assert closure is None, "Muon needs no closure"
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                self._orthogonal(group, learning)
            else:
                self._by_adamw(group, learning)
        return None

    def _orthogonal(self, group: Mapping[str, Any], learning: list[torch.Tensor]) -> None:
        """Matrices of one shape go through the rounds together: a small network has many, and each call costs."""
        by_shape: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for parameter in learning:
            gradient: Any = parameter.grad
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(gradient, 1 - group["momentum"])
            direction = torch.lerp(gradient, momentum, group["momentum"]).flatten(1)
            flat = direction if direction.shape[0] <= direction.shape[1] else direction.T
            by_shape[flat.shape[0], flat.shape[1]].append((parameter, flat))
        for (short, long), found in by_shape.items():
            directions = orthogonal(torch.stack([flat for _, flat in found]))
            for (parameter, _), direction in zip(found, directions, strict=True):
                turned = direction if parameter.shape[0] == short else direction.T
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(turned.reshape(parameter.shape), alpha=-group["lr"] * MATCH * long**0.5)

    def _by_adamw(self, group: Mapping[str, Any], learning: list[torch.Tensor]) -> None:
        states = [self.state[parameter] for parameter in learning]
        for parameter, state in zip(learning, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        adamw(
            list(learning),
            [parameter.grad for parameter in learning if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def orthogonal(stacked: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with orthogonal rows, roughly: Newton and Schulz's iteration, of several at once."""
    first, third, fifth = COEFFICIENTS
    # Exact enough, as its authors found, and several times as fast; but a hundred times slower where it is emulated.
    found = stacked.bfloat16() if has_bf16(stacked.device.type) else stacked.float()
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), found, beta=first)
    return found.to(stacked.dtype)


def _is_matrix(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim >= 2 and not any("embedding" in part for part in name.split(".")[-2:])
