"""Looks at every image once: hashes, full decode, conversions and fitted pixels, over all cores where it pays."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fusain.data import cores, fitting, images
from fusain.data.fitting import Crop
from fusain.data.images import Pixels
from fusain.data.shapes import Shape, Shapes
from fusain.data.source import Source
from fusain.errors import DataError

HASH_BYTES: Final = 32
SMALL: Final = "E-DATA-033"
"""The code of an image that is put aside for its size, which is what the user wants and no sign of a fault."""
CHUNK: Final = 256
PASSING_CHUNK: Final = 32
WORTH_A_POOL: Final = 2_000
"""Below this many files starting processes takes longer than it saves."""


@dataclass(frozen=True)
class Fit:
    """What an image must become, and how far to trust it."""

    shapes: Shapes
    crop: Crop
    max_pixels: int
    is_kept: bool
    """Whether the fitted pixels are wanted back."""

    def shape(self, name: str, height: int, width: int) -> Shape:
        """The shape for an image of that size; too small a one is a DataError that names it."""
        shape = self.shapes.one(height, width)
        if shape is None and self.shapes.aspect is None:
            raise DataError(SMALL, where=name, name=name, width=width, height=height, size=self.shapes.size)
        if shape is None:
            least, upscale = str(self.shapes.least(height, width)), self.shapes.max_upscale
            raise DataError(
                "E-DATA-032", where=name, name=name, width=width, height=height, least=least, upscale=f"{upscale:g}"
            )
        return shape

    def apply(self, pixels: Pixels, shape: Shape) -> Pixels:
        """As it is held: resized, and cropped where the place of the crop is no choice of each draw."""
        fitted = fitting.resized(pixels, shape)
        return fitting.centred(fitted, shape) if self.crop == "center" else fitted


@dataclass
class Examined:
    """What was found out about a chunk of M images, as columns; broken ones have shape 0 x 0 and no pixels."""

    hashes: npt.NDArray[np.uint8]
    """SHA-256 of the stored bytes, M x 32."""
    pixel_hashes: npt.NDArray[np.uint8]
    """SHA-256 of shape and decoded pixels, M x 32: equal for equal pictures however they are stored."""
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    conversions: npt.NDArray[np.uint16]
    faults: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """Code and facts by row."""
    fitted_shapes: npt.NDArray[np.int32] | None = None
    pixels: bytes = b""
    """The fitted pixels of the good images, one after the other."""

    @classmethod
    def blank(cls, count: int) -> Examined:
        return cls(
            hashes=np.zeros((count, HASH_BYTES), np.uint8),
            pixel_hashes=np.zeros((count, HASH_BYTES), np.uint8),
            heights=np.zeros(count, np.int32),
            widths=np.zeros(count, np.int32),
            conversions=np.zeros(count, np.uint16),
            fitted_shapes=np.zeros((count, 2), np.int32),
        )


def read(source: Source, name: str, max_pixels: int) -> tuple[bytes, images.Decoded]:
    """The SHA-256 of the stored bytes and the decoded image; every way to fail is a DataError that names it."""
    try:
        content = source.read(name)
    except OSError as fault:
        raise DataError("E-DATA-010", where=name, name=name, problem=fault.strerror or str(fault)) from fault
    return hashlib.sha256(content).digest(), images.decode(content, name, max_pixels)


def pixel_hash(pixels: Pixels) -> bytes:
    """Equal for equal pictures of one shape."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def examine_names(source: Source, names: Sequence[str], fit: Fit) -> Examined:
    """A chunk of files."""
    found = Examined.blank(len(names))
    hashes, pixel_hashes, kept = bytearray(), bytearray(), []
    for row, name in enumerate(names):
        try:
            content_hash, decoded = read(source, name, fit.max_pixels)
            shape = fit.shape(name, *decoded.pixels.shape[:2])
        except DataError as fault:
            found.faults[row] = fault.code, fault.facts
            hashes += bytes(HASH_BYTES)
            pixel_hashes += bytes(HASH_BYTES)
            continue
        hashes += content_hash
        pixel_hashes += pixel_hash(decoded.pixels)
        found.heights[row], found.widths[row] = decoded.pixels.shape[:2]
        found.conversions[row] = decoded.conversions
        if fit.is_kept:
            fitted = fit.apply(decoded.pixels, shape)
            kept.append(fitted.tobytes())
            assert found.fitted_shapes is not None
            found.fitted_shapes[row] = fitted.shape[:2]
    found.hashes = np.frombuffer(bytes(hashes), np.uint8).reshape(-1, HASH_BYTES)
    found.pixel_hashes = np.frombuffer(bytes(pixel_hashes), np.uint8).reshape(-1, HASH_BYTES)
    found.pixels = b"".join(kept)
    return found


def examine_rows(array: Pixels, names: Sequence[str], fit: Fit) -> Iterator[Examined]:
    """All images of an array, chunk by chunk; an array needs no decoding, and where it fits no copy is handed back."""
    height, width = array.shape[1:3]
    for start in range(0, len(array), CHUNK):
        rows = np.ascontiguousarray(array[start : start + CHUNK])
        found = Examined.blank(len(rows))
        try:
            shape = fit.shape(names[start], height, width)
        except DataError as fault:
            found.faults = {row: (fault.code, fault.facts | {"name": names[start + row]}) for row in range(len(rows))}
            yield found
            continue
        found.pixel_hashes = _hashes(rows)
        found.hashes = found.pixel_hashes
        found.heights[:], found.widths[:] = height, width
        if fit.is_kept:
            fitted = rows if shape == (height, width) else np.stack([fit.apply(image, shape) for image in rows])
            found.fitted_shapes = np.tile(np.asarray(fitted.shape[1:3], np.int32), (len(rows), 1))
            found.pixels = fitted.tobytes()
        yield found


def _hashes(rows: Pixels) -> npt.NDArray[np.uint8]:
    """`pixel_hash` of each image, for many of one shape."""
    start = hashlib.sha256(repr(rows.shape[1:]).encode())
    found = bytearray()
    for row in rows.reshape(len(rows), -1):
        digest = start.copy()
        digest.update(row.data)
        found += digest.digest()
    return np.frombuffer(bytes(found), np.uint8).reshape(-1, HASH_BYTES)


def examine_files(source: Source, names: Sequence[str], fit: Fit) -> Iterator[Examined]:
    """All files in order, chunk by chunk."""
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    pieces = [(source, chunk, fit) for chunk in chunks]
    if len(names) >= WORTH_A_POOL:
        yield from cores.spread(examine_names, pieces)
    else:
        yield from itertools.starmap(examine_names, pieces)


def examine_passing(source: Source, names: Sequence[str], fit: Fit) -> Iterator[Examined]:
    """All images that lie in memory, chunk by chunk, on threads: other processes would have to be sent them."""
    chunks = [names[start : start + PASSING_CHUNK] for start in range(0, len(names), PASSING_CHUNK)]
    with ThreadPoolExecutor(cores.usable_cores()) as pool:
        yield from pool.map(lambda chunk: examine_names(source, chunk, fit), chunks)
