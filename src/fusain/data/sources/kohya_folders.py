"""Folders as kohya's scripts want them: `10_sks dog` repeats its images 10 times, and "sks dog" is their caption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from fusain.data import caption_files
from fusain.data.lock import some
from fusain.data.scan import folders_in, holds_image, scan
from fusain.data.source import Listing, Source
from fusain.settings.notice import Notice

_REPEATED: Final = re.compile(r"([1-9]\d{0,3})_(.*)")
"""Numbers as in "001_cat" or "0_cat" count classes and repeat nothing."""
SHOWN: Final = 5


class KohyaFolders(Source):
    kind: ClassVar[str] = "kohya"
    rank: ClassVar[int] = 70

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Folders of images of which at least half say repeats."""
        folders = folders_in(path)
        if not any(_says_repeats(folder.name) for folder in folders):
            return False
        names = [folder.name for folder in folders if holds_image(folder)]
        return 0 < len(names) <= 2 * sum(map(_says_repeats, names))

    def listing(self) -> Listing:
        found = scan(self.path)
        listing, beside = found.listing(), caption_files.beside(found)
        folders = [name.partition("/")[0] if "/" in name else "" for name in listing.names]
        told = {folder: _told(folder) for folder in sorted(set(folders))}
        texts = beside.texts or [""] * len(listing)
        listing.captions = [text or told[folder].caption for text, folder in zip(texts, folders, strict=True)]
        listing.repeats = np.asarray([told[folder].repeats for folder in folders], dtype=np.int64)
        listing.notices = (*beside.notices, *_without_repeats(told))
        return listing.without(beside.faults)


@dataclass(frozen=True)
class _Told:
    """What the name of a folder says."""

    repeats: int
    caption: str


def _told(folder: str) -> _Told:
    found = _REPEATED.fullmatch(folder)
    return _Told(1, folder) if found is None else _Told(int(found[1]), " ".join(found[2].split()))


def _says_repeats(folder: str) -> bool:
    return _REPEATED.fullmatch(folder) is not None


def _without_repeats(told: dict[str, _Told]) -> Iterator[Notice]:
    """kohya's scripts pass over such folders without a word."""
    plain = [folder for folder in told if not _says_repeats(folder)]
    if plain:
        most = max((entry.repeats for entry in told.values()), default=1)
        names = some([folder or "." for folder in plain], SHOWN)
        example = f"{most}_{next((folder for folder in plain if folder), 'name')}"
        yield Notice("W-DATA-011", names=names, example=example)
