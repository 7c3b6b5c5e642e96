"""Keeps two processes from one run: a lock file that says who holds it, on which machine, since which boot."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fusain.errors import StorageError


@contextlib.contextmanager
def held(path: Path, *, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock within; a dead process's is taken over, a living one's or another machine's is not."""
    own = _identity(os.getpid())
    while not _create(path, own):
        holder = _read(path)
        if holder is None:
            continue
        if holder["host"] != own["host"]:
            raise StorageError("E-RUN-005", where=str(path), run=path.parent.name, **holder)
        if _identity(holder["pid"]) == holder:
            raise StorageError("E-RUN-004", where=str(path), run=path.parent.name, **holder)
        note(f"The lock of process {holder['pid']}, which is gone, is taken over.")
        path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a living process of this machine holds it."""
    holder = _read(path) if path.exists() else None
    return holder is not None and _identity(holder["pid"]) == holder


def _create(path: Path, content: dict[str, Any]) -> bool:
    """Write the whole lock beside and link it into place: nobody ever reads half a lock."""
    waiting = path.with_name(f".{path.name}.{os.getpid()}")
    waiting.write_text(json.dumps(content), encoding="utf-8")
    try:
        os.link(waiting, path)
    except FileExistsError:
        return False
    finally:
        waiting.unlink()
    return True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {"pid": 0, "host": socket.gethostname(), "boot": "", "started": ""}
    return content


def _identity(pid: int) -> dict[str, Any]:
    """A process by its number and what tells it from a later one of the same number."""
    return {"pid": pid, "host": socket.gethostname(), "boot": _boot(), "started": _started(pid)}


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _started(pid: int) -> str:
    """When the process began, in the kernel's ticks; "gone" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return ""
