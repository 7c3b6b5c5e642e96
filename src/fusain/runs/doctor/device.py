"""Accelerators and the arithmetic that they and the processor have; the one check that loads torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fusain.messages.quantities import size
from fusain.runs.doctor.finding import Finding
from fusain.settings.notice import Notice

NVIDIA: Final = Path("/proc/driver/nvidia/version")


def examine() -> Iterator[Finding]:
    """Every device that torch can use, and what keeps it from one that is there."""
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as fault:  # a broken build fails in any of these ways
        words = next(iter(str(fault).splitlines()), type(fault).__name__)
        yield Finding("devices", "torch", "cannot be loaded", {}, Notice("E-DOC-005", fault=words))
        return
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(usable):
        yield _gpu(number)
    if not usable:
        yield without_gpu(torch.version.cuda, torch.version.hip, has_driver=NVIDIA.exists())
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "Apple GPU", {})
    yield _cpu()


def without_gpu(cuda: str | None, rocm: str | None, *, has_driver: bool) -> Finding:
    """No GPU is no fault, but one that is there and not used should be known."""
    built = f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "no GPU support"
    notice = None
    if has_driver:
        notice = Notice("W-DOC-007", cuda=cuda) if cuda else Notice("W-DOC-006", built=built)
    return Finding("devices", "GPU", f"none usable; this PyTorch has {built}", {"built": built}, notice)


def _gpu(number: int) -> Finding:
    import torch

    facts = torch.cuda.get_device_properties(number)
    has_bf16 = facts.major >= 8 or torch.version.hip is not None
    precision = "bf16 and fp16" if has_bf16 else "fp16, no bf16"
    text = f"{facts.name}, {size(facts.total_memory)}, {precision} in hardware"
    found = {"name": facts.name, "bytes": facts.total_memory, "bf16": has_bf16, "cuda": torch.version.cuda}
    return Finding("devices", f"cuda:{number}", text, found)


def _cpu() -> Finding:
    from fusain.training import engine

    bf16 = engine.has_bf16("cpu")
    text = "bf16 in hardware" if bf16 else "fp32 (no bf16 in hardware: `auto` takes fp32)"
    return Finding("devices", "cpu", text, {"bf16": bf16})
