"""The folders that worlds are written to."""

from __future__ import annotations

from pathlib import Path

from fusain.errors import StorageError


def claim(folder: Path) -> None:
    """Makes a folder, or takes an empty one; one that holds files is refused."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError("E-STORE-006", where=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
