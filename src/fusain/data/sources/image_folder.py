"""A folder of images, nested or not, with captions beside them or none."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from fusain.data import captions
from fusain.data.scan import scan
from fusain.data.source import Listing, Source


class ImageFolder(Source):
    kind: ClassVar[str] = "images"
    rank: ClassVar[int] = 90

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir()

    def listing(self) -> Listing:
        found = scan(self.path)
        listing, beside = found.listing(), captions.beside(found)
        listing.captions = beside.texts
        listing.is_held_out = found.given_split()
        listing.faults += tuple(beside.faults.values())
        good = np.asarray([row for row in range(len(listing)) if row not in beside.faults], dtype=np.int64)
        return listing.take(good) if beside.faults else listing
