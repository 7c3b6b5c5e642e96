"""Disks: room and file system of the folders that Fusain writes to, and a test of what a checkpoint needs of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fusain.messages.quantities import size
from fusain.runs.doctor.finding import Finding
from fusain.settings.notice import Notice

LITTLE: Final = 5_000_000_000
"""Less room than a few checkpoints of a Stable Diffusion need."""
MOUNTS: Final = Path("/proc/self/mounts")
OF_NETWORK: Final = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "fuse.rclone", "lustre", "ceph", "glusterfs", "davfs")


def examine(runs_folder: Path, cache: Path) -> Iterator[Finding]:
    """The folder of the runs, with the test, and the folder of what is kept between runs."""
    for name, folder in (("runs folder", runs_folder), ("cache folder", cache)):
        yield room(name, folder, shutil.disk_usage(standing(folder)).free, file_system(standing(folder), _mounts()))
    yield self_test(standing(runs_folder))


def room(name: str, folder: Path, free: int, kind: str) -> Finding:
    """How much may still be written, and whether a file system is of the kind that surprises."""
    text = f"{folder}: {size(free)} free" + (f", {kind}" if kind else "")
    notice = None
    if free < LITTLE:
        notice = Notice("W-DOC-004", where=str(folder), free=size(free))
    elif kind.startswith(OF_NETWORK):
        notice = Notice("W-DOC-005", where=str(folder), kind=kind)
    return Finding("disk", name, text, {"path": str(folder), "free": free, "file_system": kind}, notice)


def self_test(folder: Path) -> Finding:
    """Does once, in a folder that is removed again, what saving a checkpoint and holding a run rely on."""
    name = "write, fsync, rename"
    try:
        with tempfile.TemporaryDirectory(prefix=".fusain-doctor-", dir=folder) as made:
            for what, step in STEPS.items():
                fault = _tried(step, Path(made))
                if fault:
                    notice = Notice("E-DOC-006", where=str(folder), what=what, fault=fault)
                    return Finding("disk", name, f"failed: {what}", {"failed": what}, notice)
    except OSError as fault:
        notice = Notice("E-DOC-007", where=str(folder), fault=fault.strerror or fault)
        return Finding("disk", name, "not writable", {"failed": "write"}, notice)
    return Finding("disk", name, "works", {"failed": None})


def _tried(step: Callable[[Path], None], folder: Path) -> str:
    try:
        step(folder)
    except OSError as fault:
        return fault.strerror or str(fault)
    return ""


def _write(folder: Path) -> None:
    for name in ("old", "new"):
        with (folder / name).open("wb") as file:
            file.write(name.encode() * 4096)
            file.flush()
            os.fsync(file.fileno())


def _replace(folder: Path) -> None:
    os.replace(folder / "new", folder / "old")
    if (folder / "old").read_bytes() != b"new" * 4096:
        raise OSError("what was written was not read back")


def _rename_folder(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "weights").write_bytes(b"1")
    os.rename(folder / ".hidden", folder / "step")
    if not (folder / "step" / "weights").is_file():
        raise OSError("the renamed folder is not there")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(folder: Path) -> None:
    os.link(folder / "old", folder / "lock")


STEPS: Final[dict[str, Callable[[Path], None]]] = {
    "writing and fsync of a file": _write,
    "replacing a file by rename": _replace,
    "renaming a folder": _rename_folder,
    "fsync of a folder": _sync_folder,
    "a hard link": _link,
}


def file_system(folder: Path, mounts: str) -> str:
    """The kind of the file system of a folder by the list of mounts; '' where none is known."""
    best, kind = "", ""
    for line in mounts.splitlines():
        words = line.split()
        point = words[1].replace("\\040", " ") if len(words) > 2 else ""
        if point and folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, words[2]
    return kind


def standing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _mounts() -> str:
    return MOUNTS.read_text(encoding="utf-8", errors="replace") if MOUNTS.is_file() else ""
