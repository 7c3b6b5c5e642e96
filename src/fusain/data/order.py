"""Which image each draw uses, as a function of (seed, n): permutations, pairs, buckets, or by the shares of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fusain.data import chance
from fusain.errors import DataError

Balance = Literal["none", "equal", "complement", "weights"]
Entries = npt.NDArray[np.int64]
NOBODY = np.zeros(0, np.int64)


def shares(
    balance: Balance, counts: npt.NDArray[np.int64], given: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """The expected share of each class among the draws; an empty class has none.

    `complement` draws each image with a weight of 1 - n_k/N, so that a class has n_k (1 - n_k/N).
    """
    total = max(1, int(counts.sum()))
    if balance == "equal":
        mass = (counts > 0).astype(np.float64)
    elif balance == "complement" and int((counts > 0).sum()) > 1:
        mass = counts * (1.0 - counts / total)
    elif balance == "weights":
        assert given is not None, "shares were checked when the settings were read"
        mass = np.where(counts > 0, given, 0.0)
    else:
        mass = counts.astype(np.float64)
    if mass.sum() == 0:
        raise DataError("E-DATA-063", where="data.class_weights")
    found: npt.NDArray[np.float64] = mass / mass.sum()
    return found


def given_shares(class_weights: Mapping[str, float], classes: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """The shares of `data.class_weights` in the order of the classes; every class must have one."""
    unknown = sorted(set(class_weights) - set(classes))
    missing = [name for name in classes if name not in class_weights]
    if unknown or missing:
        problem = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}"
        raise DataError("E-DATA-061", where="data.class_weights", problem=problem, classes=", ".join(classes))
    return np.asarray([class_weights[name] for name in classes], dtype=np.float64)


class Order:
    """The image of every draw, for any batch size; `entries` holds each training image as often as it is repeated."""

    def __init__(
        self, seed: int, entries: Entries, chances: npt.NDArray[np.float64] | None = None, what: str = "order"
    ) -> None:
        self.seed = seed
        self.entries = entries
        self.what = what
        self._ends = None if chances is None else np.cumsum(chances) / np.sum(chances)
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def items(self, draws: chance.Draws) -> Entries:
        """The images of these draws."""
        count = len(self.entries)
        if self._ends is not None:
            places = np.searchsorted(self._ends, chance.uniform(self.seed, draws, "sample"), side="right")
            return self.entries[np.minimum(places, count - 1)]
        epochs, positions = np.divmod(draws, count)
        found = np.empty(len(draws), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            found[here] = self._permutation(epoch)[positions[here]]
        return self.entries[found]

    def _permute(self, epoch: int) -> Entries:
        return chance.permutation(self.seed, epoch, len(self.entries), self.what)

    def __getstate__(self) -> dict[str, object]:
        return {"seed": self.seed, "entries": self.entries, "what": self.what, "ends": self._ends}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(state["seed"], state["entries"], what=state["what"])  # type: ignore[misc]
        self._ends = state["ends"]  # type: ignore[assignment]


class PairedOrder:
    """A subject image and a class image in turn; class images all come up before one of them comes again."""

    def __init__(self, seed: int, entries: Entries, others: Entries) -> None:
        self._one, self._other = Order(seed, entries), Order(seed, others, what="class images")

    def items(self, draws: chance.Draws) -> Entries:
        """The images of these draws."""
        pairs = draws // 2
        found: Entries = np.where(draws % 2 == 0, self._one.items(pairs), self._other.items(pairs))
        return found


class BucketOrder:
    """The images of every batch, all of one bucket; a batch begins at each multiple of the batch size.

    An epoch is a permutation within each bucket, cut into batches whose order is drawn over all buckets. A bucket's
    last batch is filled up from the beginning of its permutation. With `chances` first the bucket of a batch is
    drawn, by the sum of its chances, and then its images. Images `beside` the entries, with their buckets, come up in
    turn over the epochs, in each epoch about as many as there are entries.
    """

    def __init__(
        self,
        seed: int,
        entries: Entries,
        buckets: Entries,
        batch_size: int,
        chances: npt.NDArray[np.float64] | None,
        beside: tuple[Entries, Entries] = (NOBODY, NOBODY),
    ) -> None:
        self.seed, self.batch_size = seed, batch_size
        others, other_buckets = beside
        numbers = np.unique(np.concatenate([buckets, other_buckets])).tolist()
        self._buckets = [entries[buckets == bucket] for bucket in numbers]
        self._beside = [
            Order(seed, others[other_buckets == bucket], what=f"class images/{place}")
            for place, bucket in enumerate(numbers)
        ]
        shared = shared_out(other_buckets, len(entries))
        self._shares = [shared.get(bucket, 0) for bucket in numbers]
        self._ends: list[npt.NDArray[np.float64]] | None = None
        if chances is not None:
            self._ends = [np.cumsum(chances[buckets == bucket]) for bucket in numbers]
        self._epoch: tuple[int, Entries] = (-1, entries)

    def items(self, draws: chance.Draws) -> Entries:
        """The images of one batch, by the number of its first draw.

        After a resume with another batch size that lies between two batches: then the next one is taken.
        """
        assert len(draws) == self.batch_size, "the draws of one batch"
        batch = -(-int(draws[0]) // self.batch_size)
        if self._ends is not None:
            return self._drawn(batch, draws, self._ends)
        counts = (len(bucket) + share for bucket, share in zip(self._buckets, self._shares, strict=True))
        epoch, place = divmod(batch, sum(batches_of(count, self.batch_size) for count in counts))
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._planned(epoch)
        images: Entries = self._epoch[1][place]
        return images

    def _planned(self, epoch: int) -> Entries:
        """All batches of an epoch."""
        batches = []
        for number, bucket in enumerate(self._buckets):
            share = self._shares[number]
            if share:
                here = self._beside[number].items(np.arange(epoch * share, (epoch + 1) * share))
                bucket = np.concatenate([bucket, here])
            images = bucket[chance.permutation(self.seed, epoch, len(bucket), f"order/{number}")]
            count = batches_of(len(bucket), self.batch_size)
            batches.append(np.resize(images, (count, self.batch_size)))
        planned: Entries = np.concatenate(batches)
        return planned[chance.permutation(self.seed, epoch, len(planned), "batches")]

    def _drawn(self, batch: int, draws: chance.Draws, ends: list[npt.NDArray[np.float64]]) -> Entries:
        masses = np.cumsum([bucket_ends[-1] for bucket_ends in ends])
        number = _place(masses, chance.uniform(self.seed, np.asarray([batch]), "bucket"))[0]
        places = _place(ends[number], chance.uniform(self.seed, draws, "sample"))
        images: Entries = self._buckets[number][places]
        return images


@dataclass(frozen=True)
class Shifted:
    """Another order, whose draws are counted from `start` on; those before it, which others know, are as its first."""

    order: AnyOrder
    start: int

    def items(self, draws: chance.Draws) -> Entries:
        """The images of these draws."""
        return self.order.items(np.maximum(draws - self.start, 0))


AnyOrder = Order | PairedOrder | BucketOrder | Shifted


def shared_out(buckets: Entries, draws: int) -> dict[int, int]:
    """How many of so many draws each bucket has an epoch, by its images and at least one."""
    numbers, counts = np.unique(buckets, return_counts=True)
    shares = np.maximum(1, np.round(draws * counts / max(1, len(buckets)))).astype(np.int64)
    return dict(zip(numbers.tolist(), shares.tolist(), strict=True))


def batches_of(count: int, batch_size: int) -> int:
    """Batches that so many images fill, the last one filled up."""
    return -(-count // batch_size)


def _place(ends: npt.NDArray[np.float64], numbers: npt.NDArray[np.float64]) -> Entries:
    """Which part each number in [0, 1) falls into, `ends` being the running sum of their masses."""
    places: Entries = np.minimum(np.searchsorted(ends / ends[-1], numbers, side="right"), len(ends) - 1)
    return places
