"""The contract of a place that images come from, and the columns that it lists: never an object an image."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fusain.data import sniff
from fusain.data.quarantine import Quarantined
from fusain.data.subjects import Subject
from fusain.errors import DataError
from fusain.settings.notice import Notice

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".ppm", ".pgm", ".heic", ".heif"),
)
"""Files that are looked at; what is no image, or of a kind that cannot be read, is put aside by name."""


@dataclass
class Listing:
    """What a source holds, as columns of N rows in the order of the names."""

    names: list[str]
    """Unique, with "/" between folders."""
    sizes: npt.NDArray[np.int64]
    """Bytes of each file, with `mtimes` (nanoseconds) what tells that it changed; unused with an array."""
    mtimes: npt.NDArray[np.int64]
    array: npt.NDArray[np.uint8] | None = None
    """The images themselves, N x H x W x 3, where they need no decoding."""
    classes: tuple[str, ...] = ()
    label_ids: npt.NDArray[np.int32] | None = None
    """The class of each image; of a mixture the strongest."""
    label_vectors: npt.NDArray[np.float32] | None = None
    """Only where some label is a mixture."""
    captions: list[str] | None = None
    weights: npt.NDArray[np.float32] | None = None
    repeats: npt.NDArray[np.int64] | None = None
    is_held_out: npt.NDArray[np.bool_] | None = None
    """Where the user has set images aside himself, with folders or a column."""
    faults: tuple[Quarantined, ...] = ()
    """What could not even be listed."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Other files, by extension."""
    folders: int = 0
    """Sub-folders that were looked into."""
    columns: tuple[str, ...] = ()
    """Of a metadata file, any of which may hold the captions."""
    notices: tuple[Notice, ...] = ()
    """What is worth a word about the files."""
    mask_files: frozenset[str] = frozenset()
    """Files that say which part of an image is learnt."""
    subjects: tuple[Subject, ...] = ()
    """Where the names of folders say what their images show."""
    class_prefix: str = ""
    """What the names of class images begin with; without any nothing."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: npt.NDArray[np.int64]) -> Listing:
        """The same columns with these rows only; the array stays whole, for its rows cost nothing unread."""
        if len(rows) == len(self) and bool((rows == np.arange(len(self))).all()):
            return self
        chosen = rows.tolist()
        return Listing(
            names=[self.names[row] for row in chosen],
            sizes=self.sizes[rows],
            mtimes=self.mtimes[rows],
            array=None if self.array is None else self.array[rows],
            classes=self.classes,
            label_ids=None if self.label_ids is None else self.label_ids[rows],
            label_vectors=None if self.label_vectors is None else self.label_vectors[rows],
            captions=None if self.captions is None else [self.captions[row] for row in chosen],
            weights=None if self.weights is None else self.weights[rows],
            repeats=None if self.repeats is None else self.repeats[rows],
            is_held_out=None if self.is_held_out is None else self.is_held_out[rows],
            faults=self.faults,
            ignored=self.ignored,
            columns=self.columns,
            notices=self.notices,
            mask_files=self.mask_files,
            subjects=self.subjects,
            class_prefix=self.class_prefix,
        )

    def without(self, aside: Mapping[int, Quarantined]) -> Listing:
        """The listing with these rows put aside."""
        if not aside:
            return self
        self.faults += tuple(aside[row] for row in sorted(aside))
        return self.take(np.asarray([row for row in range(len(self)) if row not in aside], dtype=np.int64))


class Source(ABC):
    """A place that images come from; one file in `data/sources/` each."""

    kind: ClassVar[str]
    rank: ClassVar[int] = 50
    """With `kind = "auto"` sources are asked in this order, and the first that recognises the path reads it."""

    has_image_columns: ClassVar[bool] = False
    passes_by: ClassVar[bool] = False
    """Whether its images lie in memory for now: then nothing that is found out about them is kept on disk."""

    def __init__(
        self,
        path: Path,
        labels_path: Path | None = None,
        caption_column: str | None = None,
        image_column: str | None = None,
    ) -> None:
        self.path = path
        self.labels_path = labels_path
        self.caption_column = caption_column
        self.image_column = image_column

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether this source is the right one for a path that exists."""

    @abstractmethod
    def listing(self) -> Listing:
        """Everything that the path holds, without decoding an image."""

    @property
    def folder(self) -> Path:
        """Where the names start."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from all others, for what is kept of its images."""
        return (str(self.path), self.kind)

    def read(self, name: str) -> bytes:
        """The stored bytes of one image."""
        with open(os.path.join(self.folder, name), "rb") as file:
            head = file.read(sniff.HEAD_BYTES)
            # What is no image may be a film of any length; its beginning is enough to say so.
            return head + file.read() if sniff.image_format(head) else head


def resolved(path: Path, key: str = "data.path") -> Path:
    """The path that is meant: `~`, environment variables and links followed."""
    meant = Path(os.path.expandvars(os.path.expanduser(path)))
    try:
        absolute = meant.resolve()
        found = absolute.exists()
    except (RuntimeError, OSError) as fault:  # a loop is a RuntimeError before Python 3.13
        raise DataError("E-DATA-002", where=key, path=meant) from fault
    if meant.is_symlink() and not found and _is_loop(meant):
        raise DataError("E-DATA-002", where=key, path=meant)
    if not found:
        raise DataError("E-DATA-001", where=key, key=key, path=absolute, parent=_nearest_parent(absolute))
    return absolute


def _is_loop(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError as fault:
        return fault.errno == errno.ELOOP
    return False


def _nearest_parent(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())
