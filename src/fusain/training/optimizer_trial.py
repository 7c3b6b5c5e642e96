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
from fusain.training.optimizers import KINDS, OptimizerSettings, kind_of, make_optimizer, require
from fusain.training.stepping import Fused

SHAPES: Final = {"matrix.weight": (6, 8), "kernel.weight": (4, 3, 3, 3), "bias": (5,)}
"""What networks are made of."""
STEPS: Final = 7
"""Before the save and after it: more than the periods in which most optimizers do something every few steps."""
RATE: Final = 1e-3
RATE_APART: Final = 1.0
"""Far enough in few steps for what an optimizer finds out over all weights to show."""


def check(settings: OptimizerSettings, device: str) -> None:
    """What is missing, an option that is not known, or an optimizer of another package that is of no use: an error."""
    require(settings.optimizer, device)
    if settings.optimizer in KINDS:
        _fresh(settings, _weights())
    else:
        _check_others(settings)
    if settings.fused_backward and not kind_of(settings.optimizer).on:
        _check_fused(settings)


def _check_fused(settings: OptimizerSettings) -> None:
    """Whether the steps of each weight by itself are a step of all together."""
    together, apart = _fused(settings, whole=True), _fused(settings, whole=False)
    if together.keys() != apart.keys() or any(not torch.equal(together[key], apart[key]) for key in together):
        raise SettingsError("E-FUSE-003", where="train.fused_backward", optimizer=settings.optimizer)


def _fused(settings: OptimizerSettings, *, whole: bool) -> dict[str, torch.Tensor]:
    """Weights and memory after some steps, taken together or each by itself."""
    weights = _weights()
    optimizer = _fresh(settings, weights, RATE_APART)
    stepping = None if whole else Fused(optimizer, weights, 0.0)
    with torch.random.fork_rng(devices=[]):
        for step in range(2 * STEPS):
            torch.manual_seed(step)
            wanted = [weight.detach() + 0.1 * torch.randn(weight.shape) for weight in weights.values()]
            pairs = zip(weights.values(), wanted, strict=True)
            along = torch.stack([(weight * gradient).sum() for weight, gradient in pairs])
            torch.autograd.backward(along.sum())
            if stepping is None:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    memory, _ = optimizer_memory.flatten(optimizer, weights)
    return {**weights, **{key: one for key, one in memory.items() if not key.startswith(optimizer_memory.GROUP)}}


def _check_others(settings: OptimizerSettings) -> None:
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


def _fresh(settings: OptimizerSettings, weights: Mapping[str, torch.nn.Parameter], rate: float = RATE) -> Any:
    decay, options = settings.weight_decay, settings.optimizer_options
    return make_optimizer(settings.optimizer, weights, learning_rate=rate, weight_decay=decay, options=options)
