"""What predicts, compiled by PyTorch for training: fewer and larger operations for the same arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import MethodType
from typing import Any, Final

import torch

MOST_FORMS: Final = 1024
"""Shapes of images, each with what learns at the time, that are compiled; PyTorch's own limit of 8 is far below what
buckets need, and what is beyond it would be another one after a resume."""


def compile_forward(network: torch.nn.Module, told: Callable[[Exception], None]) -> None:
    """Compile what a network does where gradients are wanted; it stays the same module, with the same names in it.

    Each shape is compiled by itself when it first comes: what was compiled for one must not hang on which came before,
    or a resumed run would be rounded otherwise. Drawing and measuring go on as before, for they have shapes of their
    own. What cannot be compiled is told once and goes on as before too.
    """
    plain, compiled, has_failed = network.forward, None, False

    def forward(_: torch.nn.Module, *given: Any, **named: Any) -> Any:
        nonlocal compiled, has_failed
        if has_failed or not torch.is_grad_enabled():
            return plain(*given, **named)
        try:
            with _at_once_and_for_each():
                compiled = compiled or torch.compile(plain, dynamic=False)
                return compiled(*given, **named)
        except torch.OutOfMemoryError:
            raise
        except Exception as fault:  # an edge: compilers raise what they like
            has_failed = True
            told(getattr(fault, "inner_exception", fault))
            return plain(*given, **named)

    network.forward = MethodType(forward, network)  # a method, as accelerate wants to find it


def _at_once_and_for_each() -> AbstractContextManager[Any]:
    """Within, the backward pass is compiled with the forward pass, so that a fault is met before a step is half done,
    and a form more is compiled as the first one was. What tracing warns of is no matter of the network's."""
    import torch._dynamo.config as tracing
    import torch._functorch.config as differentiating

    stack = ExitStack()
    stack.enter_context(warnings.catch_warnings(action="ignore"))
    stack.enter_context(tracing.patch(recompile_limit=MOST_FORMS, accumulated_recompile_limit=MOST_FORMS))
    stack.enter_context(differentiating.patch(force_non_lazy_backward_lowering=True))
    return stack
