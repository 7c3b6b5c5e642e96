"""How images lie in memory within a network: channels last, as the convolutions of recent GPUs read them."""

from __future__ import annotations

from typing import Any

import torch


def put_channels_last(network: torch.nn.Module) -> None:
    """Weights now, and images whenever they come in; names, shapes and numbers stay as they are."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.register_forward_pre_hook(_turned, with_kwargs=True)


def _turned(_: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return tuple(map(_turn, given)), {name: _turn(value) for name, value in named.items()}


def _turn(value: Any) -> Any:
    is_image = isinstance(value, torch.Tensor) and value.ndim == 4
    return value.contiguous(memory_format=torch.channels_last) if is_image else value
