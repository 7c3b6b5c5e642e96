"""What a run writes down of its data before it trains, and how it finds out later that the data is another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fusain.errors import DataError

if TYPE_CHECKING:
    from fusain.data.columns import Dataset

VERSION: Final = 1
NAMES_SHOWN: Final = 3


def identity(dataset: Dataset) -> str:
    """SHA-256 over names, contents, labels and captions."""
    digest = hashlib.sha256()
    for column in (list(dataset.classes), dataset.names):
        digest.update(json.dumps(column, separators=(",", ":")).encode())
    digest.update(np.ascontiguousarray(dataset.hashes).data)
    digest.update("".join(texts(dataset)).encode())
    return digest.hexdigest()


def texts(dataset: Dataset) -> list[str]:
    """A short digest of what each image is said to show, and of how much it counts."""
    told = (dataset.captions, dataset.label_vectors, dataset.weights, dataset.repeats, dataset.masks)
    if all(column is None for column in told):
        if dataset.label_ids is None:
            return [_digest(None)] * len(dataset)
        by_label = {label: _digest(_class_name(dataset, label)) for label in np.unique(dataset.label_ids).tolist()}
        return [by_label[label] for label in dataset.label_ids.tolist()]
    return [_digest(_said(dataset, row)) for row in range(len(dataset))]


def _said(dataset: Dataset, row: int) -> list[Any]:
    label: Any = None
    if dataset.label_vectors is not None:
        label = dataset.label_vectors[row].tolist()
    elif dataset.label_ids is not None:
        label = _class_name(dataset, int(dataset.label_ids[row]))
    caption = dataset.captions[row] if dataset.captions is not None else None
    weight = float(dataset.weights[row]) if dataset.weights is not None else 1.0
    said = [label, caption, weight, int(dataset.repeats[row]) if dataset.repeats is not None else 1]
    return said if dataset.masks is None else [*said, dataset.masks.hashes[row]]


def _class_name(dataset: Dataset, label: int) -> str | None:
    return dataset.classes[label] if label >= 0 else None


def _digest(said: Any) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def write(dataset: Dataset) -> dict[str, Any]:
    """The lock as JSON: columns of one row an image, in the order of the names; of a stream also its files."""
    return {
        "version": VERSION,
        "id": dataset.id,
        "classes": list(dataset.classes),
        "held_out": dataset.held_out.tolist(),
        "quarantined": [[entry.name, entry.code] for entry in dataset.quarantined],
        "names": dataset.names,
        "hashes": _hex(dataset.hashes),
        "texts": texts(dataset),
        **({"stream": dataset.stream.lock()} if dataset.stream is not None else {}),
    }


def _hex(hashes: npt.NDArray[np.uint8]) -> list[str]:
    return [row.hex() for row in np.ascontiguousarray(hashes).view(f"V{hashes.shape[1]}").reshape(-1).tolist()]


def held_out(dataset: Dataset, lock: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The rows that the lock sets aside, if the data is still what was locked."""
    if lock.get("version") != VERSION:
        raise DataError("E-DATA-024", where="data.lock.json", found=lock.get("version"), known=VERSION)
    if lock["id"] != dataset.id:
        raise DataError("E-DATA-021", where=str(dataset.path), change=difference(dataset, lock))
    return np.asarray(lock["held_out"], dtype=np.int64)


def difference(dataset: Dataset, lock: Mapping[str, Any]) -> str:
    """What was added, removed and changed since, each with a few names."""
    before = dict(zip(lock["names"], zip(lock["hashes"], lock["texts"], strict=True), strict=True))
    now = dict(zip(dataset.names, zip(_hex(dataset.hashes), texts(dataset), strict=True), strict=True))
    both = [name for name in now if name in before]
    kinds = (
        ("added", [name for name in now if name not in before]),
        ("removed", [name for name in before if name not in now]),
        ("changed", [name for name in both if now[name][0] != before[name][0]]),
        ("labelled, captioned or masked anew", [name for name in both if now[name][1] != before[name][1]]),
    )
    told = [f"{len(names):,} {kind} ({some(names)})" for kind, names in kinds if names]
    return "; ".join(told) or f"the classes are {', '.join(dataset.classes)}, not {', '.join(lock['classes'])}"


def some(names: Sequence[str], shown: int = NAMES_SHOWN) -> str:
    """The first few names, and that there are more."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(f"'{name}'" for name in names[:shown]) + more
