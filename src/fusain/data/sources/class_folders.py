"""A folder a class: the name of the first folder is the label of every image below it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from fusain.data import caption_files
from fusain.data.quarantine import Quarantined
from fusain.data.scan import HELD_OUT_FOLDERS, TRAIN_FOLDERS, folders_in, holds_image, scan
from fusain.data.source import Listing, Source
from fusain.errors import DataError


class ClassFolders(Source):
    kind: ClassVar[str] = "classes"
    rank: ClassVar[int] = 80

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Two folders or more with images directly inside, and no image beside them."""
        if holds_image(path):
            return False
        folders = folders_in(path)
        lower = {folder.name.lower() for folder in folders}
        if lower & TRAIN_FOLDERS and lower <= TRAIN_FOLDERS | HELD_OUT_FOLDERS:
            return all(cls.recognises(folder) for folder in folders if folder.name.lower() in TRAIN_FOLDERS)
        return sum(holds_image(folder) for folder in folders) >= 2

    def listing(self) -> Listing:
        found = scan(self.path)
        listing, beside = found.listing(), caption_files.beside(found)
        listing.captions, listing.notices = beside.texts, beside.notices
        listing.is_held_out = found.given_split()
        depth = 1 if listing.is_held_out is not None else 0
        labels = [_class_of(name, depth) for name in listing.names]
        aside = dict(beside.faults)
        for row, label in enumerate(labels):
            if label is None:
                name = listing.names[row]
                aside[row] = Quarantined.of(DataError("E-DATA-019", where=name, name=name))
        listing.classes = tuple(sorted({label for label in labels if label is not None}))
        number = {label: index for index, label in enumerate(listing.classes)}
        listing.label_ids = np.fromiter((number.get(label or "", -1) for label in labels), np.int32, len(labels))
        return listing.without(aside)


def _class_of(name: str, depth: int) -> str | None:
    """The folder at that depth; None for an image that lies in none."""
    parts = name.split("/", depth + 2)
    return parts[depth] if len(parts) > depth + 1 else None
