"""A data set beyond the disk, drawn window by window: what a draw uses is a function of (seed, n) here too.

In each epoch the groups of rows come in another order, windows of equal length are cut from that, and the images of a
window are shuffled. So a resume has nothing to remember: it begins by reading the window that it is in.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fusain.data import chance, notices, split
from fusain.data import lock as locks
from fusain.data.batch import Batch, joined
from fusain.data.chance import Draws
from fusain.data.columns import Dataset
from fusain.data.dataset import Report, looked_at, no_column, require_captions
from fusain.data.examine import SMALL
from fusain.data.loader import Loader
from fusain.data.order import Shifted
from fusain.data.quarantine import Quarantined, refuse_if_too_many
from fusain.data.settings import DataSettings
from fusain.data.shapes import Shapes
from fusain.data.shards import Files, Piece, Rows, Shards, put_aside
from fusain.errors import DataError
from fusain.settings.notice import Notice

HELD_OUT: Final = 256
"""Images that `auto` holds out of a stream: they are read anew at each start."""
LOOKED_AT: Final = 256
"""Images that are looked at beside those before training, as a sample of all."""


class Window(NamedTuple):
    """Draws from `start` to before `stop`, counted over the run."""

    number: int
    start: int
    stop: int


@dataclass(eq=False)
class Stream:
    """The images that are learnt, window by window."""

    shards: Shards
    pieces: Sequence[Piece]
    settings: DataSettings
    shapes: Shapes
    batch_size: int
    seed: int
    needs_captions: bool
    held_out: frozenset[bytes] = frozenset()
    """The content of the images that are held out; what shows the same is not learnt."""

    def __post_init__(self) -> None:
        self._counts = np.asarray([piece.rows for piece in self.pieces], np.int64)
        self._length = int(self._counts.sum())
        self._order = lru_cache(maxsize=2)(self._ordered)

    def __len__(self) -> int:
        """Draws in an epoch."""
        return self._length

    @property
    def window(self) -> int:
        """Images of a window, of which two fit into the memory that images may take."""
        fitting = int(self.settings.memory_gb * 1e9 / 2) // (3 * self.shapes.size**2)
        return max(1, min(self.settings.stream_window, fitting))

    def check_step(self, needed: int) -> None:
        """A step may not use an image twice: the images of a window must fill one."""
        shortest = len(self) // self._windows
        if shortest < needed:
            facts = {"needed": f"{needed:,}", "shortest": f"{shortest:,}", "images": f"{len(self):,}"}
            raise DataError("E-DATA-094", where="data.stream_window", **facts)

    def at(self, draw: int) -> Window:
        """The window of a draw."""
        epoch, place = divmod(draw, len(self))
        number = ((place + 1) * self._windows - 1) // len(self)
        start, stop = (epoch * len(self) + len(self) * edge // self._windows for edge in (number, number + 1))
        return Window(epoch * self._windows + number, start, stop)

    def pieces_of(self, start: int, stop: int) -> Iterator[Piece]:
        """The rows of these draws, all of one epoch, before they are shuffled."""
        epoch = start // len(self)
        start, stop = start - epoch * len(self), stop - epoch * len(self)
        order, ends = self._order(epoch)
        for place in range(int(np.searchsorted(ends, start, side="right")), len(order)):
            piece, end = self.pieces[order[place]], int(ends[place])
            begin = end - piece.rows
            if begin >= stop:
                return
            yield piece.part(max(start, begin) - begin, min(stop, end) - begin)

    def images(self, window: Window) -> Dataset:
        """Read, decoded and fitted."""
        dataset, _ = self.look(list(self.pieces_of(window.start, window.stop)))
        leaking = self.leaking(dataset)
        dataset.train = np.flatnonzero(~leaking)
        if leaking.any():
            aside = tuple(put_aside("E-DATA-093", name) for name in dataset.names_of(np.flatnonzero(leaking)))
            dataset.quarantined += aside
            broken = unwanted(dataset)
            refuse_if_too_many(broken, len(dataset.train) + len(broken), self.settings.max_quarantined)
        return dataset

    def look(self, pieces: Sequence[Piece], tell: Report = lambda *_, **__: None) -> tuple[Dataset, Draws]:
        """Rows as a data set, and the number of each of its images."""
        is_refusing = self.needs_captions and self.settings.captions.missing == "refuse"
        source, listing = self.shards.read(pieces, needs_captions=is_refusing)
        dataset = looked_at(self.settings, source, listing, self.shapes, self.batch_size, self.seed, tell)
        if self.needs_captions:
            require_captions(dataset)
        if dataset.held is not None:
            source.contents.clear()
        return dataset, np.asarray([source.numbers[name] for name in dataset.names], np.int64)

    def leaking(self, dataset: Dataset) -> npt.NDArray[np.bool_]:
        """Which images show the same as one that is held out."""
        return np.asarray([found.tobytes() in self.held_out for found in dataset.pixel_hashes], np.bool_)

    def lock(self) -> dict[str, Any]:
        """The rows of each file and a digest of its end, and how many images are learnt."""
        return {"files": self.shards.counts, "footers": self.shards.footers, "learnt": len(self)}

    def names_of(self, items: Draws) -> list[str]:
        """Names by the numbers that batches have."""
        return [self.shards.name_of(row) for row in items.tolist()]

    @property
    def _windows(self) -> int:
        """Windows in an epoch."""
        return -(-len(self) // self.window)

    def _ordered(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The order of the pieces in an epoch, and where each ends."""
        order = chance.permutation(self.seed, epoch, len(self.pieces), "groups of rows")
        return order, np.cumsum(self._counts[order])


