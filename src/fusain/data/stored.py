"""Arrays of one shape kept on disk by content: what was encoded once is read from then on, entry by entry."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fusain.errors import StorageError
from fusain.messages.quantities import size

KEY_BYTES: Final = 32
CHECK_BYTES: Final = 8
UNUSED_DAYS: Final = 30
_ENTRY_BYTES: Final = KEY_BYTES + CHECK_BYTES

Key = bytes
Array = npt.NDArray[np.float32]


def prune(parent: Path) -> None:
    """Folders of entries that nobody has opened for long go."""
    oldest = time.time() - 86_400 * UNUSED_DAYS
    for folder in parent.glob("*/"):
        if all(path.stat().st_mtime < oldest for path in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


def key(parts: Mapping[str, object]) -> Key:
    """The identity of an entry: everything that its value depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogateescape")).digest()


def bytes_of(shape: Sequence[int]) -> int:
    """What one entry takes on disk."""
    return math.prod(shape) * np.dtype(np.float32).itemsize


def require_room(folder: Path, needed: int) -> None:
    """Nothing is encoded that the disk could not hold to its end."""
    free = shutil.disk_usage(next(parent for parent in folder.parents if parent.exists())).free
    if needed > free:
        raise StorageError("E-STORE-008", where=str(folder), needed=size(needed), free=size(free))


class _Place(NamedTuple):
    values: Path
    row: int
    check: bytes


@dataclass
class Stored:
    """Entries of one shape; each process that adds some writes two files of its own, so none disturbs another.

    Values are written before their keys, so that a kill between leaves values that nobody finds. An entry whose value
    does not fit its check sum counts as missing.
    """

    folder: Path
    shape: tuple[int, ...]
    _places: dict[Key, _Place] = field(default_factory=dict, init=False)
    _checked: set[Key] = field(default_factory=set, init=False)
    _maps: dict[Path, Array] = field(default_factory=dict, init=False)
    _added: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._name = "x".join(map(str, self.shape))
        self._own = self.folder / f"{self._name}-{uuid.uuid4().hex[:12]}"
        for index in sorted(self.folder.glob(f"{self._name}-*.keys")):
            self._learn(index)
            with suppress(OSError):
                os.utime(index)

    def missing(self, keys: Sequence[Key]) -> list[int]:
        """The positions of keys without a good entry, of equal keys the first."""
        first = {one: place for place, one in reversed(list(enumerate(keys)))}
        return sorted(place for one, place in first.items() if not self._is_good(one))

    def read(self, keys: Sequence[Key]) -> Array:
        """The values of keys that none is missing of, N x shape."""
        return np.stack([self._value(self._places[one]) for one in keys])

    def add(self, keys: Sequence[Key], values: Array) -> None:
        """Keep values under their keys, for this process and every later one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = np.ascontiguousarray(values, np.float32)
        entries = b"".join(one + _check(value) for one, value in zip(keys, content, strict=True))
        for suffix, part in ((".f32", content.tobytes()), (".keys", entries)):
            with open(self._own.with_suffix(suffix), "ab") as file:
                file.write(part)
                file.flush()
                os.fsync(file.fileno())
        self._register(self._own.with_suffix(".f32"), entries, self._added)
        self._added += len(keys)

    def _is_good(self, one: Key) -> bool:
        if one not in self._checked:
            place = self._places.get(one)
            if place is None or _check(self._value(place)) != place.check:
                return False
            self._checked.add(one)
        return True

    def _learn(self, index: Path) -> None:
        """The entries of one pair of files, as far as both reach."""
        values = index.with_suffix(".f32")
        try:
            content, count = index.read_bytes(), values.stat().st_size // self._row_bytes
        except OSError:
            return
        self._register(values, content[: count * _ENTRY_BYTES], 0)

    def _register(self, values: Path, entries: bytes, first: int) -> None:
        for row in range(len(entries) // _ENTRY_BYTES):
            entry = entries[row * _ENTRY_BYTES : (row + 1) * _ENTRY_BYTES]
            self._places[entry[:KEY_BYTES]] = _Place(values, first + row, entry[KEY_BYTES:])

    @property
    def _row_bytes(self) -> int:
        return bytes_of(self.shape)

    def _value(self, place: _Place) -> Array:
        """Read through a map of the whole file, made anew where the file has grown beyond it."""
        rows = self._maps.get(place.values)
        if rows is None or place.row >= len(rows):
            count = place.values.stat().st_size // self._row_bytes
            rows = np.memmap(place.values, np.float32, "r", shape=(count, *self.shape))
            self._maps[place.values] = rows
        value: Array = rows[place.row]
        return value


def _check(value: Array) -> bytes:
    return hashlib.blake2b(value.tobytes(), digest_size=CHECK_BYTES).digest()
