"""A folder of images, nested or not, with captions beside them or none."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fusain.data import caption_files
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
        listing, beside = found.listing(), caption_files.beside(found)
        listing.captions, listing.notices = beside.texts, beside.notices
        listing.is_held_out = found.given_split()
        return listing.without(beside.faults)