@dataclass
class StreamLoader:
    """Iterates batches without end as a `Loader` does, from one window after the other."""

    dataset: Dataset
    settings: DataSettings
    seed: int = field(kw_only=True)
    batch_size: int = field(kw_only=True)
    start_draw: int = field(default=0, kw_only=True)
    share: slice = field(default_factory=lambda: slice(None), kw_only=True)
    """The part of each batch that is handed over; the window that it is of is read whole."""
    report: Report | None = field(default=None, kw_only=True)
    _told: set[str] = field(default_factory=set, init=False)

    def __iter__(self) -> Iterator[Batch]:
        """Start over at `start_draw`. A batch may go over into the next window; one of buckets, which has one shape,
        is of the window of its first draw."""
        assert self.dataset.stream is not None, "a data set that is streamed"
        stream, draw = self.dataset.stream, self.start_draw
        self._told.clear()
        with closing(Ahead(stream, is_ahead=self.settings.workers > 0)) as ahead:
            while True:
                window = stream.at(draw)
                batches = self._of(ahead, window, draw, self.share)
                while draw + (1 if self.settings.buckets else self.batch_size) <= window.stop:
                    yield next(batches)
                    draw += self.batch_size
                batches.close()
                if draw < window.stop:
                    yield self._across(ahead, stream, draw)
                    draw += self.batch_size

    def _of(self, ahead: Ahead, window: Window, draw: int, share: slice) -> Generator[Batch, None, None]:
        """Parts of batches from a draw on, of those draws that are of one window."""
        dataset = ahead.images(window)
        self._tell(dataset)
        first = window.start
        if self.settings.buckets:  # its batches are counted from the first one that begins in it
            first += -first % self.batch_size
        batches = Loader(
            dataset,
            self.settings.model_copy(update={"workers": 0}),
            seed=self.seed,
            batch_size=self.batch_size,
            start_draw=draw,
            share=share,
            report=self.report,
            order=Shifted(dataset.order(chance.key(self.seed, window.number, "window"), self.batch_size), first),
        )
        for batch in batches:
            yield replace(batch, items=numbers(dataset, batch.items))

    def _across(self, ahead: Ahead, stream: Stream, draw: int) -> Batch:
        """A batch that begins in one window and ends in the next."""
        first, last, _ = self.share.indices(self.batch_size)
        window = stream.at(draw)
        cut = window.stop - draw
        parts = ((window, first, min(last, cut)), (stream.at(window.stop), max(first, cut), last))
        return joined(
            [next(self._of(ahead, part, draw, slice(start, stop))) for part, start, stop in parts if start < stop]
        )

    def _tell(self, dataset: Dataset) -> None:
        """What was put aside, each once: of several processes, which all read the whole window, by the first."""
        report = None if self.share.start else self.report
        for entry in unwanted(dataset):
            if report is not None and entry.name not in self._told:
                self._told.add(entry.name)
                text = f"{entry.reason} Put aside while training ({len(self._told):,} so far)."
                report("warning", code=entry.code, text=text)


def unwanted(dataset: Dataset) -> list[Quarantined]:
    """What was put aside but for images that are too small on wish."""
    return [entry for entry in dataset.quarantined if entry.code != SMALL]


def numbers(dataset: Dataset, items: Draws) -> Draws:
    """The rows of a window as they are counted over all files."""
    assert isinstance(dataset.source, Rows), "a window of a stream"
    known = dataset.source.numbers
    return np.asarray([known[dataset.names[row]] for row in items.tolist()], np.int64)


