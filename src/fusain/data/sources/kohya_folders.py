"""Folders as kohya's scripts want them: `10_sks dog` repeats its images 10 times, and "sks dog" is their caption.

They lie side by side, or in a folder `img` with one `reg` beside it, whose folders hold class images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from fusain.data import caption_files, subjects
from fusain.data.lock import some
from fusain.data.scan import Scan, folders_in, holds_image, scan
from fusain.data.source import Listing, Source
from fusain.errors import DataError
from fusain.settings.notice import Notice

_REPEATED: Final = re.compile(r"([1-9]\d{0,3})_(.*)")
"""Numbers as in "001_cat" or "0_cat" count classes and repeat nothing."""
SHOWN: Final = 5
IMAGES, CLASS_IMAGES = "img/", "reg/"
"""What names begin with in the layout with both; other folders there hold logs and models."""


class KohyaFolders(Source):
    kind: ClassVar[str] = "kohya"
    rank: ClassVar[int] = 70

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Folders of images of which at least half say repeats, or a folder `img` with such folders."""
        if has_both(path):
            return cls.recognises(path / IMAGES)
        folders = folders_in(path)
        if not any(_says_repeats(folder.name) for folder in folders):
            return False
        names = [folder.name for folder in folders if holds_image(folder)]
        return 0 < len(names) <= 2 * sum(map(_says_repeats, names))

    def listing(self) -> Listing:
        found, depth = scan(self.path), 0
        if has_both(self.path):
            found, depth = _of_both(found), 1
        _refuse_empty(found, (IMAGES, CLASS_IMAGES) if depth else ("",))
        listing, beside = found.listing(), caption_files.beside(found)
        folders = [_folder_of(name, depth) for name in listing.names]
        told = {folder: _told(folder) for folder in sorted(set(folders))}
        texts = beside.texts or [""] * len(listing)
        listing.captions = [text or told[folder].caption for text, folder in zip(texts, folders, strict=True)]
        listing.repeats = np.asarray([told[folder].repeats for folder in folders], dtype=np.int64)
        listing.notices = (*beside.notices, *_without_repeats(told), *_without_class_images(found, depth))
        listing.class_prefix = CLASS_IMAGES if depth else ""
        found_ones = (subjects.told(f"{folder}/", one.caption) for folder, one in told.items() if folder)
        listing.subjects = tuple(
            one for one in found_ones if one is not None and not (depth and one.folder.startswith(CLASS_IMAGES))
        )
        return listing.without(beside.faults)


def has_both(path: Path) -> bool:
    """Whether subject images and class images lie in two folders of the path."""
    return (path / IMAGES).is_dir() and not any(_says_repeats(folder.name) for folder in folders_in(path))


def _of_both(found: Scan) -> Scan:
    """What lies in the two folders."""
    rows = [row for row, name in enumerate(found.names) if name.startswith((IMAGES, CLASS_IMAGES))]
    return replace(
        found,
        names=[found.names[row] for row in rows],
        sizes=found.sizes[rows],
        mtimes=found.mtimes[rows],
        caption_files=frozenset(name for name in found.caption_files if name.startswith((IMAGES, CLASS_IMAGES))),
        mask_files=frozenset(name for name in found.mask_files if name.startswith((IMAGES, CLASS_IMAGES))),
        faults=tuple(fault for fault in found.faults if fault.name.startswith((IMAGES, CLASS_IMAGES))),
    )


def _refuse_empty(found: Scan, above: tuple[str, ...]) -> None:
    """A folder that names a subject or a class and shows nothing of it would be missing without a word."""
    holding = [*found.names, *(fault.name for fault in found.faults)]
    named = [f"{start}{folder.name}" for start in above for folder in folders_in(found.root / start)]
    empty = [
        folder
        for folder in sorted(named)
        if _says_repeats(folder.rpartition("/")[2]) and not any(name.startswith(f"{folder}/") for name in holding)
    ]
    if empty:
        raise DataError("E-DATA-069", where=str(found.root), names=some(empty, SHOWN))


def _without_class_images(found: Scan, depth: int) -> Iterator[Notice]:
    """A folder for class images in which there are none, so that others take their place, or nothing does."""
    folder = found.root / CLASS_IMAGES
    if depth and folder.is_dir() and not any(name.startswith(CLASS_IMAGES) for name in found.names):
        yield Notice("W-DATA-048", folder=folder)


def _folder_of(name: str, depth: int) -> str:
    """The folder that says repeats; "" for an image that lies in none."""
    parts = name.split("/")
    return "/".join(parts[: depth + 1]) if len(parts) > depth + 1 else ""


@dataclass(frozen=True)
class _Told:
    """What the name of a folder says."""

    repeats: int
    caption: str


def _told(folder: str) -> _Told:
    name = folder.rpartition("/")[2]
    found = _REPEATED.fullmatch(name)
    return _Told(1, name) if found is None else _Told(int(found[1]), " ".join(found[2].split()))


def _says_repeats(folder: str) -> bool:
    return _REPEATED.fullmatch(folder) is not None


def _without_repeats(told: dict[str, _Told]) -> Iterator[Notice]:
    """kohya's scripts pass over such folders without a word."""
    plain = [folder for folder in told if not _says_repeats(folder.rpartition("/")[2])]
    if plain:
        most = max((entry.repeats for entry in told.values()), default=1)
        names = some([folder or "." for folder in plain], SHOWN)
        example = f"{most}_{next((folder.rpartition('/')[2] for folder in plain if folder), 'name')}"
        yield Notice("W-DATA-011", names=names, example=example)
