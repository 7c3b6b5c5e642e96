"""One data set, ready to be drawn from: its settings, its columns, what is set aside, and its identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusain.data import fitting, index_cache, manifest, notices, order, split
from fusain.data import lock as locks
from fusain.data.chance import Draws
from fusain.data.examine import CHUNK, Fit, read
from fusain.data.images import Pixels
from fusain.data.index import Held
from fusain.data.order import Balance
from fusain.data.quarantine import Quarantined, refuse_if_too_many
from fusain.data.report import DataReport, make_report
from fusain.data.settings import DataSettings, kinds
from fusain.data.source import EXTENSIONS, Listing, Source, resolved
from fusain.errors import DataError
from fusain.settings.notice import Notice

__all__ = ["DataSettings", "Dataset", "check_batch", "prepare"]

Report = Callable[..., None]
"""Called like an event log: report("warning", code=..., text=...) and report("indexing", done=..., total=...)."""
PROGRESS_EVERY = 2_048


@dataclass(eq=False)
class Dataset:
    """N good images as columns, in the order of their names; `train` and `held_out` are rows of them."""

    settings: DataSettings
    size: int
    seed: int
    source: Source
    names: list[str]
    hashes: npt.NDArray[np.uint8]
    pixel_hashes: npt.NDArray[np.uint8]
    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    conversions: npt.NDArray[np.uint16]
    held: Held | None
    array: Pixels | None
    classes: tuple[str, ...]
    label_ids: npt.NDArray[np.int32] | None
    label_vectors: npt.NDArray[np.float32] | None
    captions: list[str] | None
    weights: npt.NDArray[np.float32] | None
    repeats: npt.NDArray[np.int64] | None
    quarantined: tuple[Quarantined, ...]
    ignored: Mapping[str, int]
    is_held_out: npt.NDArray[np.bool_] | None
    train: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    held_out: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    id: str = ""
    notices: tuple[Notice, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def train_entries(self) -> npt.NDArray[np.int64]:
        """The training images, each as often as it is repeated."""
        times = self.settings.repeats if self.repeats is None else self.settings.repeats * self.repeats[self.train]
        return np.repeat(self.train, times)

    @property
    def entries(self) -> int:
        """Draws in an epoch."""
        if self.repeats is None:
            return len(self.train) * self.settings.repeats
        return int(self.repeats[self.train].sum()) * self.settings.repeats

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
        if self.settings.balance == "none" or self.label_ids is None:
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
        """Images B x size x size x 3; with `draws` cropped and mirrored as those draws are, else from their middle."""
        block = self.held.block if self.held is not None else None
        if block is not None and block.shape[1:3] == (self.size, self.size):
            return self.augmented(block[items], draws, seed)
        return self.augmented([self.fitted(row) for row in np.asarray(items).tolist()], draws, seed)

    def augmented(self, fitted: Pixels | list[Pixels], draws: Draws | None, seed: int | None = None) -> Pixels:
        """Crop and flip as functions of (seed, n); the seed of the data set where none is given."""
        seed = self.seed if seed is None else seed
        if isinstance(fitted, list):
            fitted = np.stack(self._cropped(fitted, draws, seed))
        if draws is not None and self.settings.flip:
            fitted = fitting.flipped(fitted, seed, draws)
        return fitted

    def _cropped(self, fitted: list[Pixels], draws: Draws | None, seed: int) -> list[Pixels]:
        if draws is None or self.settings.crop == "center":
            return [fitting.centred(image, self.size) for image in fitted]
        places = fitting.crop_places(seed, draws)
        return [fitting.cropped(image, self.size, place) for image, place in zip(fitted, places, strict=True)]

    def fitted(self, row: int) -> Pixels:
        """One resized image, from memory or from its file; a file that broke or changed since is a DataError."""
        if self.held is not None:
            return self.held.image(row)
        if self.array is not None:
            return fitting.resized(np.asarray(self.array[row]), self.size)
        name = self.names[row]
        content_hash, decoded = read(self.source, name, self.settings.max_pixels)
        if content_hash != self.hashes[row].tobytes():
            raise DataError("E-DATA-021", where=name, name=name, change=f"1 changed ('{name}')")
        return fitting.resized(decoded.pixels, self.size)

    def lock(self) -> dict[str, Any]:
        """What a run writes down before it trains, as JSON."""
        return locks.write(self)

    def report(self) -> DataReport:
        """What there is to know of the data before training."""
        return make_report(self)


def prepare(
    settings: DataSettings,
    *,
    size: int,
    seed: int = 0,
    lock: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Dataset:
    """Everything of `data.path`, looked at and split; with a lock the split is the locked one, or an error."""
    tell = report or (lambda kind, **facts: None)
    dataset = _looked_at(settings, size, seed, tell)
    dataset.id = locks.identity(dataset)
    if lock is not None:
        dataset.held_out = locks.held_out(dataset, lock)
    else:
        dataset.held_out = _set_aside(dataset)
    dataset.train = np.setdiff1d(np.arange(len(dataset)), dataset.held_out, assume_unique=True)
    if settings.balance != "none":
        if dataset.label_ids is None:
            raise DataError("E-DATA-062", where="data.balance", balance=settings.balance, kind=dataset.source.kind)
        dataset.expected_shares()
    dataset.notices += tuple(notices.worth_a_word(dataset))
    for notice in dataset.notices:
        tell("warning", code=notice.code, text=notice.message.what)
    return dataset


def _looked_at(settings: DataSettings, size: int, seed: int, tell: Report) -> Dataset:
    """Listed and decoded once; what is broken is put aside by name, unless it is too much."""
    source = _source(settings)
    listing = source.listing()
    if not listing.names and not listing.faults:
        raise _no_images(source, listing)
    limit = int(settings.memory_gb * 1e9)
    fit = Fit(size, settings.crop, settings.max_pixels, is_kept=len(listing) * size * size * 3 <= limit)
    said: list[Notice] = []

    def progress(done: int, total: int) -> None:
        if done % PROGRESS_EVERY < CHUNK or done == total:
            tell("indexing", done=done, total=total)

    def cache_failed(problem: str) -> None:
        said.append(Notice("W-DATA-006", folder=index_cache.folder(), problem=problem))

    index = manifest.build(source, listing, fit, limit=limit, progress=progress, warn=cache_failed)
    quarantined = tuple(sorted((*listing.faults, *index.quarantined()), key=lambda entry: entry.name))
    refuse_if_too_many(quarantined, len(quarantined) + len(listing) - len(index.faults), settings.max_quarantined)
    good = index.good()
    listing = listing.take(good)
    return Dataset(
        settings=settings,
        size=size,
        seed=seed,
        source=source,
        names=listing.names,
        hashes=index.hashes[good],
        pixel_hashes=index.pixel_hashes[good],
        heights=index.heights[good],
        widths=index.widths[good],
        conversions=index.conversions[good],
        held=index.held,
        array=listing.array,
        classes=listing.classes,
        label_ids=listing.label_ids,
        label_vectors=listing.label_vectors,
        captions=listing.captions,
        weights=listing.weights,
        repeats=listing.repeats,
        quarantined=quarantined,
        ignored=listing.ignored,
        is_held_out=listing.is_held_out,
        notices=tuple(said),
    )


def _source(settings: DataSettings) -> Source:
    path = resolved(settings.path)
    labels_path = resolved(settings.labels_path, "data.labels_path") if settings.labels_path is not None else None
    sources = kinds()
    if settings.kind != "auto":
        return sources[settings.kind](path, labels_path)
    for source in sources.values():
        if source.recognises(path):
            return source(path, labels_path)
    raise DataError("E-DATA-004", where="data.path", path=path, kinds=", ".join(sources))


def _no_images(source: Source, listing: Listing) -> DataError:
    others = ", ".join(f"{count:,} {end}" for end, count in listing.ignored.items()) or "no file at all"
    return DataError(
        "E-DATA-003",
        where="data.path",
        path=source.path,
        kind=source.kind,
        folders=listing.folders,
        others=others,
        extensions=" ".join(EXTENSIONS),
    )


def _set_aside(dataset: Dataset) -> npt.NDArray[np.int64]:
    """The user's own split where there is one and `auto` leaves it to him, else one by content."""
    wanted = dataset.settings.held_out
    if wanted == "auto" and dataset.is_held_out is not None:
        leaking = split.leaks(dataset.pixel_hashes, dataset.is_held_out)
        if leaking:
            shown = notices.paired(dataset, leaking)
            raise DataError("E-DATA-023", where=str(dataset.path), count=f"{len(leaking):,}", shown=shown)
        if dataset.is_held_out.all():
            raise DataError("E-DATA-022", where="data.path", number=f"{len(dataset):,}", count=f"{len(dataset):,}")
        return np.flatnonzero(dataset.is_held_out)
    number = split.wanted(wanted, len(dataset))
    return split.choose(dataset.seed, dataset.pixel_hashes, dataset.label_ids, number)


def check_batch(dataset: Dataset, *, batch_size: int, accumulation: int = 1, processes: int = 1) -> None:
    """A step may not use an image twice: the images of an epoch must fill one."""
    needed = batch_size * accumulation * processes
    if dataset.entries >= needed:
        return
    raise DataError(
        "E-DATA-031",
        where="train.batch_size",
        batch=batch_size,
        accumulation=accumulation,
        processes=processes,
        needed=needed,
        entries=dataset.entries,
        images=len(dataset.train),
        repeats=dataset.settings.repeats,
        fits=max(1, dataset.entries // (accumulation * processes)),
        enough=-(-needed * dataset.settings.repeats // dataset.entries) if dataset.entries else needed,
        more=-(-needed // dataset.settings.repeats) - len(dataset.train),
    )
