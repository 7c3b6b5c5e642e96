"""What a model made of the images and captions of a data set ahead of training, handed over by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from fusain.data.batch import to_pixels
from fusain.data.chance import Draws
from fusain.data.columns import Dataset
from fusain.data.shapes import Shape
from fusain.data.stored import Key, Stored, bytes_of, key, require_room
from fusain.errors import NonFiniteError

VERSION: Final = 1
"""Counts up when the same image or caption would be encoded differently."""
IMAGES_AT_ONCE: Final = 8
"""Of up to 256 pixels a side; of larger ones as many as have that area, and at least one."""
CAPTIONS_AT_ONCE: Final = 64

Encode = Callable[[torch.Tensor], torch.Tensor]
Rows = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Is told how many of how many are encoded."""


def few(most: int, area: int, *, whole: int = 256**2) -> int:
    """How many images of an area are worked on at once, where `most` is meant for areas up to `whole`."""
    return max(1, min(most, most * whole // area))


@dataclass
class EncodedImages:
    """Encoded images of a data set; where draws may be mirrored, of each image both forms."""

    dataset: Dataset
    identity: Mapping[str, object]
    """Everything beside the image that its encoding depends on."""
    open_store: Callable[[Shape], Stored]

    def __post_init__(self) -> None:
        self._stores: dict[Shape, Stored] = {}

    def forms(self) -> tuple[bool, ...]:
        return (False, True) if self.dataset.settings.flip else (False,)

    def fill(self, rows: Rows, encode: Encode, progress: Progress) -> None:
        """Encode what is missing."""
        work = [
            (shape, form, here[self._store(shape).missing(self._keys(here, form))])
            for form in self.forms()
            for shape, here in self._by_shape(rows)
        ]
        total, done = sum(len(missing) for _, _, missing in work), 0
        if work:
            needed = sum(len(missing) * bytes_of(self._store(shape).shape) for shape, _, missing in work)
            require_room(self._store(work[0][0]).folder, needed)
        for shape, form, missing in work:
            at_once = few(IMAGES_AT_ONCE, shape.height * shape.width)
            for start in range(0, len(missing), at_once):
                part = missing[start : start + at_once]
                pixels = to_pixels(self.dataset.pixels(part))
                encoded = encode(pixels.flip(3) if form else pixels)
                self._refuse_non_finite(part, encoded)
                self._store(shape).add(self._keys(part, form), encoded.float().cpu().numpy())
                done += len(part)
                progress(done, total)

    def _refuse_non_finite(self, rows: Rows, encoded: torch.Tensor) -> None:
        is_finite = torch.isfinite(encoded).flatten(1).all(dim=1).tolist()
        if not all(is_finite):
            name = self.dataset.names[rows[is_finite.index(False)]]
            raise NonFiniteError("E-TRAIN-010", where=str(self.dataset.path), name=name)

    def read(self, items: Draws, is_mirrored: npt.NDArray[np.bool_] | None) -> torch.Tensor:
        """The encoded images of one batch."""
        shape = Shape(*self.dataset.shapes[items[0]].tolist())
        forms = [False] * len(items) if is_mirrored is None else is_mirrored.tolist()
        keys = [self._key(row, form) for row, form in zip(items.tolist(), forms, strict=True)]
        return torch.from_numpy(self._store(shape).read(keys))

    def _by_shape(self, rows: Rows) -> Iterator[tuple[Shape, Rows]]:
        ids = self.dataset.bucket_ids[rows]
        for one in np.unique(ids).tolist():
            here = rows[ids == one]
            yield Shape(*self.dataset.shapes[here[0]].tolist()), here

    def _store(self, shape: Shape) -> Stored:
        if shape not in self._stores:
            self._stores[shape] = self.open_store(shape)
        return self._stores[shape]

    def _keys(self, rows: Rows, is_mirrored: bool) -> list[Key]:
        return [self._key(row, is_mirrored) for row in rows.tolist()]

    def _key(self, row: int, is_mirrored: bool) -> Key:
        content, shape = self.dataset.hashes[row].tobytes().hex(), self.dataset.shapes[row].tolist()
        return key({**self.identity, "image": content, "shape": shape, "mirrored": is_mirrored, "version": VERSION})


@dataclass
class EncodedCaptions:
    """Encoded captions by their words."""

    identity: Mapping[str, object]
    store: Stored

    def fill(
        self, captions: Sequence[str], encode: Callable[[Sequence[str]], torch.Tensor], progress: Progress
    ) -> None:
        """Encode what is missing."""
        missing = [captions[place] for place in self.store.missing([self._key(caption) for caption in captions])]
        require_room(self.store.folder, len(missing) * bytes_of(self.store.shape))
        for start in range(0, len(missing), CAPTIONS_AT_ONCE):
            part = missing[start : start + CAPTIONS_AT_ONCE]
            self.store.add([self._key(caption) for caption in part], encode(part).float().cpu().numpy())
            progress(start + len(part), len(missing))

    def read(self, captions: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(self.store.read([self._key(caption) for caption in captions]))

    def _key(self, caption: str) -> Key:
        return key({**self.identity, "caption": caption, "version": VERSION})
