"""The machine without its accelerators: processor, memory, and the memory that processes share."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fusain.data.cores import usable_cores
from fusain.messages.quantities import size
from fusain.runs.doctor.finding import Finding
from fusain.settings.notice import Notice

LEAST_SHARED: Final = 1 << 30
"""Below this, processes that decode ahead run into "bus error"; containers begin with 64 MB."""
GROUP: Final = Path("/sys/fs/cgroup")
SHARED: Final = Path("/dev/shm")


def examine() -> Iterator[Finding]:
    """What there is to compute with."""
    system = platform.platform(terse=True)
    yield Finding("machine", "system", f"{system}, {platform.machine()}", {"system": system})
    yield threads(usable_cores(), os.cpu_count() or 1, quota(GROUP), os.environ.get("OMP_NUM_THREADS"))
    yield memory(_physical_memory(), limit(GROUP))
    if SHARED.is_dir():
        yield shared(shutil.disk_usage(SHARED).total)


def threads(usable: int, all_cores: int, allowed: float | None, named: str | None) -> Finding:
    """`engine.threads = "auto"` takes the cores that may be used; a quota below them makes threads wait."""
    text = f"{usable} of {all_cores} cores may be used"
    text += f", {allowed:g} of them at a time" if allowed is not None else ""
    text += f"; OMP_NUM_THREADS={named}" if named else ""
    facts = {"usable": usable, "cores": all_cores, "quota": allowed, "omp_num_threads": named}
    notice = None
    if allowed is not None and allowed < usable:
        notice = Notice("W-DOC-002", allowed=f"{allowed:g}", usable=usable, threads=max(1, round(allowed)))
    return Finding("machine", "threads", text, facts, notice)


def memory(physical: int | None, allowed: int | None) -> Finding:
    """The memory of the machine, and what this process may have of it."""
    text = size(physical) if physical else "unknown"
    if allowed is not None and (physical is None or allowed < physical):
        text += f", {size(allowed)} allowed here"
    return Finding("machine", "memory", text, {"bytes": physical, "limit": allowed})


def room() -> int | None:
    """Bytes that this process may have; None where the system does not tell."""
    known = [count for count in (_physical_memory(), limit(GROUP)) if count]
    return min(known, default=None)


def shared(count: int) -> Finding:
    """The memory through which `data.workers` hand images over."""
    notice = Notice("W-DOC-003", where=str(SHARED), size=size(count)) if count < LEAST_SHARED else None
    return Finding("machine", "shared memory", size(count), {"bytes": count}, notice)


def quota(group: Path) -> float | None:
    """How many cores' time a container may use; None without a limit."""
    words = _read(group / "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def limit(group: Path) -> int | None:
    """How many bytes a container may use; None without a limit."""
    text = _read(group / "memory.max").strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
