"""Checkpoints: folders committed by rename, with a manifest of SHA-256s; one that is listed is complete and verified.

Order of a save: write into a hidden folder, fsync each file, write the manifest last, fsync the folder, rename it into
place, fsync its parent, read it back against the manifest, and only then let old ones go.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fusain.errors import StorageError
from fusain.settings.section import Section, basic

FORMAT = 1
NEWER = "E-CKPT-004"
MANIFEST = "MANIFEST.json"
STATE = "state.json"
PREFIX, HIDDEN = "step-", ".tmp-"
TRIES = 3


class CheckpointSettings(Section):
    """When the whole state of a run is saved."""

    every_steps: int | None = basic(None, ge=1, json_schema_extra={"instead_of": "every_epochs"})
    """Save after this many steps. Nothing later than the last save can be lost."""
    every_epochs: float | None = Field(None, gt=0, json_schema_extra={"instead_of": "every_steps"})
    """Save after this many passes over the data, in place of `every_steps`. With neither, up to ten times a run."""
    keep: int = Field(3, ge=1, le=1000)
    """How many of the newest checkpoints stay."""
    snapshots: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Steps whose checkpoints stay for good beside these, such as [500]; `generate --checkpoint 500` draws from one."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk that was verified."""

    folder: Path
    step: int
    state: dict[str, Any]

    def tensors(self, part: str) -> dict[str, torch.Tensor]:
        path = self.folder / f"{part}.safetensors"
        return load_file(path) if path.exists() else {}


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int, snapshots: Collection[int] = ()) -> None:
        self.folder = folder
        self.keep = keep
        self.kept_for_good = {f"{PREFIX}{step:08d}" for step in snapshots}

    def save(self, step: int, parts: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> Checkpoint:
        """Write, commit and verify one checkpoint; what fails is a storage fault and leaves nothing behind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        hidden = self.folder / f"{HIDDEN}{PREFIX}{step:08d}-{uuid.uuid4().hex[:8]}"
        final = self.folder / f"{PREFIX}{step:08d}"
        try:
            hidden.mkdir()
            for name, tensors in parts.items():
                save_file(
                    {key: value.detach().contiguous() for key, value in tensors.items()}, hidden / f"{name}.safetensors"
                )
            (hidden / STATE).write_text(json.dumps({**state, "step": step}), encoding="utf-8")
            _write_manifest(hidden)
            if final.exists():
                _remove(final)  # only a damaged one can stand here: the run was resumed from before it
            _rename(hidden, final)
        finally:
            if hidden.exists():
                _remove(hidden)
        try:
            _sync(self.folder)
            saved = read(final)
        except BaseException:
            _remove(final)  # whole or not listed: nobody knows what of it reached the disk
            raise
        self._rotate(saved)
        return saved

    def listed(self) -> list[Path]:
        """All committed checkpoints, oldest first, by their step and never by a clock."""
        return sorted(path for path in self.folder.glob(f"{PREFIX}*") if (path / MANIFEST).exists())

    def newest(self, *, note: Any) -> Checkpoint | None:
        """The newest one that verifies; each damaged one is told to `note`. Damaged ones only: an error."""
        damaged = []
        for path in sorted(self.folder.glob(f"{PREFIX}*"), reverse=True):  # one that lost its manifest is damaged too
            try:
                found = read(path)
            except StorageError as fault:
                if fault.code == NEWER:
                    raise
                damaged.append(fault)
                note(f"{fault.message.what} The checkpoint before it is used.")
                continue
            if unknown := extra_files(path):
                listed = ", ".join(unknown)
                note(f"Checkpoint {path.name} holds files that it was not saved with: {listed}. They are ignored.")
            return found
        if damaged:
            raise StorageError(
                "E-RESUME-001", where=str(self.folder), count=len(damaged), first=damaged[0].message.what
            )
        return None

    def refuse_newer(self) -> None:
        """A run that a newer Fusain went on with is not for this one; what is damaged is told when it is read."""
        for path in self.listed():
            try:
                _files(path)
            except StorageError as fault:
                if fault.code == NEWER:
                    raise

    def clean(self) -> None:
        """Remove what killed saves left behind."""
        for path in self.folder.glob(f"{HIDDEN}*"):
            _remove(path)

    def _rotate(self, newest: Checkpoint) -> None:
        for path in [path for path in self.listed() if path.name not in self.kept_for_good][: -self.keep]:
            if path != newest.folder:
                _remove(path)


def read(folder: Path) -> Checkpoint:
    """A checkpoint, each of its files held against the manifest."""
    for name, expected in _files(folder).items():
        path = folder / name
        try:
            is_same = path.stat().st_size == expected["bytes"] and _digest(path) == expected["sha256"]
        except FileNotFoundError as fault:
            raise StorageError("E-CKPT-002", where=str(path), file=name, name=folder.name) from fault
        except OSError as fault:
            raise _unreadable(path, fault) from fault
        if not is_same:
            raise StorageError("E-CKPT-001", where=str(path), file=name, name=folder.name)
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return Checkpoint(folder, state["step"], state)


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file; one of a newer format may say it in another way, and is not read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if int(manifest["format"]) > FORMAT:
            found = manifest["format"]
            raise StorageError(NEWER, where=str(folder), name=folder.name, found=found, known=FORMAT)
        files: dict[str, dict[str, Any]] = manifest["files"]
    except FileNotFoundError as fault:
        raise StorageError("E-CKPT-002", where=str(folder), file=MANIFEST, name=folder.name) from fault
    except OSError as fault:
        raise _unreadable(folder / MANIFEST, fault) from fault
    except (ValueError, KeyError, TypeError) as fault:
        raise StorageError("E-CKPT-001", where=str(folder), file=MANIFEST, name=folder.name) from fault
    return files


def _unreadable(path: Path, fault: OSError) -> StorageError:
    name = path.parent.name
    return StorageError("E-CKPT-003", where=str(path), file=path.name, name=name, fault=fault.strerror or fault)


def extra_files(folder: Path) -> list[str]:
    """Files in a checkpoint that its manifest does not know."""
    known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].keys() | {MANIFEST}
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


STORAGE_FAULTS = (OSError, SafetensorError, StorageError)
"""What a full or failing disk raises: safetensors has an error of its own, and reading back what was saved another."""


def reason(fault: Exception) -> str:
    """A storage fault in a few words."""
    if isinstance(fault, StorageError):
        return fault.message.what.rstrip(".")
    return str(getattr(fault, "strerror", None) or fault)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        _sync(path)
        files[path.name] = {"sha256": _digest(path), "bytes": path.stat().st_size}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, "files": files}, indent=1), encoding="utf-8")
    _sync(manifest)
    _sync(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(source: Path, target: Path) -> None:
    """Virus scanners and network disks hold folders for a moment: three tries; another file system is no moment."""
    for attempt in range(1, TRIES + 1):
        try:
            os.rename(source, target)
            return
        except OSError as fault:
            if attempt == TRIES or fault.errno == errno.EXDEV:
                raise
            time.sleep(0.1 * attempt)


def _remove(folder: Path) -> None:
    """Remove what may be locked for the moment: what stays is tried again at the next save or start.

    The manifest goes first, so that a folder half removed is no checkpoint any more.
    """
    with contextlib.suppress(OSError):
        (folder / MANIFEST).unlink()
    shutil.rmtree(folder, ignore_errors=True)
