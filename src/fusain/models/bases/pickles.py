"""Converts a pickle of weights to safetensors, in a process of its own that may do nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusain.errors import StorageError, UnsafeFileError
from fusain.models.bases import content
from fusain.models.bases.stored import is_pickle, read_header

CHILD: Final = Path(__file__).with_name("unpickle.py")
KEPT_ENVIRONMENT: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "PATH", "TMPDIR", "TEMP")
"""What starting Python and torch may need; tokens and all else stay here."""
SHOWN: Final = 5


@dataclass(frozen=True)
class Conversion:
    """What came of a pickle."""

    path: Path
    tensors: int
    beside: tuple[str, ...]
    """What the file held beside tensors, by name; it is not kept."""
    origin: str
    """SHA-256 of the pickle."""


def looks_pickled(path: Path) -> bool:
    """Whether a file is a pickle, by its name or its first bytes."""
    with path.open("rb") as file:
        return is_pickle(path, file.read(512))


def convert(source: Path, out: Path) -> Conversion:
    """The tensors of the pickle `source` as the safetensors file `out`, which must not exist."""
    refuse_existing(out)
    if not source.is_file():
        raise StorageError("E-MODEL-040", where=str(source))
    origin = content.sha256(source)
    with beside(out) as waiting:
        report = _run(source, waiting, origin)
        header = read_header(waiting)
        refuse_existing(out)
        os.rename(waiting, out)
    return Conversion(out, len(header.tensors), tuple(map(str, report.get("beside", ()))), origin)


def refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise StorageError("E-MODEL-049", where=str(path), path=path)


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A place for an unfinished file in the folder of the finished one; nothing stays there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        yield Path(folder) / "unfinished.safetensors"


def _run(source: Path, waiting: Path, origin: str) -> dict[str, Any]:
    """The report of the closed-off process."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    command = [sys.executable, "-I", str(CHILD), str(source.resolve()), str(waiting.resolve()), origin]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=kept | {"OMP_NUM_THREADS": "1"}, check=False
    )
    report = _parsed(done.stdout)
    if names := report.get("names"):
        listed = ", ".join(map(_plain, names[:SHOWN])) + (
            f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        )
        raise UnsafeFileError("E-SEC-004", where=str(source), names=listed)
    if "refused" in report:
        raise UnsafeFileError("E-SEC-005", where=str(source), reason=_plain(report["refused"]).rstrip("."))
    if "tensors" not in report:
        reason = report.get("failed") or _end(done.returncode, done.stderr)
        raise StorageError("E-MODEL-050", where=str(source), reason=_plain(reason))
    return report


def _parsed(output: bytes) -> dict[str, Any]:
    """The last line of what the process printed; it is not trusted to be anything."""
    try:
        found = json.loads(output.decode("utf-8", "replace").strip().splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _end(code: int, talk: bytes) -> str:
    last = talk.decode("utf-8", "replace").strip().splitlines()[-1:]
    return f"signal {-code}" if code < 0 else f"exit code {code}" + "".join(f", {line}" for line in last)


def _plain(text: Any) -> str:
    """Text of a stranger's file: one short line that a terminal takes for nothing else."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))[:300]
