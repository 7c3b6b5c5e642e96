"""What is said and kept when arithmetic, memory or a device fails: which images, which times, what to change."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from fusain.data.batch import Batch
from fusain.data.chance import Draws
from fusain.errors import EnvironmentFault, FusainError, MemoryFault, NonFiniteError

FEW = 5
OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "CUDNN_STATUS_NOT_SUPPORTED"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
BROKEN = ("CUDA error", "HIP error", "device-side assert", "uncorrectable ECC", "CUDNN_STATUS_EXECUTION_FAILED")


def is_out_of_memory(fault: BaseException) -> bool:
    """Devices say it by an error of their own, the CPU's allocator only in words."""
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in OUT_OF_MEMORY)


def is_broken_device(fault: BaseException) -> bool:
    """Whether a device can do nothing more for this process: each call fails from then on, or lies."""
    if is_out_of_memory(fault):
        return False
    is_named = isinstance(fault, RuntimeError) and any(words in str(fault) for words in BROKEN)
    return is_named or isinstance(fault, torch.AcceleratorError)


def out_of_memory(device: object, fault: BaseException, *, advice: str, where: str, is_resumable: bool) -> MemoryFault:
    """The fault with what to change; a run that has begun goes on with it."""
    code = "E-MEM-001" if is_resumable else "E-MEM-002"
    return MemoryFault(code, where=where, device=device, advice=advice, fault=_first_line(fault))


def _first_line(fault: BaseException) -> str:
    """PyTorch adds advice and its own stack below."""
    return next(iter(str(fault).splitlines()), "")


@contextlib.contextmanager
def device_faults_told(
    device: object, where: Callable[[], str], advice: Callable[[], str], *, is_resumable: bool = False
) -> Iterator[None]:
    """Within, running out of memory and a device that fails are told in our words, wherever they happen."""
    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        if is_out_of_memory(fault):
            ways, place = advice(), where()
            raise out_of_memory(device, fault, advice=ways, where=place, is_resumable=is_resumable) from fault
        if is_broken_device(fault):
            words = _first_line(fault).rstrip(".")
            raise EnvironmentFault("E-ENV-010", where=where(), device=device, fault=words) from fault
        raise


def in_words(fault: Exception) -> str:
    """A fault of any kind in one line; many say nothing without the name of their kind."""
    words = fault.message.what.rstrip(".") if isinstance(fault, FusainError) else str(fault).strip()
    line = words.splitlines()[0] if words else ""
    return line if isinstance(fault, FusainError | OSError) else f"{type(fault).__name__}: {line}".rstrip(": ")


def not_finite(
    what: str,
    value: float,
    batches: list[Batch],
    *,
    names: Callable[[Draws], list[str]],
    step: int,
    folder: Path | None,
    odd_B: torch.Tensor | None = None,
    times_B: torch.Tensor | None = None,
    within: str = "",
) -> NonFiniteError:
    """The fault by the names of the images in it; all that is known stands in `diagnosis.json`, if there is a folder.

    `within` names the parameter whose gradient it was, where others had moved already.
    """
    images = [name for batch in batches for name in names(batch.items)]
    suspects = [name for name, odd in zip(images, odd_B.tolist(), strict=True) if odd] if odd_B is not None else images
    shown = ", ".join(suspects[:FEW]) + (f" and {len(suspects) - FEW} more" if len(suspects) > FEW else "")
    bundle = {
        "step": step,
        "what": what,
        "value": str(value),
        "suspects": suspects,
        "images": images,
        "draws": [int(draw) for batch in batches for draw in batch.draws],
        "times": times_B.tolist() if times_B is not None else None,
        **({"parameter": within} if within else {}),
    }
    if folder is not None:
        with contextlib.suppress(OSError):  # on a full disk the fault itself must still be told
            (folder / "diagnosis.json").write_text(json.dumps(bundle, indent=1, ensure_ascii=False), encoding="utf-8")
    if within:
        return NonFiniteError("E-FUSE-005", where=f"step {step}", parameter=within, images=shown)
    return NonFiniteError("E-TRAIN-001", where=f"step {step}", what=what, value=value, images=shown)
