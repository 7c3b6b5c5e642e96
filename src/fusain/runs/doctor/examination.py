"""All checks in order; one that fails by itself is a finding too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fusain.runs.doctor import device, machine, network, storage, versions
from fusain.runs.doctor.finding import Finding
from fusain.settings.notice import Notice


def examine(runs_folder: Path) -> Iterator[Finding]:
    """What was found, the quick things first."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": versions.examine,
        "machine": machine.examine,
        "disk": lambda: _disk(runs_folder),
        "network": network.examine,
        "devices": device.examine,
    }
    for area, check in checks.items():
        yield from guarded(area, check)


def _disk(runs_folder: Path) -> Iterator[Finding]:
    from fusain.data import index_cache  # it needs numpy, which may be what is broken

    yield from storage.examine(runs_folder, index_cache.folder())


def guarded(area: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A machine that is so broken that it cannot be looked at is what a doctor is called for."""
    debugs = os.environ.get("FUSAIN_DEBUG") == "1"
    try:
        yield from check()
    except Exception as fault:
        if debugs:
            raise
        words = next(iter(str(fault).splitlines()), "no words")
        notice = Notice("W-DOC-008", area=area, kind=type(fault).__name__, fault=words)
        yield Finding(area, "check", "could not be ended", {}, notice)
