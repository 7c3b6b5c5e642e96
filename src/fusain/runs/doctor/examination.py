"""All checks in order; one that fails by itself is a finding too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from fusain.errors import SettingsError
from fusain.runs.doctor import device, machine, network, storage, versions
from fusain.runs.doctor.finding import Finding
from fusain.settings import user_file
from fusain.settings.notice import Notice


def examine(runs_folder: Path | None = None) -> Iterator[Finding]:
    """What was found, the quick things first."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": versions.examine,
        "machine": machine.examine,
        "settings": _settings,
        "disk": lambda: _disk(runs_folder),
        "network": network.examine,
        "devices": device.examine,
    }
    for area, check in checks.items():
        yield from guarded(area, check)


def _settings() -> Iterator[Finding]:
    """The user's own file, which every other verb would stumble over if it were wrong."""
    path = user_file.path()
    try:
        text = str(path) if user_file.load() else f"none; they would stand in {path}"
        yield Finding("settings", "your settings", text, {"path": str(path)})
    except SettingsError as fault:
        words = " ".join(fault.message.what.split())
        notice = Notice("E-DOC-008", where=fault.where, fault=words.rstrip("."))
        yield Finding("settings", "your settings", str(path), {"path": str(path)}, notice)


def _disk(runs_folder: Path | None) -> Iterator[Finding]:
    from fusain.data import index_cache  # it needs numpy, which may be what is broken

    if runs_folder is None:
        with suppress(SettingsError):
            runs_folder = user_file.runs_folder()
    yield from storage.examine(runs_folder or user_file.RUNS, index_cache.folder())


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
