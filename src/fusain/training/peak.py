"""The most memory that was held at once: on a GPU what PyTorch took there, elsewhere the whole process."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import torch

OWN_STATUS: Final = Path("/proc/self/status")
FORGET: Final = Path("/proc/self/clear_refs"), "5"
"""What to write where, so that Linux forgets the peak so far."""

Holder = Literal["process", "device"]


def count_anew() -> None:
    """From here on, where the system can; elsewhere the peak stays that of all that the process ever did."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
    file, word = FORGET
    with suppress(OSError):
        file.write_text(word)


def holder(device: torch.device) -> Holder:
    """Whose memory is meant by the peak of a run on that device."""
    return "device" if device.type == "cuda" else "process"


def reached(device: torch.device) -> int:
    """Bytes."""
    if holder(device) == "device":
        return torch.cuda.max_memory_reserved(device)
    with suppress(OSError, StopIteration):
        lines = OWN_STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
