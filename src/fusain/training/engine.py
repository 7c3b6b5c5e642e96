"""Where and how the arithmetic runs: device, precision and threads, each `auto` resolved once and written down."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field

from fusain.errors import EnvironmentFault
from fusain.models.packed import Bits
from fusain.settings.section import Section, basic

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class EngineSettings(Section):
    """The machine that a run uses."""

    device: str = basic("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU where there is one."""
    precision: Precision = basic("auto")
    """Arithmetic of the forward pass. `auto` takes bf16 where the hardware has it, else fp32; fp16 needs a GPU."""
    threads: int | Literal["auto"] = Field("auto", union_mode="left_to_right")
    """CPU threads. Results are equal to the last bit at one count only."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: about half the memory of a step for a third more time."""
    base_bits: Bits = 32
    """Bits of each number of the base's denoiser, where a method leaves it as it is: 16 loses nothing of most bases, 8
    next to nothing, 4 some. What is saved fits the whole base, and `generate` draws with that."""


@dataclass(frozen=True)
class Engine:
    """The resolved engine."""

    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]
    threads: int
    accelerator: Any


def resolve(settings: EngineSettings) -> EngineSettings:
    """`auto` values as what they mean on this machine; what the machine lacks is an error."""
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentFault("E-ENV-002", where="engine.device", device=device, built=torch.version.cuda or "no CUDA")
    if device == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentFault("E-ENV-003", where="engine.device")
    kind = device.partition(":")[0]
    if settings.precision == "fp16" and kind == "cpu":
        raise EnvironmentFault("E-ENV-004", where="engine.precision")
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_bf16(kind) else "fp32"
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise EnvironmentFault("E-ENV-005", where="engine.precision", device=torch.cuda.get_device_name())
    threads = settings.threads if settings.threads != "auto" else usable_cores()
    return settings.model_copy(update={"device": device, "precision": precision, "threads": threads})


def has_bf16(kind: str) -> bool:
    """Whether the hardware itself multiplies in bf16; emulated bf16 is slower than fp32."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(settings: EngineSettings) -> Engine:
    """An engine from resolved settings."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    assert settings.threads != "auto", "engine settings are resolved before they are started"
    assert settings.precision != "auto"
    torch.set_num_threads(settings.threads)
    device = torch.device(settings.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # else a second run in one process keeps the first precision
    mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[settings.precision]
    accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")
    return Engine(device, settings.precision, settings.threads, accelerator)
