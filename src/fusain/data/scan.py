"""Walks a folder of images into columns: names, sizes and times, and which other files lie between."""

from __future__ import annotations

import os
import stat
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.data.quarantine import Quarantined
from fusain.data.source import EXTENSIONS, Listing
from fusain.errors import DataError

CAPTION_EXTENSIONS: Final = (".txt", ".caption")
MASK_ENDING: Final = "-masklabel.png"
"""What the mask of an image is called after the image's own name without its ending; it is no image to learn."""
TRAIN_FOLDERS: Final = frozenset({"train", "training"})
HELD_OUT_FOLDERS: Final = frozenset({"val", "valid", "validation", "test", "held_out", "held-out"})

_IMAGE: Final = frozenset(EXTENSIONS)


@dataclass
class Scan:
    """What lies in a folder and below it; hidden files are left out."""

    root: Path
    names: list[str] = field(default_factory=list)
    sizes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    mtimes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    caption_files: frozenset[str] = frozenset()
    mask_files: frozenset[str] = frozenset()
    folders: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[Quarantined, ...] = ()

    def listing(self) -> Listing:
        """The images as a listing that knows their names only."""
        ignored = dict(self.ignored)
        if not self.names and self.caption_files:
            ignored["captions"] = len(self.caption_files)
        return Listing(
            self.names,
            self.sizes,
            self.mtimes,
            mask_files=self.mask_files,
            ignored=ignored,
            folders=self.folders,
            faults=self.faults,
        )

    def has_given_split(self) -> bool:
        """Whether the folder holds `train` beside `val` or `test` and nothing else."""
        tops = {name.partition("/")[0] for name in self.names if "/" in name}
        if len(tops) < 2 or any("/" not in name for name in self.names):
            return False
        lower = {top.lower() for top in tops}
        return bool(lower & TRAIN_FOLDERS) and lower <= TRAIN_FOLDERS | HELD_OUT_FOLDERS

    def given_split(self) -> npt.NDArray[np.bool_] | None:
        """Which images the folders set aside, if they do."""
        if not self.has_given_split():
            return None
        return np.asarray([name.partition("/")[0].lower() in HELD_OUT_FOLDERS for name in self.names], dtype=np.bool_)


class _Walk:
    """One walk; lists grow flat, for a set may hold millions of files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []
        self.sizes = array("q")
        self.mtimes = array("q")
        self.captions: set[str] = set()
        self.masks: set[str] = set()
        self.ignored: Counter[str] = Counter()
        self.faults: list[Quarantined] = []
        self.folders = 0

    def enter(self, folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            seen = os.stat(folder)
            identity = (seen.st_dev, seen.st_ino)
            if identity in above:
                raise DataError("E-DATA-002", where="data.path", path=folder)
            entries = os.scandir(folder)
        except OSError as fault:
            if not prefix:
                raise DataError("E-DATA-005", where="data.path", path=folder, fault=fault.strerror) from fault
            self.put_aside("E-DATA-010", prefix.rstrip("/"), fault.strerror or str(fault))
            return
        with entries:
            for entry in entries:
                if not entry.name.startswith((".", "__MACOSX")):
                    self.meet(entry, prefix, (*above, identity))

    def meet(self, entry: os.DirEntry[str], prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        name = prefix + entry.name
        extension = os.path.splitext(entry.name)[1].lower()
        if extension not in _IMAGE and entry.is_dir():
            self.folders += 1
            self.enter(entry.path, f"{name}/", above)
        elif entry.name.endswith(MASK_ENDING):
            self.masks.add(name)
        elif extension in _IMAGE:
            self.take(entry, name, above)
        elif extension in CAPTION_EXTENSIONS:
            self.captions.add(name)
        else:
            self.ignored[extension or "without extension"] += 1

    def take(self, entry: os.DirEntry[str], name: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            facts = entry.stat()
        except OSError as fault:
            self.put_aside("E-DATA-010", name, fault.strerror or str(fault))
            return
        if not name.isascii() and name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") != name:
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            self.put_aside("E-DATA-017", shown, "")
        elif entry.is_dir():
            self.folders += 1
            self.enter(entry.path, f"{name}/", above)
        elif not stat.S_ISREG(facts.st_mode):
            self.put_aside("E-DATA-010", name, "it is no regular file")
        else:
            self.names.append(name)
            self.sizes.append(facts.st_size)
            self.mtimes.append(facts.st_mtime_ns)

    def put_aside(self, code: str, name: str, problem: str) -> None:
        self.faults.append(Quarantined.of(DataError(code, where=name, name=name, problem=problem)))


def scan(root: Path) -> Scan:
    """All images below `root`, sorted by name. A folder that contains itself through a link is an error."""
    walk = _Walk(root)
    walk.enter(str(root), "", ())
    order = sorted(range(len(walk.names)), key=walk.names.__getitem__)
    return Scan(
        root=root,
        names=[walk.names[row] for row in order],
        sizes=np.asarray(walk.sizes, np.int64)[order],
        mtimes=np.asarray(walk.mtimes, np.int64)[order],
        caption_files=frozenset(walk.captions),
        mask_files=frozenset(walk.masks),
        folders=walk.folders,
        ignored=dict(sorted(walk.ignored.items())),
        faults=tuple(sorted(walk.faults, key=lambda fault: fault.name)),
    )


def folders_in(folder: Path) -> list[Path]:
    """The visible folders directly inside; none where it cannot be read, which is told once it is walked."""
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith(".")]


def holds_image(folder: Path) -> bool:
    """Whether an image lies directly inside."""
    return any(entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".") for entry in _entries(folder))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
