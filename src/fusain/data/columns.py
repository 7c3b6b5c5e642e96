"""One data set as columns, ready to be drawn from: what is known of its images, and their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusain.data import fitting, order
from fusain.data import lock as locks
from fusain.data.captions import processed
from fusain.data.chance import Draws
from fusain.data.class_images import is_one
from fusain.data.examine import read
from fusain.data.images import Pixels
from fusain.data.index import Held
from fusain.data.order import AnyOrder, Balance, BucketOrder, Order, PairedOrder
from fusain.data.quarantine import Quarantined
from fusain.data.report import DataReport, make_report
from fusain.data.settings import DataSettings
from fusain.data.shapes import Shape, Sides, covering
from fusain.data.source import Source
from fusain.data.subjects import Subject
from fusain.errors import DataError
from fusain.settings.notice import Notice

if TYPE_CHECKING:
    from fusain.data.encoded import EncodedCaptions, EncodedImages
    from fusain.data.masks import Masks
    from fusain.data.stream import Stream


@dataclass(frozen=True)
class Bucket:
    """The training images of one shape, in one epoch."""

    shape: Shape
    images: int
    batches: int
    fill_up: int
    """Draws that use an image again, so that the last batch is full."""


@dataclass(eq=False)
class Dataset:
    """N good images as columns, in the order of their names; `train` and `held_out` are rows of them."""

    settings: DataSettings
    size: int
    seed: int
    batch_size: int
    """Images of one batch; with buckets it decides how many draws an epoch has."""
    source: Source
    names: list[str]
    hashes: npt.NDArray[np.uint8]
    pixel_hashes: npt.NDArray[np.uint8]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    shapes: Sides
    """Height and width that each image is fitted to."""
    conversions: npt.NDArray[np.uint16]
    held: Held | None
    array: Pixels | None
    classes: tuple[str, ...]
    label_ids: npt.NDArray[np.int32] | None
    label_vectors: npt.NDArray[np.float32] | None
    captions: list[str] | None
    columns: tuple[str, ...]
    """Of a metadata file."""
    weights: npt.NDArray[np.float32] | None
    repeats: npt.NDArray[np.int64] | None
    quarantined: tuple[Quarantined, ...]
    ignored: Mapping[str, int]
    is_held_out: npt.NDArray[np.bool_] | None
    subjects: tuple[Subject, ...] = ()
    class_prefix: str = ""
    mask_files: frozenset[str] = frozenset()
    train: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    held_out: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    id: str = ""
    notices: tuple[Notice, ...] = ()
    masks: Masks | None = None
    """Which part of each image is learnt, where masks say so."""
    encoded_images: EncodedImages | None = None
    encoded_captions: EncodedCaptions | None = None
    """What was encoded ahead of training; pixels and words need not be touched then."""
    stream: Stream | None = None
    """Where the images are drawn from, if these here are no more than were looked at of a stream."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def path(self) -> Path:
        return self.source.path

    @cached_property
    def is_class_image(self) -> npt.NDArray[np.bool_]:
        """Which images show the class of a subject and not the subject."""
        return np.asarray([is_one(self, name) for name in self.names], dtype=np.bool_)

    @property
    def subject_rows(self) -> npt.NDArray[np.int64]:
        """The training images but for class images."""
        return self.train[~self.is_class_image[self.train]]

    @property
    def train_entries(self) -> npt.NDArray[np.int64]:
        """The training images but for class images, each as often as it is repeated."""
        rows = self.subject_rows
        times = self.settings.repeats if self.repeats is None else self.settings.repeats * self.repeats[rows]
        return np.repeat(rows, times)

    @property
    def class_entries(self) -> npt.NDArray[np.int64]:
        """The class images, each as often as its folder says: they come up in turn, however many epochs it takes."""
        rows = self.train[self.is_class_image[self.train]]
        return rows if self.repeats is None else np.repeat(rows, self.repeats[rows])

    @property
    def class_draws(self) -> int:
        """Class images in an epoch: one beside each subject image, in buckets about as many."""
        if not self.settings.class_images.weight:
            return 0
        shared = order.shared_out(self.bucket_ids[self.class_entries], len(self.train_entries))
        return sum(shared.values()) if shared and self.settings.buckets else len(self.train_entries)

    @property
    def entries(self) -> int:
        """Draws in an epoch, with those that fill up the last batch of each bucket."""
        if self.stream is not None:
            return len(self.stream)
        return len(self.train_entries) + self.class_draws + sum(bucket.fill_up for bucket in self.buckets())

    @property
    def is_balanced(self) -> bool:
        """Whether images are drawn by the shares of their classes."""
        return self.settings.balance != "none" and self.label_ids is not None

    @cached_property
    def resized(self) -> Sides:
        """Height and width of each image once it is resized to cover its shape."""
        return covering(self.heights, self.widths, self.shapes)

    @cached_property
    def crop_loss(self) -> npt.NDArray[np.float32]:
        """The share of each image that is cropped away."""
        areas = self.resized.astype(np.float32).prod(axis=1)
        lost: npt.NDArray[np.float32] = 1 - self.shapes.astype(np.float32).prod(axis=1) / areas
        return lost

    @property
    def is_enlarged(self) -> npt.NDArray[np.bool_]:
        """Which images are smaller than what they are resized to."""
        return (self.resized[:, 0] > self.heights) | (self.resized[:, 1] > self.widths)

    def buckets(self) -> list[Bucket]:
        """The buckets that hold training images, by their heights; without buckets none."""
        if not self.settings.buckets:
            return []
        entries = np.concatenate([self.train_entries, self.class_entries])
        ids, count = self.bucket_ids[entries], len(self.train_entries)
        shared = order.shared_out(ids[count:], count)
        found = []
        for number in np.unique(ids).tolist():
            rows = entries[ids == number]
            draws = int((ids[:count] == number).sum()) + shared.get(number, 0)
            batches = order.batches_of(draws, self.batch_size)
            fill_up = 0 if self.is_balanced else batches * self.batch_size - draws
            shape = Shape(*self.shapes[rows[0]].tolist())
            found.append(Bucket(shape, len(np.unique(rows)), batches, fill_up))
        return found

    @cached_property
    def bucket_ids(self) -> npt.NDArray[np.int64]:
        """A number for each image that is equal where shapes are."""
        packed = self.shapes[:, 0].astype(np.int64) << 32 | self.shapes[:, 1]
        ids: npt.NDArray[np.int64] = np.unique(packed, return_inverse=True)[1].reshape(-1).astype(np.int64)
        return ids

    def order(self, seed: int, batch_size: int) -> AnyOrder:
        """Which image each draw uses."""
        entries, others = self.train_entries, self.class_entries
        if not self.settings.buckets:
            return PairedOrder(seed, entries, others) if len(others) else Order(seed, entries, self.chances())
        beside = (others, self.bucket_ids[others])
        return BucketOrder(seed, entries, self.bucket_ids[entries], batch_size, self.chances(), beside)

    def names_of(self, items: Draws) -> list[str]:
        return [self.names[row] for row in np.asarray(items).tolist()]

    def class_counts(self, rows: npt.NDArray[np.int64] | None = None) -> dict[str, int]:
        """Images of each class, of the whole set or of some rows; a mixture counts for its strongest class."""
        if self.label_ids is None:
            return {}
        labels = self.label_ids if rows is None else self.label_ids[rows]
        return dict(zip(self.classes, np.bincount(labels, minlength=len(self.classes)).tolist(), strict=True))

    def expected_shares(self, balance: Balance | None = None) -> dict[str, float]:
        """The share of each class among the draws of a long run."""
        if self.label_ids is None:
            return {}
        found = self._shares(balance or self.settings.balance)
        return dict(zip(self.classes, found.tolist(), strict=True))

    def chances(self) -> npt.NDArray[np.float64] | None:
        """The probability of each entry of an epoch to be a draw; None where each is drawn once an epoch."""
        if not self.is_balanced or self.label_ids is None:
            return None
        labels = self.label_ids[self.train_entries]
        counts = np.bincount(labels, minlength=len(self.classes))
        chances: npt.NDArray[np.float64] = (self._shares(self.settings.balance) / np.maximum(counts, 1))[labels]
        return chances

    def _shares(self, balance: Balance) -> npt.NDArray[np.float64]:
        assert self.label_ids is not None
        counts = np.bincount(self.label_ids[self.train_entries], minlength=len(self.classes))
        given = order.given_shares(self.settings.class_weights, self.classes) if balance == "weights" else None
        return order.shares(balance, counts, given)

    def pixels(self, items: Draws, draws: Draws | None = None, seed: int | None = None) -> Pixels:
        """Images B x H x W x 3 of one shape; with `draws` cropped and mirrored as they say, else their middle."""
        if self._whole is not None:
            return self._mirrored(self._whole[items], draws, seed)
        return self.augmented([self.fitted(row) for row in items.tolist()], items, draws, seed)

    def augmented(
        self, fitted: list[Pixels], items: Draws, draws: Draws | None = None, seed: int | None = None
    ) -> Pixels:
        """Crop and flip as functions of (seed, n); the seed of the data set where none is given."""
        shape = Shape(*self.shapes[items[0]].tolist())
        assert (self.shapes[items] == shape).all(), "the images of a batch have one shape"
        places = zip(fitted, self._corners(items, draws, seed).tolist(), strict=True)
        cropped = [fitting.cropped(image, shape, *corner) for image, corner in places]
        return self._mirrored(np.stack(cropped), draws, seed)

    def framings(self, items: Draws, draws: Draws | None = None, seed: int | None = None) -> npt.NDArray[np.int32]:
        """B x 4: height and width before resizing, then top and left of the crop in the resized, mirrored image."""
        found = self._unframed[items]
        found[:, 2:] = corners = self._corners(items, draws, seed)
        is_mirrored = self.mirrored(draws, seed)
        if is_mirrored is not None:
            found[is_mirrored, 3] = (self._unframed[items, 3] - corners[:, 1])[is_mirrored]
        return found

    def said(self, items: Draws, draws: Draws | None = None, seed: int | None = None) -> tuple[str, ...] | None:
        """The captions as they are learnt; with `draws` their parts are shuffled as those draws are."""
        if self.captions is None:
            return None
        wording, seed = self.settings.captions, self.seed if seed is None else seed
        numbers = [None] * len(items) if draws is None else draws.tolist()
        of_class = self.is_class_image  # their captions stay free of what calls for the subject
        return tuple(
            self.captions[row] if of_class[row] else processed(self.captions[row], wording, seed=seed, draw=draw)
            for row, draw in zip(items.tolist(), numbers, strict=True)
        )

    def mirrored(self, draws: Draws | None, seed: int | None = None) -> npt.NDArray[np.bool_] | None:
        """Which draws are mirrored; None where none is."""
        if draws is None or not self.settings.flip:
            return None
        return fitting.mirrored(self.seed if seed is None else seed, draws)

    @cached_property
    def _unframed(self) -> npt.NDArray[np.int32]:
        """N x 4: height and width before resizing, then how much longer each resized image is than its shape."""
        return np.column_stack([self.heights, self.widths, self.resized - self.shapes])

    def _corners(self, items: Draws, draws: Draws | None, seed: int | None) -> Sides:
        room = self._unframed[items, 2:]
        if draws is None or self.settings.crop == "center":
            return fitting.corners(room)
        return fitting.corners(room, fitting.crop_places(self.seed if seed is None else seed, draws))

    def _mirrored(self, images: Pixels, draws: Draws | None, seed: int | None) -> Pixels:
        is_mirrored = self.mirrored(draws, seed)
        return images if is_mirrored is None else fitting.flipped(images, is_mirrored)

    @cached_property
    def _whole(self) -> Pixels | None:
        """All images as one array, where they are held as they are learnt but for mirroring."""
        block = self.held.block if self.held is not None else None
        return block if block is not None and bool((self.shapes == block.shape[1:3]).all()) else None

    def fitted(self, row: int) -> Pixels:
        """One resized image, from memory or from its file; a file that broke or changed since is a DataError."""
        if self.held is not None:
            return self.held.image(row)
        shape = Shape(*self.shapes[row].tolist())
        if self.array is not None:
            return fitting.resized(np.asarray(self.array[row]), shape)
        name = self.names[row]
        content_hash, decoded = read(self.source, name, self.settings.max_pixels)
        if content_hash != self.hashes[row].tobytes():
            raise DataError("E-DATA-021", where=name, name=name, change=f"1 changed ('{name}')")
        return fitting.resized(decoded.pixels, shape)

    def lock(self) -> dict[str, Any]:
        """What a run writes down before it trains, as JSON."""
        return locks.write(self)

    def report(self) -> DataReport:
        """What there is to know of the data before training."""
        return make_report(self)
