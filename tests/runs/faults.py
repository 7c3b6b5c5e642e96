"""Faults put into a training from outside: each function runs in the child before it trains, or under a monkeypatch.

What they replace are doors of the system (fsync, writes, the optimizer's step): the product has no hooks for faults.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from fusain.errors import FusainError
from fusain.training import checkpoint
from fusain.training.checkpoint import Checkpoints
from tests.runs.training import kinds, train_here

SHORT: dict[str, Any] = {"train.steps": 12, "checkpoint.every_steps": 4, "train.held_out_every_steps": 6}
"""A run of a second with checkpoints at 4, 8 and 12."""
EIGHT = SHORT | {"train.steps": 8}
"""One that can be gone on with."""


def refused(settings: Path, runs: Path, changes: dict[str, Any] | None = None, **more: Any) -> FusainError:
    """The fault of a short run that cannot be."""
    with pytest.raises(FusainError) as caught:
        train_here(settings, "run", runs, SHORT | (changes or {}), **more)
    return caught.value


def warnings(run: Path) -> list[tuple[str, str]]:
    """Those that are no matter of the data."""
    found = [(row["code"], row["text"]) for row in kinds(run, "warning")]
    return [(code, text) for code, text in found if not code.startswith("W-DATA")]


def steps_saved(run: Path) -> list[int]:
    """Each checkpoint, verified; nothing else may lie beside them."""
    folder = run / "checkpoints"
    listed = Checkpoints(folder, keep=9).listed()
    assert sorted(folder.iterdir()) == listed
    return [checkpoint.read(path).step for path in listed]


def full_disk(path: object = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path and str(path))


def wrapped(real: Callable[..., Any], before: Callable[[int], None]) -> Callable[..., Any]:
    """`real`, with `before(number of the call, from 1)` called first."""
    count = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        before(count)
        return real(*arguments, **named)

    return call


def on_call(owner: Any, name: str, number: int, action: Callable[[], None]) -> None:
    """Do something when `owner.name` is called for that time."""
    setattr(owner, name, wrapped(getattr(owner, name), lambda count: action() if count == number else None))


def signal_at(place: str, number: int = 3, times: int = 1, sent: int = signal.SIGTERM) -> None:
    """Send this process a signal while it is at some place of the training for the n-th time."""
    process = os.getpid()

    def send() -> None:
        for _ in range(times):
            os.kill(process, sent)
        time.sleep(0.2)

    on_call(*_doors()[place], number, send)


def ignore_and_interrupt(place: str, number: int) -> None:
    """Ctrl-C at that place, for a process that was started to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal_at(place, number, sent=signal.SIGINT)


def _doors() -> dict[str, tuple[Any, str]]:
    from fusain.data import examine
    from fusain.data.loader import Making
    from fusain.generation import gallery

    return {
        "step": (torch.optim.AdamW, "step"),
        "data": (Making, "__getitem__"),  # in a worker process where there are workers: then that one is slow
        "looking": (examine, "examine_names"),
        "sampling": (gallery, "write_png"),
        "saving": (os, "fsync"),
    }


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """For a while."""
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


@contextmanager
def full_while_saving(step: int, file: str, how_often: int = 1) -> Iterator[None]:
    """The disk is full in the middle of that file of the checkpoint of that step, and of the next ones of it."""
    failed: set[str] = set()
    save_file, write_text = checkpoint.save_file, Path.write_text

    def is_due(path: Path) -> bool:
        found = path.name == file and path.parent.name.startswith(".tmp-step-")
        saved = int(path.parent.name[len(".tmp-step-") :][:8]) if found else 0
        if found and saved >= step and (path.parent.name in failed or len(failed) < how_often):
            failed.add(path.parent.name)
            return True
        return False

    def save(tensors: Any, path: Path) -> None:
        save_file(tensors, path)
        if is_due(path):
            os.truncate(path, 10)
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def write(path: Path, text: str, *arguments: Any, **named: Any) -> int:
        if is_due(path):
            write_text(path, text[:10])
            raise full_disk(path)
        return write_text(path, text, *arguments, **named)

    with replaced(checkpoint, "save_file", save), replaced(Path, "write_text", write):
        yield


@contextmanager
def no_open(fault: Callable[[object], OSError], is_due: Callable[[Path, str], bool]) -> Iterator[None]:
    """`Path.open` and `open` fail for some files."""
    import builtins
    import io

    real, path_open = builtins.open, Path.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(file, str | Path) and is_due(Path(file), mode):
            raise fault(file)
        return real(file, mode, *arguments, **named)

    def opened_path(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if is_due(path, mode):
            raise fault(path)
        return path_open(path, mode, *arguments, **named)

    with replaced(builtins, "open", opened), replaced(io, "open", opened), replaced(Path, "open", opened_path):
        yield


def may_mount() -> bool:
    """Whether this system lets a test have a small disk of its own."""
    words = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/tmp"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def small_disk(folder: Path, size: int) -> None:
    """Give this process alone a disk of that size at that place. (Python 3.11 has no `os.unshare`.)"""
    import ctypes

    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x10000000 | 0x00020000) == 0, os.strerror(ctypes.get_errno())  # CLONE_NEWUSER | CLONE_NEWNS
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
