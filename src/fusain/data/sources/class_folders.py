"""A folder a class: the name of the first folder is the label of every image below it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusain.data import captions
from fusain.data.quarantine import Quarantined
from fusain.data.scan import HELD_OUT_FOLDERS, TRAIN_FOLDERS, scan
from fusain.data.source import EXTENSIONS, Listing, Source
from fusain.errors import DataError


class ClassFolders(Source):
    kind: ClassVar[str] = "classes"
    rank: ClassVar[int] = 80

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Two folders or more with images directly inside, and no image beside them."""
        entries = _entries(path)
        if any(_is_image(entry) for entry in entries):
            return False
        folders = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        lower = {folder.name.lower() for folder in folders}
        if lower & TRAIN_FOLDERS and lower <= TRAIN_FOLDERS | HELD_OUT_FOLDERS:
            return all(cls.recognises(folder) for folder in folders if folder.name.lower() in TRAIN_FOLDERS)
        return sum(_holds_image(folder) for folder in folders) >= 2

    def listing(self) -> Listing:
        found = scan(self.path)
        listing, beside = found.listing(), captions.beside(found)
        listing.captions = beside.texts
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
        listing.faults += tuple(aside.values())
        good = np.asarray([row for row in range(len(listing)) if row not in aside], dtype=np.int64)
        return listing.take(good) if aside else listing


def _class_of(name: str, depth: int) -> str | None:
    """The folder at that depth; None for an image that lies in none."""
    parts = name.split("/", depth + 2)
    return parts[depth] if len(parts) > depth + 1 else None


def _holds_image(folder: Path) -> bool:
    return any(_is_image(entry) for entry in _entries(folder))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder; nothing where it cannot be read, which is told once it is listed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
