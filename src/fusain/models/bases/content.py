"""The SHA-256 of large files, kept in the user's cache folder by path, size and time of change."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from fusain.data.index_cache import folder

BLOCK_BYTES: Final = 16 << 20


def sha256(path: Path) -> str:
    """Of the file's content; an unchanged file is not read again."""
    real = path.resolve()
    facts = real.stat()
    identity = [str(real), facts.st_size, facts.st_mtime_ns]
    kept = (
        folder() / "weights" / f"{hashlib.sha256(str(real).encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"
    )
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(kept.read_text("utf-8"))
        if known["identity"] == identity and len(known["sha256"]) == 64:
            return str(known["sha256"])
    found = _hashed(real)
    _keep(kept, {"identity": identity, "sha256": found})
    return found


def _hashed(path: Path) -> str:
    summed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            summed.update(block)
    return summed.hexdigest()


def _keep(path: Path, entry: dict[str, object]) -> None:
    """Replaces the entry whole; a cache that cannot be written costs time at the next start and nothing else."""
    waiting = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    with suppress(OSError, UnicodeEncodeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting.write_text(json.dumps(entry), "utf-8")
        os.replace(waiting, path)
