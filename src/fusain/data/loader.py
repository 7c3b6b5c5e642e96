"""Batches forever, from any draw on, in this process or decoded ahead by others: always the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from fusain.data.batch import Batch, to_pixels
from fusain.data.chance import Draws
from fusain.data.dataset import Dataset, Report
from fusain.data.images import Pixels
from fusain.data.order import Order
from fusain.data.quarantine import Quarantined, refuse_if_too_many
from fusain.data.settings import DataSettings
from fusain.data.workers import Workers
from fusain.errors import DataError

SUBSTITUTES_TRIED = 1_000


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
    order: Order
    seed: int
    batch_size: int
    start_draw: int

    def draws(self, number: int) -> Draws:
        return np.arange(self.batch_size, dtype=np.int64) + (self.start_draw + number * self.batch_size)

    def __getitem__(self, number: int) -> Made:
        draws = self.draws(number)
        items = self.order.items(draws)
        if self.dataset.held is not None:
            return Made(items, self.dataset.pixels(items, draws, self.seed))
        fitted, used, broken = [], [], []
        for row in items.tolist():
            taken = self._image(row)
            fitted.append(taken.pixels)
            used.append(taken.row)
            broken += taken.broken
        return Made(np.asarray(used, dtype=np.int64), self.dataset.augmented(fitted, draws, self.seed), tuple(broken))

    def _image(self, row: int) -> _Taken:
        """The image, or the next good one among the training images where it broke since it was looked at."""
        train = self.dataset.train
        broken: list[Quarantined] = []
        place = int(np.searchsorted(train, row))
        for step in range(min(len(train), SUBSTITUTES_TRIED)):
            candidate = int(train[(place + step) % len(train)])
            try:
                return _Taken(candidate, self.dataset.fitted(candidate), broken)
            except DataError as fault:
                broken.append(Quarantined.of(fault))
        return _Taken(row, np.zeros((self.dataset.size, self.dataset.size, 3), np.uint8), broken)


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
    report: Report | None = field(default=None, kw_only=True)
    timeout: float = field(default=120.0, kw_only=True)
    """Seconds after which a worker that gives no batch counts as hung."""

    def __post_init__(self) -> None:
        self._broken: dict[str, Quarantined] = {}
        order = Order(self.seed, self.dataset.train_entries, self.dataset.chances())
        self._making = Making(self.dataset, order, self.seed, self.batch_size, self.start_draw)

    def __iter__(self) -> Iterator[Batch]:
        """Start over at `start_draw`."""
        if self.settings.workers:
            workers = Workers(self._making, self.settings.workers, self.timeout, self._tell, self._names)
            made = iter(workers)
        else:
            made = map(self._making.__getitem__, _counting())
        for number, one in enumerate(made):
            self._count_broken(one.broken)
            yield _batch(self.dataset, self._making.draws(number), one.items, one.pixels)

    def _names(self, number: int) -> list[str]:
        return self.dataset.names_of(self._making.order.items(self._making.draws(number)))

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


def _counting() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _batch(dataset: Dataset, draws: Draws, items: Draws, pixels: Pixels) -> Batch:
    """The named fields of a batch from its pixels and the columns of the data set."""
    labels = None
    if dataset.label_vectors is not None:
        labels = torch.from_numpy(dataset.label_vectors[items])
    elif dataset.label_ids is not None:
        labels = torch.zeros(len(items), len(dataset.classes))
        labels[torch.arange(len(items)), torch.from_numpy(dataset.label_ids[items].astype(np.int64))] = 1.0
    weights = torch.ones(len(items)) if dataset.weights is None else torch.from_numpy(dataset.weights[items])
    captions = tuple(dataset.captions[row] for row in items.tolist()) if dataset.captions is not None else None
    return Batch(draws, items, to_pixels(pixels), weights, labels, captions)


def held_out_batches(dataset: Dataset, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
    """The images set aside, or `limit` of them spread evenly, never mirrored and cropped from the middle.

    Full batches only, for each further shape would be compiled anew; fewer images than one batch are one small batch.
    """
    count = len(dataset.held_out)
    wanted = count if limit is None else min(limit, count)
    wanted -= wanted % batch_size if wanted > batch_size else 0
    spread = np.linspace(0, max(0, count - 1), wanted).round().astype(np.int64)
    rows = dataset.held_out[spread]
    for start in range(0, wanted, batch_size):
        items = rows[start : start + batch_size]
        draws = np.arange(start, start + len(items), dtype=np.int64)
        yield _batch(dataset, draws, items, dataset.pixels(items))
