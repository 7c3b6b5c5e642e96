"""Sets images aside before training: by groups of equal content, class by class, as a function of seed and content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from fusain.data import chance
from fusain.errors import DataError

HeldOut = Literal["auto", "none"] | float | int

AUTO_SHARE: Final = 0.05
AUTO_MOST: Final = 2_000
AUTO_LEAST_IMAGES: Final = 64

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Which images show the same pixels."""

    group: Rows
    """The group of each image, numbered by its first member."""
    first: Rows
    """The first member of each group."""
    sizes: Rows

    @classmethod
    def of(cls, pixel_hashes: npt.NDArray[np.uint8]) -> Groups:
        # Sixteen bytes are enough to tell images apart, and two numbers are faster to sort than bytes.
        halves = np.ascontiguousarray(pixel_hashes[:, :16]).view(np.uint64)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        is_new = np.ones(len(order), np.bool_)
        is_new[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
        group = np.empty(len(order), np.int64)
        group[order] = np.cumsum(is_new) - 1
        return cls(group, order[is_new], np.bincount(group, minlength=int(is_new.sum())))

    def pairs(self) -> list[tuple[int, int]]:
        """Each further member with the first of its group."""
        rows = np.arange(len(self.group))
        further = rows[self.first[self.group] != rows]
        return [(int(self.first[self.group[row]]), int(row)) for row in further]


def wanted(held_out: HeldOut, count: int) -> int:
    """How many of `count` images are to be set aside."""
    if held_out == "none":
        return 0
    if held_out == "auto":
        return 0 if count < AUTO_LEAST_IMAGES else min(AUTO_MOST, round(count * AUTO_SHARE))
    number = round(held_out * count) if isinstance(held_out, float) and held_out < 1 else int(held_out)
    if number >= count:
        raise DataError("E-DATA-022", where="data.held_out", number=f"{number:,}", count=f"{count:,}")
    return number


def choose(
    seed: int, pixel_hashes: npt.NDArray[np.uint8], label_ids: npt.NDArray[np.int32] | None, number: int
) -> Rows:
    """About `number` rows, each class in its proportion; equal images stay on one side."""
    if number == 0:
        return np.zeros(0, np.int64)
    groups = Groups.of(pixel_hashes)
    contents = np.ascontiguousarray(pixel_hashes[groups.first, :8]).view(np.int64).reshape(-1)
    ranks = chance.keys(seed, contents, "held-out")
    labels = np.zeros(len(pixel_hashes), np.int32) if label_ids is None else label_ids
    quotas = _quotas(labels, number)
    chosen = [_from_class(groups, ranks, labels[groups.first] == label, quota) for label, quota in quotas.items()]
    return np.flatnonzero(np.isin(groups.group, np.concatenate(chosen)))


def _from_class(groups: Groups, ranks: chance.Keys, is_of_class: npt.NDArray[np.bool_], quota: int) -> Rows:
    """Groups in the order of their ranks, as long as there is room for them."""
    open_groups = np.flatnonzero(is_of_class & (groups.sizes <= quota))
    open_groups = open_groups[np.argsort(ranks[open_groups], kind="stable")]
    return open_groups[np.cumsum(groups.sizes[open_groups]) <= quota]


def _quotas(labels: npt.NDArray[np.int32], number: int) -> dict[int, int]:
    """Whole numbers in proportion to the classes, by largest remainder."""
    present, counts = np.unique(labels, return_counts=True)
    exact = number * counts / counts.sum()
    quotas = np.floor(exact).astype(np.int64)
    short = np.argsort(quotas - exact, kind="stable")[: number - int(quotas.sum())]
    quotas[short] += 1
    return dict(zip(present.tolist(), quotas.tolist(), strict=True))


def leaks(pixel_hashes: npt.NDArray[np.uint8], is_held_out: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of equal images of which one is learnt and the other measures what was learnt."""
    groups = Groups.of(pixel_hashes)
    learnt: dict[int, int] = {}
    for row in np.flatnonzero(~is_held_out).tolist():
        learnt.setdefault(int(groups.group[row]), row)
    measured = np.flatnonzero(is_held_out).tolist()
    return [(learnt[group], row) for row in measured if (group := int(groups.group[row])) in learnt]