class Ahead:
    """Gives the images of windows, and makes the next one ready while one is used."""

    def __init__(self, stream: Stream, *, is_ahead: bool) -> None:
        self.stream = stream
        self._thread = ThreadPoolExecutor(1, "next window") if is_ahead else None
        self._coming: dict[int, Future[Dataset]] = {}
        self._now: dict[int, Dataset] = {}

    def images(self, window: Window) -> Dataset:
        if window.number not in self._now:
            self._now.clear()  # before the next one takes its room
            self._now[window.number] = self._read(window)
        return self._now[window.number]

    def _read(self, window: Window) -> Dataset:
        if self._thread is None:
            return self.stream.images(window)
        coming = self._coming.pop(window.number, None) or self._thread.submit(self.stream.images, window)
        dataset = coming.result()
        following = self.stream.at(window.stop)
        self._coming = {following.number: self._thread.submit(self.stream.images, following)}
        return dataset

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def prepare(
    settings: DataSettings,
    files: Files,
    *,
    size: int,
    multiple: int = 8,
    batch_size: int = 1,
    needs_captions: bool = False,
    seed: int = 0,
    lock: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Dataset:
    """What is held out of a stream and a sample of the rest, looked at; the rest is read when it is drawn."""
    tell = report or (lambda kind, **facts: None)
    shards = Shards(files, settings.image_column, settings.caption_column)
    change = _change(lock["stream"], shards) if lock is not None else ""
    if change:
        raise DataError("E-DATA-021", where=str(files.path), change=change)
    if settings.caption_column is not None and shards.caption is None:
        raise no_column(settings.caption_column, Rows(files.path), shards.columns)
    held_out, learnt = _divided(settings, shards)
    stream = Stream(shards, learnt, settings, settings.shapes(size, multiple), batch_size, seed, needs_captions)
    sample = list(stream.pieces_of(0, min(LOOKED_AT, len(stream))))
    dataset, rows = stream.look([*held_out, *sample], tell)
    dataset.stream, dataset.id = stream, locks.identity(dataset)
    is_held_out = np.isin(rows, [row for piece in held_out for row in range(piece.first, piece.first + piece.rows)])
    dataset.held_out = np.flatnonzero(is_held_out) if lock is None else locks.held_out(dataset, lock)
    stream.held_out = frozenset(found.tobytes() for found in dataset.pixel_hashes[dataset.held_out])
    dataset.train = np.flatnonzero(~is_held_out & ~stream.leaking(dataset))
    dataset.notices += (*_told(stream, held_out, sample), *notices.worth_a_word(dataset))
    for notice in dataset.notices:
        tell("warning", code=notice.code, text=notice.message.what)
    return dataset


def _divided(settings: DataSettings, shards: Shards) -> tuple[list[Piece], list[Piece]]:
    """What is held out, the first rows of files that are called so or of all, and what is learnt."""
    pieces = shards.pieces()
    given = [piece for piece in pieces if shards.is_held_out(piece)]
    if settings.held_out == "auto":
        number = min(HELD_OUT, len(shards) if given else split.wanted("auto", len(shards)))
    else:
        number = split.wanted(settings.held_out, len(shards))
    if not given or not number:
        return _cut(pieces, number)
    learnt = [piece for piece in pieces if not shards.is_held_out(piece)]
    if not learnt:
        raise DataError("E-DATA-022", where="data.path", number=f"{len(shards):,}", count=f"{len(shards):,}")
    return _cut(given, number)[0], learnt


def _cut(pieces: Sequence[Piece], number: int) -> tuple[list[Piece], list[Piece]]:
    """The pieces of the first rows, and those of all others."""
    first, others = list[Piece](), list[Piece]()
    for piece in pieces:
        place = min(number, piece.rows)
        number -= place
        first += [piece.part(0, place)] if place else []
        others += [piece.part(place, piece.rows)] if place < piece.rows else []
    return first, others


def _told(stream: Stream, held_out: Sequence[Piece], sample: Sequence[Piece]) -> Iterator[Notice]:
    """How much of the stream was looked at, and where windows are shorter than was asked for."""
    held, seen = (f"{sum(piece.rows for piece in some):,}" for some in (held_out, sample))
    yield Notice("W-DATA-046", rows=f"{len(stream.shards):,}", learnt=f"{len(stream):,}", held_out=held, seen=seen)
    wanted = stream.settings.stream_window
    if stream.window < min(wanted, len(stream)):
        facts = {"window": f"{stream.window:,}", "wanted": f"{wanted:,}", "memory": f"{stream.settings.memory_gb:g}"}
        yield Notice("W-DATA-047", where="data.memory_gb", **facts)


def _change(lock: Mapping[str, Any], shards: Shards) -> str:
    """Which files were added, removed, have another number of rows, or were written anew with as many."""
    before, now, footers = lock["files"], shards.counts, lock.get("footers", shards.footers)
    same = [name for name in now if now[name] == before.get(name)]
    kinds = (
        ("files added", [name for name in now if name not in before]),
        ("files removed", [name for name in before if name not in now]),
        ("files of other lengths", [name for name in now if name in before and name not in same]),
        ("files written anew", [name for name in same if footers[name] != shards.footers[name]]),
    )
    return "; ".join(f"{kind}: {locks.some(names)}" for kind, names in kinds if names)
