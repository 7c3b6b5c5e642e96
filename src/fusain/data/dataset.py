"""From a path to a data set: listed, looked at, checked, split, and told what is worth a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusain.data import class_images, index_cache, manifest, masks, notices, split
from fusain.data import lock as locks
from fusain.data.class_images import ClassImageSettings, Drawn
from fusain.data.columns import Dataset
from fusain.data.examine import CHUNK, SMALL, Fit
from fusain.data.quarantine import Quarantined, refuse_if_too_many
from fusain.data.settings import DataSettings, kinds
from fusain.data.shapes import Shapes
from fusain.data.source import EXTENSIONS, Listing, Source, resolved
from fusain.data.subjects import SubjectSettings
from fusain.errors import DataError
from fusain.settings.notice import Notice

__all__ = ["DataSettings", "Dataset", "check_batch", "prepare"]

Report = Callable[..., None]
"""Called like an event log: report("warning", code=..., text=...) and report("indexing", done=..., total=...)."""
PROGRESS_EVERY = 2_048
NAMES_SHOWN = 5


def prepare(
    settings: DataSettings,
    *,
    size: int,
    multiple: int = 8,
    batch_size: int = 1,
    needs_captions: bool = False,
    seed: int = 0,
    lock: Mapping[str, Any] | None = None,
    report: Report | None = None,
    drawn: Drawn | None = None,
) -> Dataset:
    """Everything of `data.path`, looked at and split; with a lock the split is the locked one, or an error.

    `multiple` is what the sides of buckets are multiples of; `drawn` gives class images where the settings want some.
    """
    tell = report or (lambda kind, **facts: None)
    if not needs_captions:  # then nothing tells the images of a subject from those of its class
        settings = settings.model_copy(update={"class_images": ClassImageSettings(), "subject": SubjectSettings()})
    source, listing = _listed(settings, drawn)
    dataset = looked_at(settings, source, listing, settings.shapes(size, multiple), batch_size, seed, tell)
    if needs_captions:
        require_captions(dataset)
    dataset.masks = masks.look_at(dataset)
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


def _listed(settings: DataSettings, drawn: Drawn | None) -> tuple[Source, Listing]:
    """Everything of `data.path`, with the class images that belong to it."""
    source = _source(settings)
    listing = source.listing()
    if not listing.faults and all(class_images.is_one(listing, name) for name in listing.names):
        raise _no_images(source, listing)
    if settings.caption_column is not None and settings.caption_column not in listing.columns:
        raise no_column(settings.caption_column, source, listing.columns)
    return class_images.settled(settings, source, listing, open_source=_opened, drawn=drawn)


def looked_at(
    settings: DataSettings,
    source: Source,
    listing: Listing,
    shapes: Shapes,
    batch_size: int,
    seed: int,
    tell: Report,
) -> Dataset:
    """Decoded once; what is broken is put aside by name, unless it is too much."""
    limit = int(settings.memory_gb * 1e9)
    is_kept = len(listing) * shapes.size**2 * 3 <= limit
    fit = Fit(shapes, settings.crop, settings.max_pixels, is_kept=is_kept)
    said = list(listing.notices)

    def progress(done: int, total: int) -> None:
        if done % PROGRESS_EVERY < CHUNK or done == total:
            tell("indexing", done=done, total=total)

    def cache_failed(problem: str) -> None:
        said.append(Notice("W-DATA-006", folder=index_cache.folder(), problem=problem))

    index = manifest.build(source, listing, fit, limit=limit, progress=progress, warn=cache_failed)
    quarantined = tuple(sorted((*listing.faults, *index.quarantined()), key=lambda entry: entry.name))
    good = index.good()
    listing = listing.take(good)
    _refuse_if_too_many(quarantined, listing, settings.max_quarantined)
    return Dataset(
        settings=settings,
        size=shapes.size,
        seed=seed,
        batch_size=batch_size,
        source=source,
        names=listing.names,
        hashes=index.hashes[good],
        pixel_hashes=index.pixel_hashes[good],
        heights=index.heights[good],
        widths=index.widths[good],
        shapes=shapes.of(index.heights[good], index.widths[good]),
        conversions=index.conversions[good],
        held=index.held,
        array=listing.array,
        classes=listing.classes,
        label_ids=listing.label_ids,
        label_vectors=listing.label_vectors,
        captions=listing.captions,
        columns=listing.columns,
        weights=listing.weights,
        repeats=listing.repeats,
        quarantined=quarantined,
        ignored=listing.ignored,
        is_held_out=listing.is_held_out,
        notices=tuple(said),
        subjects=listing.subjects,
        class_prefix=listing.class_prefix,
        mask_files=listing.mask_files,
    )


def _refuse_if_too_many(quarantined: tuple[Quarantined, ...], good: Listing, most: float) -> None:
    """Subject images apart from class images, for many of the one make up for none of the other."""
    for of_class in (False, True) if good.class_prefix else (False,):
        aside = [entry for entry in quarantined if class_images.is_one(good, entry.name) == of_class]
        count = sum(class_images.is_one(good, name) == of_class for name in good.names)
        if count:  # small ones are put aside on wish, however many they are
            aside = [entry for entry in aside if entry.code != SMALL]
        if aside or count:
            refuse_if_too_many(aside, len(aside) + count, most)


def _source(settings: DataSettings) -> Source:
    labels_path = resolved(settings.labels_path, "data.labels_path") if settings.labels_path is not None else None
    if settings.kind != "auto":
        kind, found = kinds()[settings.kind], resolved(settings.path)
        source = kind(found, labels_path, settings.caption_column, settings.image_column)
    else:
        source = _opened(settings.path, "data.path", labels_path, settings.caption_column, settings.image_column)
    if settings.image_column is not None and not source.has_image_columns:
        columns = f"none, for it is of kind '{source.kind}'"
        raise DataError("E-DATA-081", where="data.image_column", column=settings.image_column, columns=columns)
    return source


def _opened(
    path: Path,
    key: str,
    labels_path: Path | None = None,
    caption_column: str | None = None,
    image_column: str | None = None,
) -> Source:
    """The source that recognises the path which the setting `key` holds."""
    found, sources = resolved(path, key), kinds()
    for source in sources.values():
        if source.recognises(found):
            return source(found, labels_path, caption_column, image_column)
    raise DataError("E-DATA-004", where=key, path=found, kinds=", ".join(sources))


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


def no_column(column: str, source: Source, columns: Sequence[str]) -> DataError:
    known = ", ".join(name for name in columns if name != "file_name")
    found = f"its columns are: {known}" if known else f"data of kind '{source.kind}' has no columns"
    return DataError("E-CAP-002", where="data.caption_column", column=column, found=found)


def require_captions(dataset: Dataset) -> None:
    """Images without a caption are an error, unless the user has said what they are learnt with."""
    if dataset.captions is None:
        dataset.captions = [""] * len(dataset)
    missing = np.flatnonzero([not caption for caption in dataset.captions])
    if not len(missing) or dataset.settings.captions.missing != "refuse":
        return
    if dataset.columns:
        places = f"the column of the metadata that data.caption_column names (there are: {', '.join(dataset.columns)})"
    else:
        places = "a .txt or .caption file of the same name beside each image"
    raise DataError(
        "E-CAP-001",
        where=str(dataset.path),
        missing=f"{len(missing):,}",
        count=f"{len(dataset):,}",
        names=locks.some(dataset.names_of(missing), NAMES_SHOWN),
        places=places,
    )


def _set_aside(dataset: Dataset) -> npt.NDArray[np.int64]:
    """The user's own split where there is one and `auto` leaves it to him, else one by content."""
    wanted = dataset.settings.held_out
    if wanted == "auto" and dataset.is_held_out is not None:
        leaking = split.leaks(dataset.pixel_hashes, dataset.is_held_out)
        if leaking:
            shown = notices.paired(dataset, leaking)
            raise DataError("E-DATA-023", where=str(dataset.path), count=f"{len(leaking):,}", shown=shown)
        if dataset.is_held_out[~dataset.is_class_image].all():
            raise DataError("E-DATA-022", where="data.path", number=f"{len(dataset):,}", count=f"{len(dataset):,}")
        return np.flatnonzero(dataset.is_held_out)
    rows = np.flatnonzero(~dataset.is_class_image)
    number = split.wanted(wanted, len(rows))
    labels = dataset.label_ids[rows] if dataset.label_ids is not None else None
    return rows[split.choose(dataset.seed, dataset.pixel_hashes[rows], labels, number)]


def check_batch(dataset: Dataset, *, batch_size: int, accumulation: int = 1) -> None:
    """A step may not use an image twice: the images of an epoch must fill one."""
    needed = batch_size * accumulation
    if dataset.stream is not None:
        dataset.stream.check_step(needed)
        return
    entries = len(dataset.train_entries)
    if entries + dataset.class_draws >= needed:
        return
    raise DataError(
        "E-DATA-031",
        where="train.batch_size",
        batch=batch_size,
        accumulation=accumulation,
        needed=needed,
        entries=entries,
        images=len(dataset.subject_rows),
        repeats=dataset.settings.repeats,
        fits=max(1, entries // accumulation),
        enough=-(-needed * dataset.settings.repeats // entries) if entries else needed,
        more=-(-needed // dataset.settings.repeats) - len(dataset.subject_rows),
    )
