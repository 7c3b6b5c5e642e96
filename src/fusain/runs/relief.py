"""Where memory runs out: what of a run's settings to change, the cheapest first, and the fault that says so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import torch
from pydantic import ValidationError

from fusain.errors import FusainError
from fusain.messages.quantities import size
from fusain.runs.doctor import machine
from fusain.runs.settings import METHODS, RunSettings
from fusain.settings import described, read
from fusain.settings.notice import Notice
from fusain.training import diagnosis, optimizer_trial
from fusain.training.optimizers import kind_of

FRUGAL: Final = 1.0
"""Numbers for each weight: an optimizer that remembers no more is not worth a change."""
FEWER_BITS: Final = {32: 16, 16: 8, 8: 4}


@dataclass(frozen=True)
class Change:
    """Settings that need less memory, and what that saves and costs."""

    values: Mapping[str, Any]
    saves: str

    def __str__(self) -> str:
        words = " ".join(f"--{key} {json.dumps(value).strip(chr(34))}" for key, value in self.values.items())
        return f"{words} ({self.saves})"


def changes(settings: RunSettings) -> Iterator[Change]:
    """Those that a run with these settings has not made and may make, the cheapest first."""
    for one in _known(settings):
        if _may_be(settings, one.values):
            yield one


def advice(settings: RunSettings) -> str:
    """The same in words; smaller images are what is left always."""
    smaller = "a smaller family.size" + (" or narrower family.channels" if hasattr(settings.family, "channels") else "")
    return "; or ".join([*map(str, changes(settings)), smaller])


def room(device: str, *, look: bool) -> int | None:
    """The bytes that there are; of a GPU nothing is known where it may not be looked at."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return machine.room()
    return torch.cuda.get_device_properties(device).total_memory if kind == "cuda" and look else None


def too_much(settings: RunSettings, needed: int, there_is: int | None) -> Iterator[Notice]:
    """A warning where a step cannot fit."""
    if there_is is not None and needed > there_is:
        facts = {"needed": size(needed), "room": size(there_is), "device": settings.engine.device}
        yield Notice("W-MEM-001", where="memory", advice=advice(settings), **facts)


@contextlib.contextmanager
def told(settings: RunSettings, where: Callable[[], str], *, is_resumable: bool = False) -> Iterator[None]:
    """Within, a device that fails and memory that runs out are told in our words, with what to change."""
    ways = partial(advice, settings)
    with diagnosis.device_faults_told(settings.engine.device, where, ways, is_resumable=is_resumable):
        yield


def _known(settings: RunSettings) -> Iterator[Change]:
    train, engine, device = settings.train, settings.engine, settings.engine.device.partition(":")[0]
    if train.batch_size > 1:
        parts = _least_divisor(train.batch_size)
        values = {"train.batch_size": train.batch_size // parts, "train.accumulation": train.accumulation * parts}
        yield Change(values, f"{'half' if parts == 2 else f'1/{parts}'} of the activations, the same steps")
    if engine.precision == "fp32" and device != "cpu":
        yield Change({"engine.precision": "bf16"}, "half of the activations, on a GPU that has it")
    if not engine.gradient_checkpointing:
        yield Change({"engine.gradient_checkpointing": True}, "most activations, for a third more time")
    if engine.base_bits in FEWER_BITS:
        yield Change({"engine.base_bits": FEWER_BITS[engine.base_bits]}, "half of the base, for time to unpack it")
    if not METHODS[settings.method.kind].leaves_base:
        yield from _of_all_weights(settings, device)


def _of_all_weights(settings: RunSettings, device: str) -> Iterator[Change]:
    """Where the base itself learns, most memory is not that of activations."""
    if not settings.train.fused_backward:
        yield Change({"train.fused_backward": True}, "all gradients but two, clipped each by itself")
    elif settings.engine.weights == "fp32":
        yield Change({"engine.weights": "bf16"}, "half of the weights, rounded by chance")
    kind = kind_of(settings.train.optimizer)
    name = "adamw_8bit" if device == "cuda" and find_spec("bitsandbytes") else "adafactor"
    if kind.states > FRUGAL and kind.pace == kind_of(name).pace:  # else it would want another rate
        yield Change({"train.optimizer": name}, "most of what the optimizer remembers, which begins anew")


def _least_divisor(number: int) -> int:
    return next(one for one in range(2, number + 1) if number % one == 0)


def _may_be(settings: RunSettings, values: Mapping[str, Any]) -> bool:
    """Whether the settings hold together with these."""
    written = settings.model_dump(mode="json")
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        described.look_up(written, section)[name] = value
    try:
        changed = RunSettings.model_validate_json(json.dumps(written), strict=True)
        optimizer_trial.check(changed.train, changed.engine.device)
    except (ValidationError, FusainError, RuntimeError, MemoryError):  # the last where there is no room to try either
        return False
    return not read.faults(changed)
