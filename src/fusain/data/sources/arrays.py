"""Images in one `.npy` file, N x H x W x 3 of uint8, and labels in another: one-hot rows, mixtures or class numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fusain.data.source import Listing, Source
from fusain.errors import DataError

CLASS_NAMES = "classes.txt"
"""Beside the labels, the name of each class on a line of its own; without it they are called 0, 1, 2 ..."""


class Arrays(Source):
    kind: ClassVar[str] = "arrays"
    rank: ClassVar[int] = 20

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix == ".npy" if path.is_file() else any(path.glob("*.npy"))

    def listing(self) -> Listing:
        images_path, labels_path = self._paths()
        images = _open(images_path)
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise DataError("E-DATA-051", where=str(images_path), name=images_path.name, found=_shape(images))
        count = len(images)
        nothing = np.full(count, -1, np.int64)
        width = max(5, len(str(max(count - 1, 0))))
        names = [f"{images_path.name}[{row:0{width}d}]" for row in range(count)]
        listing = Listing(names, nothing, nothing, array=images)
        if labels_path is not None:
            _label(listing, _open(labels_path), labels_path)
        return listing

    def _paths(self) -> tuple[Path, Path | None]:
        """The images, and the labels where there are some."""
        if self.path.is_file():
            return self.path, self.labels_path
        found = {path: _open(path) for path in sorted(self.path.glob("*.npy"))}
        images = [path for path, array in found.items() if array.ndim == 4]
        labels = [path for path, array in found.items() if array.ndim in (1, 2)]
        if len(images) != 1 or (self.labels_path is None and len(labels) > 1):
            listed = ", ".join(f"{path.name} ({_shape(array)})" for path, array in found.items())
            raise DataError("E-DATA-052", where=str(self.path), listed=listed)
        return images[0], self.labels_path or (labels[0] if labels else None)


def _open(path: Path) -> npt.NDArray[Any]:
    """An array of a file, unread until it is used. Pickled objects are refused, for they can run code."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as fault:
        raise DataError("E-DATA-050", where=str(path), name=path.name, problem=_problem(path, fault)) from fault
    if not isinstance(array, np.ndarray):
        raise DataError("E-DATA-050", where=str(path), name=path.name, problem="it is an archive of several arrays")
    return array


def _problem(path: Path, fault: Exception) -> str:
    if isinstance(fault, FileNotFoundError):
        return "there is no such file"
    if "pickle" in str(fault) or "bject" in str(fault):
        return "it holds Python objects, or is no array file; such files are never opened, for they can run code"
    if path.stat().st_size == 0:
        return "it is empty"
    return "it is cut off or damaged"


def _label(listing: Listing, labels: npt.NDArray[Any], path: Path) -> None:
    if labels.ndim not in (1, 2) or len(labels) != len(listing):
        raise DataError("E-DATA-053", where=str(path), name=path.name, found=_shape(labels), count=len(listing))
    names = class_names(path)
    if labels.ndim == 1:
        is_whole = np.issubdtype(labels.dtype, np.integer) or bool(np.all(labels == np.floor(labels)))
        if not is_whole or labels.min(initial=0) < 0:
            raise DataError(
                "E-DATA-054", where=str(path), name=path.name, row=0, problem="class numbers are 0, 1, 2 ..."
            )
        listing.label_ids = labels.astype(np.int32)
        count = int(listing.label_ids.max(initial=-1)) + 1
    else:
        vectors = labels.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | (vectors < 0).any(axis=1) | (vectors.sum(axis=1) <= 0))
        if len(bad):
            problem = "a label needs a share above 0 for some class, and none below"
            raise DataError("E-DATA-054", where=str(path), name=path.name, row=int(bad[0]), problem=problem)
        listing.label_ids = vectors.argmax(axis=1).astype(np.int32)
        is_one_hot = bool(np.all((vectors == 1).sum(axis=1) == 1) and np.all((vectors != 0).sum(axis=1) == 1))
        listing.label_vectors = None if is_one_hot else vectors
        count = labels.shape[1]
    if names and len(names) < count:
        raise DataError("E-DATA-055", where=str(path.with_name(CLASS_NAMES)), named=len(names), count=count)
    listing.classes = names or tuple(str(number) for number in range(count))
    if listing.label_vectors is not None and len(listing.classes) > count:
        listing.label_vectors = np.pad(listing.label_vectors, ((0, 0), (0, len(listing.classes) - count)))


def class_names(labels_path: Path) -> tuple[str, ...]:
    """The names that stand beside the labels, as lines of text or as a JSON list."""
    plain, listed = labels_path.with_name(CLASS_NAMES), labels_path.with_name("classes.json")
    if plain.is_file():
        return tuple(line.strip() for line in plain.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    if listed.is_file():
        return tuple(str(name) for name in json.loads(listed.read_text(encoding="utf-8")))
    return ()


def _shape(array: npt.NDArray[Any]) -> str:
    return f"{' x '.join(str(length) for length in array.shape) or 'a single'} {array.dtype}"
