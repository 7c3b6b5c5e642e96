"""The columns that are known of every image once it was looked at, and the pixels that are held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fusain.data.examine import HASH_BYTES
from fusain.data.images import Pixels
from fusain.data.quarantine import Quarantined
from fusain.errors import DataError


class Held:
    """Fitted images one after the other in one block of memory, each H x W x 3."""

    def __init__(self, flat: npt.NDArray[np.uint8], shapes: npt.NDArray[np.int32]) -> None:
        self.flat = flat
        self.shapes = shapes
        counts = shapes[:, 0].astype(np.int64) * shapes[:, 1] * 3
        self.ends = np.cumsum(counts)
        if len(flat) != int(self.ends[-1] if len(counts) else 0):
            raise ValueError("pixels and shapes do not fit")
        self.block = flat.reshape(len(shapes), *shapes[0], 3) if len(shapes) and (shapes == shapes[0]).all() else None
        """All images as one array, where they have one shape."""

    def __len__(self) -> int:
        return len(self.shapes)

    def image(self, row: int) -> Pixels:
        height, width = self.shapes[row].tolist()
        end = int(self.ends[row])
        return self.flat[end - height * width * 3 : end].reshape(height, width, 3)

    def take(self, rows: npt.NDArray[np.int64]) -> Held:
        """These images only."""
        if len(rows) == len(self) and bool((rows == np.arange(len(rows))).all()):
            return self
        if self.block is not None:
            return Held(self.block[rows].reshape(-1), self.shapes[rows])
        chosen = [self.image(row).reshape(-1) for row in rows.tolist()]
        return Held(np.concatenate(chosen) if chosen else np.zeros(0, np.uint8), self.shapes[rows])


@dataclass
class Index:
    """What is known of N images; broken ones have a fault and shape 0 x 0, and `held` leaves them out."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "sizes",
        "mtimes",
        "hashes",
        "pixel_hashes",
        "heights",
        "widths",
        "conversions",
    )

    names: list[str]
    sizes: npt.NDArray[np.int64]
    mtimes: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint8]
    pixel_hashes: npt.NDArray[np.uint8]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    conversions: npt.NDArray[np.uint16]
    faults: dict[int, tuple[str, dict[str, Any]]]
    held: Held | None

    def good(self) -> npt.NDArray[np.int64]:
        """The rows without a fault."""
        is_good = np.ones(len(self.names), np.bool_)
        is_good[list(self.faults)] = False
        return np.flatnonzero(is_good)

    def quarantined(self) -> tuple[Quarantined, ...]:
        return tuple(
            Quarantined.of(DataError(code, **facts))
            for code, facts in (self.faults[row] for row in sorted(self.faults))
        )

    def check(self) -> None:
        """Columns that do not fit together are a ValueError."""
        count = len(self.names)
        for name in self.COLUMNS:
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} has not {count} rows")
        if self.hashes.shape[1] != HASH_BYTES or (self.held is not None and len(self.held) != count - len(self.faults)):
            raise ValueError("the columns do not fit together")
