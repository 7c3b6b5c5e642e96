"""Whether an optimizer can do its work here, found out on a few numbers before anything else is done."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch
from safetensors.torch import load, save

from fusain.errors import FusainError, SettingsError
from fusain.training import optimizer_memory
from fusain.training.optimizers import KINDS, OptimizerSettings, make_optimizer, require

SHAPES: Final = {"matrix.weight": (6, 8), "kernel.weight": (4, 3, 3, 3), "bias": (5,)}
"""What networks are made of."""
STEPS: Final = 7
"""Before the save and after it: more than the periods in which most optimizers do something every few steps."""
RATE: Final = 1e-3


def check(settings: OptimizerSettings, device: str) -> None:
    """What is missing, an option that is not known, or an optimizer of another package that is of no use: an error."""
    require(settings.optimizer, device)
    if settings.optimizer in KINDS:
        _fresh(settings, _weights())
        return
    where, name = "train.optimizer", settings.optimizer
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            straight, resumed = _trained(settings, resumes=False), _trained(settings, resumes=True)
    except FusainError:
        raise
    except Exception as fault:  # an edge: optimizers of others raise what they like
        shown = " ".join(f"{type(fault).__name__}: {fault}".split()).rstrip(".")
        raise SettingsError("E-TRAIN-008", where=where, optimizer=name, fault=shown) from fault
    if any(not torch.equal(straight[key], resumed[key]) for key in straight):
        raise SettingsError("E-TRAIN-009", where=where, optimizer=name)


def _trained(settings: OptimizerSettings, *, resumes: bool) -> dict[str, torch.Tensor]:
    """Weights and memory after twice the steps, with or without a save and a load between."""
    weights = _weights()
    optimizer = _fresh(settings, weights)
    for step in range(2 * STEPS):
        if resumes and step == STEPS:
            stored, told = _stored(settings, optimizer, weights)
            weights = {name: torch.nn.Parameter(one.detach().clone()) for name, one in weights.items()}
            optimizer = _fresh(settings, weights)
            optimizer_memory.restore(optimizer, weights, load(stored), json.loads(told))
        torch.manual_seed(step)  # as the loop does before each forward pass
        for number, weight in enumerate(weights.values()):
            weight.grad = weight.detach() - number / 2 + 0.1 * torch.randn(weight.shape)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    memory, _ = optimizer_memory.flatten(optimizer, weights)
    return {**{name: weight.detach() for name, weight in weights.items()}, **memory}


def _stored(settings: OptimizerSettings, optimizer: Any, weights: dict[str, torch.nn.Parameter]) -> tuple[bytes, str]:
    """As a checkpoint holds it; what has no place in one cannot be resumed."""
    tensors, rest = optimizer_memory.flatten(optimizer, weights)
    try:
        return save({key: one.contiguous() for key, one in tensors.items()}), json.dumps(rest)
    except TypeError as fault:
        raise SettingsError("E-TRAIN-009", where="train.optimizer", optimizer=settings.optimizer) from fault


def _weights() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def _fresh(settings: OptimizerSettings, weights: Mapping[str, torch.nn.Parameter]) -> Any:
    decay, options = settings.weight_decay, settings.optimizer_options
    return make_optimizer(settings.optimizer, weights, learning_rate=RATE, weight_decay=decay, options=options)
