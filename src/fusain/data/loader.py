"""Batches forever, from any draw on, in this process or decoded ahead by others: always the same ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from fusain.data.batch import Batch, to_pixels
from fusain.data.chance import Draws
from fusain.data.columns import Dataset
from fusain.data.dataset import Report
from fusain.data.images import Pixels
from fusain.data.order import AnyOrder
from fusain.data.quarantine import Quarantined, refuse_if_too_many
from fusain.data.settings import DataSettings
from fusain.data.workers import Workers
from fusain.errors import DataError

SUBSTITUTES_TRIED = 1_000
NO_PIXELS = np.zeros((0, 0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Made:
    """One batch as it crosses from a worker: small, and plain numbers only."""

    items: Draws
    pixels: Pixels
    broken: tuple[Quarantined, ...] = ()
    """What could not be used; `items` hold what was taken in its place."""


@dataclass
class Making:
    """Makes any batch by its number; it keeps no state, so that every worker makes the same one."""

    dataset: Dataset
    order: AnyOrder
    seed: int
    batch_size: int
    start_draw: int
    share: slice = field(default_factory=lambda: slice(None))
    """The part of each batch that is made, where other processes make the rest."""

    def draws(self, number: int) -> Draws:
        return self._whole(number)[self.share]

    def items(self, number: int) -> Draws:
        return self.order.items(self._whole(number))[self.share]

    def _whole(self, number: int) -> Draws:
        return np.arange(self.batch_size, dtype=np.int64) + (self.start_draw + number * self.batch_size)

    def __getitem__(self, number: int) -> Made:
        draws, items = self.draws(number), self.items(number)
        if self.dataset.encoded_images is not None:
            return Made(items, NO_PIXELS)
        if self.dataset.held is not None:
            return Made(items, self.dataset.pixels(items, draws, self.seed))
        fitted, used, broken = [], [], []
        for row in items.tolist():
            taken = self._image(row)
            fitted.append(taken.pixels)
            used.append(taken.row)
            broken += taken.broken
        items = np.asarray(used, dtype=np.int64)
        return Made(items, self.dataset.augmented(fitted, items, draws, self.seed), tuple(broken))

    def _image(self, row: int) -> _Taken:
        """The image, or the next good one of its shape among the training images where it broke since."""
        broken: list[Quarantined] = []
        for candidate in itertools.chain([row], self._stand_ins(row)):
            try:
                return _Taken(candidate, self.dataset.fitted(candidate), broken)
            except DataError as fault:
                broken.append(Quarantined.of(fault))
        return _Taken(row, np.zeros((*self.dataset.shapes[row], 3), np.uint8), broken)

    def _stand_ins(self, row: int) -> Iterator[int]:
        """The training images of the same kind and shape that follow, asked for only where one broke."""
        train, ids, of_class = self.dataset.train, self.dataset.bucket_ids, self.dataset.is_class_image
        alike = train[(ids[train] == ids[row]) & (of_class[train] == of_class[row])]
        place = int(np.searchsorted(alike, row))
        for step in range(1, min(len(alike), SUBSTITUTES_TRIED)):
            yield int(alike[(place + step) % len(alike)])


@dataclass(frozen=True)
class _Taken:
    row: int
    pixels: Pixels
    broken: list[Quarantined]


@dataclass
class Loader:
    """Iterates batches of full size without end; draw n is the same image whatever the batch size and the workers.

    Of `settings` only `workers` and `max_quarantined` are used: all else was settled when the data set was prepared.
    """

    dataset: Dataset
    settings: DataSettings
    seed: int = field(kw_only=True)
    batch_size: int = field(kw_only=True)
    start_draw: int = field(default=0, kw_only=True)
    share: slice = field(default_factory=lambda: slice(None), kw_only=True)
    """The part of each batch that is handed over."""
    report: Report | None = field(default=None, kw_only=True)
    timeout: float = field(default=120.0, kw_only=True)
    """Seconds after which a worker that gives no batch counts as hung."""
    order: AnyOrder | None = field(default=None, kw_only=True)
    """Which image each draw uses, where it is not as the data set says."""

    def __post_init__(self) -> None:
        self._broken: dict[str, Quarantined] = {}
        order = self.order or self.dataset.order(self.seed, self.batch_size)
        self._making = Making(self.dataset, order, self.seed, self.batch_size, self.start_draw, self.share)

    def __iter__(self) -> Iterator[Batch]:
        """Start over at `start_draw`."""
        if self.settings.workers:
            workers = Workers(self._making, self.settings.workers, self.timeout, self._tell, self._names)
            made = iter(workers)
        else:
            made = map(self._making.__getitem__, itertools.count())
        for number, one in enumerate(made):
            self._count_broken(one.broken)
            yield _batch(self.dataset, self._making.draws(number), one, self.seed)

    def _names(self, number: int) -> list[str]:
        return self.dataset.names_of(self._making.items(number))

    def _tell(self, code: str, text: str) -> None:
        if self.report is not None:
            self.report("warning", code=code, text=text)

    def _count_broken(self, broken: tuple[Quarantined, ...]) -> None:
        fresh = [entry for entry in broken if entry.name not in self._broken]
        for entry in fresh:
            self._broken[entry.name] = entry
            self._tell(entry.code, f"{entry.reason} Put aside while training ({len(self._broken):,} so far).")
        if fresh:
            refuse_if_too_many(tuple(self._broken.values()), len(self.dataset.train), self.settings.max_quarantined)


def _batch(dataset: Dataset, draws: Draws, made: Made, seed: int | None) -> Batch:
    """The named fields of a batch from its pixels and the columns of the data set; without a seed nothing is drawn."""
    items, drawn = made.items, None if seed is None else draws
    labels = None
    if dataset.label_vectors is not None:
        labels = torch.from_numpy(dataset.label_vectors[items])
    elif dataset.label_ids is not None:
        labels = torch.zeros(len(items), len(dataset.classes))
        labels[torch.arange(len(items)), torch.from_numpy(dataset.label_ids[items].astype(np.int64))] = 1.0
    weights = torch.ones(len(items)) if dataset.weights is None else torch.from_numpy(dataset.weights[items])
    captions, encoded = dataset.said(items, drawn, seed), None
    if dataset.encoded_images is not None:
        encoded = dataset.encoded_images.read(items, dataset.mirrored(drawn, seed))
    return Batch(
        draws=draws,
        items=items,
        pixels_BCHW=to_pixels(made.pixels),
        weights_B=weights,
        labels_BK=labels,
        captions=captions,
        encoded_images=encoded,
        encoded_captions=dataset.encoded_captions.read(captions or ()) if dataset.encoded_captions else None,
        masks_B1HW=dataset.masks.weights(items, drawn, seed) if dataset.masks else None,
        framings_B4=torch.from_numpy(dataset.framings(items, drawn, seed)),
    )


def held_out_batches(dataset: Dataset, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
    """The images set aside, or `limit` of them spread evenly, never mirrored, shuffled, or cropped but to their middle.

    Full batches only, for each further shape would be compiled anew; fewer images than one batch are one small batch.
    With several buckets each ends with a small batch, for else rare shapes were never measured.
    """
    count = len(dataset.held_out)
    wanted = count if limit is None else min(limit, count)
    ids = dataset.bucket_ids[dataset.held_out]
    if not (ids != ids[:1]).any():
        wanted -= wanted % batch_size if wanted > batch_size else 0
    spread = np.linspace(0, max(0, count - 1), wanted).round().astype(np.int64)
    start = 0
    for bucket in np.unique(ids[spread]).tolist():
        rows = dataset.held_out[spread][ids[spread] == bucket]
        for items in np.split(rows, range(batch_size, len(rows), batch_size)):
            draws = np.arange(start, start + len(items), dtype=np.int64)
            pixels = NO_PIXELS if dataset.encoded_images is not None else dataset.pixels(items)
            yield _batch(dataset, draws, Made(items, pixels), None)
            start += len(items)
