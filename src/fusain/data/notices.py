"""What is worth a word before training, though nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from fusain.data import lock as locks
from fusain.data import masks, split, subjects
from fusain.data.examine import SMALL
from fusain.data.report import EXTREME_ASPECT
from fusain.settings.notice import Notice

if TYPE_CHECKING:
    from fusain.data.columns import Dataset

FEW_IMAGES: Final = 16
PAIRS_SHOWN: Final = 3
MUCH_FILL_UP: Final = 0.25
"""Share of an epoch's draws."""


def paired(dataset: Dataset, pairs: list[tuple[int, int]]) -> str:
    """The first few pairs of equal images by name."""
    shown = [f"'{dataset.names[one]}' = '{dataset.names[other]}'" for one, other in pairs[:PAIRS_SHOWN]]
    return "; ".join(shown) + (f" and {len(pairs) - PAIRS_SHOWN:,} more" if len(pairs) > PAIRS_SHOWN else "")


def worth_a_word(dataset: Dataset) -> Iterator[Notice]:
    """What is worth a word before training, though nothing is wrong."""
    yield from subjects.worth_a_word(dataset)
    if len(dataset.subject_rows) < FEW_IMAGES and not dataset.subjects:  # of one subject a handful is usual
        yield Notice("W-DATA-001", count=len(dataset.subject_rows))
    if not len(dataset.held_out) and dataset.settings.held_out == "auto" and not dataset.subjects:
        yield Notice("W-DATA-002", count=len(dataset), least=split.AUTO_LEAST_IMAGES)
    yield from _put_aside(dataset)
    enlarged = np.flatnonzero(dataset.is_enlarged)
    if len(enlarged):
        names = locks.some(dataset.names_of(enlarged))
        size = "their bucket" if dataset.settings.buckets else f"{dataset.size} pixels"
        yield Notice("W-DATA-004", count=f"{len(enlarged):,}", size=size, names=names)
    long = np.flatnonzero(
        np.maximum(dataset.heights, dataset.widths) > EXTREME_ASPECT * np.minimum(dataset.heights, dataset.widths)
    )
    if len(long):
        names = locks.some(dataset.names_of(long))
        yield Notice("W-DATA-005", count=f"{len(long):,}", aspect=EXTREME_ASPECT, names=names)
    groups = split.Groups.of(dataset.pixel_hashes)
    if len(groups.first) < len(dataset):
        pairs = groups.pairs()
        shown = paired(dataset, pairs)
        yield Notice("W-DATA-007", count=f"{len(pairs):,}", shown=shown)
    yield from masks.worth_a_word(dataset)
    yield from _fill_up(dataset)


def _put_aside(dataset: Dataset) -> Iterator[Notice]:
    """Broken images, and apart from them those that are too small on wish."""
    small = [entry.name for entry in dataset.quarantined if entry.code == SMALL]
    broken = [entry.name for entry in dataset.quarantined if entry.code != SMALL]
    if broken:
        yield Notice("W-DATA-003", count=f"{len(broken):,}", names=locks.some(broken))
    if small:
        yield Notice("W-DATA-045", count=f"{len(small):,}", size=dataset.size, names=locks.some(small))


def _fill_up(dataset: Dataset) -> Iterator[Notice]:
    """Small buckets whose images are drawn much more often than others."""
    buckets = dataset.buckets()
    extra, draws = sum(bucket.fill_up for bucket in buckets), dataset.entries
    if extra > MUCH_FILL_UP * draws:
        facts = {"extra": f"{extra:,}", "draws": f"{draws:,}", "share": f"{extra / draws:.0%}"}
        yield Notice("W-DATA-010", buckets=len(buckets), batch=dataset.batch_size, **facts)
