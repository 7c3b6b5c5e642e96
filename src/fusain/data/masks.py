"""Which part of each image is learnt: masks that lie beside the images, or the images' own transparency."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from fusain.data import fitting, images
from fusain.data.chance import Draws
from fusain.data.examine import read
from fusain.data.images import Pixels
from fusain.data.lock import some
from fusain.data.scan import MASK_ENDING
from fusain.data.shapes import Shape
from fusain.errors import DataError
from fusain.settings.notice import Notice
from fusain.settings.section import Section, advanced, basic

if TYPE_CHECKING:
    from fusain.data.columns import Dataset

SHOWN: Final = 5
_ALL: Final = 255


class MaskSettings(Section):
    """Learn a part of each image, such as the subject without what stands around it."""

    use: Literal["none", "files", "alpha"] = basic("none")
    """`files`: beside each image a grey one called `NAME-masklabel.png`, white where it is learnt. `alpha`: each
    image's own transparency."""
    outside: float = advanced(0.1, ge=0, le=1)
    """How much a pixel outside the mask counts. At 0 it is left open what is there, and anything may be drawn."""

    def silent_settings(self) -> dict[str, str]:
        return {} if self.use != "none" else {"outside": 'there are no masks (data.masks.use = "none")'}


@dataclass(frozen=True)
class Masks:
    """The masks of a data set, read when they are drawn."""

    dataset: Dataset
    rows: frozenset[int]
    """Images that have one; all others are learnt whole."""
    hashes: tuple[str, ...]
    """Of each image's mask, "" where it has none."""

    def weights(self, items: Draws, draws: Draws | None, seed: int | None) -> torch.Tensor:
        """How much each pixel counts, B x 1 x H x W, cropped and mirrored as the images are."""
        fitted = [self._fitted(row) for row in items.tolist()]
        shown = self.dataset.augmented(fitted, items, draws, seed).astype(np.float32) / _ALL
        outside = self.dataset.settings.masks.outside
        return torch.from_numpy(outside + (1 - outside) * shown).unsqueeze(1)

    def _fitted(self, row: int) -> Pixels:
        shape = Shape(*self.dataset.shapes[row].tolist())
        if row not in self.rows:
            return np.full(shape, _ALL, np.uint8)
        mask = _read(self.dataset, row)
        return fitting.resized(mask.pixels, shape)


@dataclass(frozen=True)
class _Mask:
    pixels: Pixels
    content: str
    """Digest of the stored bytes."""


def name_of(image: str) -> str:
    """The name of an image's mask."""
    return os.path.splitext(image)[0] + MASK_ENDING


def look_at(dataset: Dataset) -> Masks | None:
    """The masks that the settings ask for, each decoded once; what does not fit is told at once, by name."""
    if dataset.settings.masks.use == "none":
        return None
    rows = _with_masks(dataset)
    if dataset.settings.masks.use == "files":
        _refuse_shared(dataset, rows)
    found = {row: _read_or_fault(dataset, row) for row in rows}
    problems = [
        problem
        for row, mask in found.items()
        if (problem := mask if isinstance(mask, str) else _problem(dataset, row, mask.pixels)) is not None
    ]
    if problems:
        shown = "\n".join(f"    {problem}" for problem in problems[:SHOWN])
        raise DataError("E-MASK-001", where=str(dataset.path), count=f"{len(problems):,}", shown=shown)
    if not found:
        raise DataError("E-MASK-002", where="data.masks.use", use=dataset.settings.masks.use, path=dataset.path)
    hashes = [mask.content if isinstance(mask := found.get(row), _Mask) else "" for row in range(len(dataset))]
    return Masks(dataset, frozenset(found), tuple(hashes))


def worth_a_word(dataset: Dataset) -> Iterator[Notice]:
    """Images without a mask, masks without an image, and masks that nobody asked for."""
    use, files = dataset.settings.masks.use, dataset.mask_files
    if use == "none" and files:
        yield Notice("W-MASK-003", count=f"{len(files):,}", names=some(sorted(files), SHOWN))
    if dataset.masks is not None:
        alone = [row for row in np.flatnonzero(~dataset.is_class_image).tolist() if row not in dataset.masks.rows]
        if alone:
            names = some([dataset.names[row] for row in alone], SHOWN)
            yield Notice("W-MASK-001", count=f"{len(alone):,}", names=names)
    if use == "files" and (orphans := sorted(files - {name_of(name) for name in dataset.names})):
        yield Notice("W-MASK-002", count=f"{len(orphans):,}", names=some(orphans, SHOWN))


def _refuse_shared(dataset: Dataset, rows: list[int]) -> None:
    """One mask that several images would be learnt by, as a.jpg and a.png beside a-masklabel.png."""
    claimed: dict[str, list[str]] = {}
    for name in dataset.names_of(np.asarray(rows, np.int64)):
        claimed.setdefault(name_of(name), []).append(name)
    shared = [[*images_, mask] for mask, images_ in claimed.items() if len(images_) > 1]
    if shared:
        shown = "\n".join("    " + ", ".join(f"'{name}'" for name in names) for names in shared[:SHOWN])
        raise DataError("E-MASK-004", where=str(dataset.path), count=f"{len(shared):,}", shown=shown)


def _with_masks(dataset: Dataset) -> list[int]:
    rows: npt.NDArray[np.int64] = np.flatnonzero(~dataset.is_class_image)
    if dataset.settings.masks.use == "files":
        return [row for row in rows.tolist() if name_of(dataset.names[row]) in dataset.mask_files]
    return [row for row in rows.tolist() if dataset.conversions[row] & images.Conversion.ALPHA]


def _read(dataset: Dataset, row: int) -> _Mask:
    name, most = dataset.names[row], dataset.settings.max_pixels
    if dataset.settings.masks.use == "alpha":
        content = dataset.source.read(name)
        return _Mask(images.opacity(content, name), hashlib.sha256(content).hexdigest())
    digest, decoded = read(dataset.source, name_of(name), most)
    red, green, blue = (decoded.pixels[..., channel] for channel in range(3))
    if (red != green).any() or (red != blue).any():
        raise DataError("E-MASK-003", where=name_of(name), name=name_of(name))
    return _Mask(red, digest.hex())


def _read_or_fault(dataset: Dataset, row: int) -> _Mask | str:
    try:
        return _read(dataset, row)
    except DataError as fault:
        return fault.message.what


def _problem(dataset: Dataset, row: int, mask: Pixels) -> str | None:
    """What is wrong with a mask, if anything."""
    image, size = dataset.names[row], (int(dataset.heights[row]), int(dataset.widths[row]))
    name = name_of(image) if dataset.settings.masks.use == "files" else image
    if mask.shape != size:
        return f"'{name}' has {mask.shape[1]} x {mask.shape[0]} pixels, '{image}' {size[1]} x {size[0]}."
    if not mask.any():
        what = "is black all over" if dataset.settings.masks.use == "files" else "is transparent all over"
        return f"'{name}' {what}: nothing of '{image}' would be learnt."
    return None
