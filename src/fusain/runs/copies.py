"""Copies finished weights to where the user wants them, and writes nothing over."""

from __future__ import annotations

import filecmp
import os
import shutil
from itertools import count
from pathlib import Path

from fusain.runs.folder import RunFolder
from fusain.settings.notice import Notice
from fusain.training.checkpoint import STORAGE_FAULTS, reason
from fusain.training.events import EventLog


def copy(run: RunFolder, into: Path, log: EventLog) -> None:
    """Copy the weights and say where they are; a disk that fails does not make a finished run fail."""
    try:
        target, is_new = _copied(run.weights, into.expanduser(), run.name)
    except STORAGE_FAULTS as fault:
        notice = Notice("W-STORE-003", where=str(into), fault=reason(fault), weights=run.weights)
        log("warning", code=notice.code, text=str(notice))
        return
    log("note", text=f"The weights {'were copied to' if is_new else 'lie already in'} {target}.")


def _copied(weights: Path, into: Path, name: str) -> tuple[Path, bool]:
    """The first free name, or the one that holds the same; a copy is there whole or not at all."""
    into.mkdir(parents=True, exist_ok=True)
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    target = next(path for one in names if not os.path.lexists(path := into / one) or _are_equal(weights, path))
    if target.exists():
        return target, False
    waiting = into / f".{target.name}.{os.getpid()}.tmp"
    try:
        shutil.copytree(weights, waiting)
        for file, named in _as_copied(waiting, target.name).items():
            (waiting / file).rename(waiting / named)
        waiting.rename(target)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return target, True


def _are_equal(weights: Path, there: Path) -> bool:
    """Whether a folder holds the same files, byte for byte, as they are called in a copy."""
    if not there.is_dir():
        return False
    named = _as_copied(weights, there.name)
    if sorted(named.values()) != _files(there):
        return False
    try:
        return all(filecmp.cmp(weights / one, there / other, shallow=False) for one, other in named.items())
    except OSError:
        return False


def _as_copied(weights: Path, name: str) -> dict[str, str]:
    """What each file is called in a copy of that name.

    A1111 and Forge tell LoRAs and words by the names of their files alone, whatever folder they lie in; the folder of
    a whole model stays as diffusers loads it.
    """
    files = _files(weights)
    is_model = any(os.path.dirname(file) for file in files)
    return {file: file if is_model or not file.endswith(".safetensors") else f"{name}-{file}" for file in files}


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
