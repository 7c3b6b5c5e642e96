"""Keeps what is known of a folder's images in the user's cache folder, so that each file is decoded once only."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fusain.data.examine import Fit
from fusain.data.index import Held, Index
from fusain.data.source import Source

VERSION: Final = 1
"""Counts up when images would be decoded, converted or fitted differently."""
UNUSED_DAYS: Final = 30
SIZE_LIMIT: Final = 8 << 30
BLOCK_BYTES: Final = 1 << 20

DAMAGED: Final = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


def folder() -> Path:
    """`FUSAIN_CACHE`, or `fusain` in the user's cache folder."""
    named = os.environ.get("FUSAIN_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusain"


def path_for(source: Source, fit: Fit) -> Path:
    """One file for each folder and way to fit its images."""
    shapes = fit.shapes
    facts: list[object] = [VERSION, *source.identity, shapes.size, fit.crop, fit.max_pixels, fit.is_kept]
    if shapes.aspect is not None:
        facts += [shapes.multiple, shapes.aspect, shapes.max_upscale]
    elif shapes.skips_small:
        facts.append("without small ones")
    identity = json.dumps(facts)
    return folder() / "data" / f"{hashlib.sha256(identity.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npz"


def load(path: Path) -> Index | None:
    """What was kept; None where there is nothing, or where it is damaged (the archive checks itself by CRC)."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            column = {name: archive[name] for name in archive.files}
        held = None
        if "pixels" in column:
            held = Held(column["pixels"], column["fitted_shapes"])
        faults = json.loads(column["faults"].tobytes())
        index = Index(
            names=column["names"].tobytes().decode("utf-8").split("\0") if column["names"].size else [],
            sizes=column["sizes"],
            mtimes=column["mtimes"],
            hashes=column["hashes"],
            pixel_hashes=column["pixel_hashes"],
            heights=column["heights"],
            widths=column["widths"],
            conversions=column["conversions"],
            faults={int(row): (code, facts) for row, (code, facts) in faults.items()},
            held=held,
        )
        index.check()
        os.utime(path)
    except DAMAGED:
        return None
    return index


def save(path: Path, index: Index, warn: Callable[[str], None]) -> None:
    """Replace the file whole; a cache that cannot be written costs time at the next start and nothing else."""
    columns: dict[str, Any] = {
        "names": np.frombuffer("\0".join(index.names).encode("utf-8"), np.uint8),
        "faults": np.frombuffer(json.dumps(index.faults).encode(), np.uint8),
        **{name: getattr(index, name) for name in Index.COLUMNS},
    }
    if index.held is not None:
        columns |= {"pixels": index.held.flat, "fitted_shapes": index.held.shapes}
    waiting = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(waiting, "w") as archive:
            for name, column in columns.items():
                _write(archive, name, np.ascontiguousarray(column))
        os.replace(waiting, path)
        _prune(path.parent)
    except OSError as fault:
        with suppress(OSError):
            waiting.unlink(missing_ok=True)
        warn(fault.strerror or str(fault))


def _write(archive: zipfile.ZipFile, name: str, column: npt.NDArray[Any]) -> None:
    """One column as `numpy.savez` writes it, which itself would copy 32 MB at a time."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(column))
        content = memoryview(column.reshape(-1).view(np.uint8).data)
        for start in range(0, len(content), BLOCK_BYTES):
            member.write(content[start : start + BLOCK_BYTES])


def _prune(caches: Path) -> None:
    """Files that were long unused go, and the oldest beyond the size limit."""
    now, total = time.time(), 0
    found = [(entry.stat().st_mtime, entry) for entry in caches.iterdir() if entry.suffix in (".npz", ".tmp")]
    for used, path in sorted(found, reverse=True, key=lambda pair: pair[0]):
        total += path.stat().st_size
        is_old = now - used > (86_400 * UNUSED_DAYS if path.suffix == ".npz" else 86_400)
        if is_old or total > SIZE_LIMIT:
            path.unlink(missing_ok=True)
