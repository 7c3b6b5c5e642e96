"""Turns a listing into an index: every image hashed and fully decoded once, and from the cache from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.data import index_cache
from fusain.data.examine import Examined, Fit, examine_files, examine_passing, examine_rows
from fusain.data.images import Pixels
from fusain.data.index import Held, Index
from fusain.data.source import Listing, Source

Progress = Callable[[int, int], None]
"""Is told how many images of how many were looked at."""
RETRIED: Final = frozenset({"E-DATA-010"})


def build(
    source: Source, listing: Listing, fit: Fit, *, limit: int, progress: Progress, warn: Callable[[str], None]
) -> Index:
    """The index of everything listed; pixels are kept while they need no more than `limit` bytes."""
    if listing.array is not None:
        return _of_array(listing, listing.array, fit, limit, progress)
    if source.passes_by:
        return _collect(listing, examine_passing(source, listing.names, fit), limit, progress)
    path = index_cache.path_for(source, fit)
    known = index_cache.load(path)
    if known is not None and _is_same(known, listing):
        return known
    rows = _unchanged(known, listing) if known is not None else {}
    if rows and known is not None:
        index = _update(known, source, listing, fit, rows, limit, progress)
    else:
        index = _collect(listing, examine_files(source, listing.names, fit), limit, progress)
    index_cache.save(path, index, warn)
    return index


def _of_array(listing: Listing, array: Pixels, fit: Fit, limit: int, progress: Progress) -> Index:
    """An array that fits as it is is read into memory once and held without a copy."""
    fits = fit.shapes.one(*array.shape[1:3]) == array.shape[1:3]
    if not fits or array.nbytes > limit or not array.flags.c_contiguous:
        return _collect(listing, examine_rows(array, listing.names, fit), limit, progress)
    if isinstance(array, np.memmap) and array.filename is not None:
        array = np.fromfile(array.filename, np.uint8, array.size, offset=array.offset).reshape(array.shape)
        listing.array = array
    index = _collect(listing, examine_rows(array, listing.names, replace(fit, is_kept=False)), limit, progress)
    index.held = Held(array.reshape(-1), np.tile(np.asarray(array.shape[1:3], np.int32), (len(array), 1)))
    return index


def _is_same(known: Index, listing: Listing) -> bool:
    return (
        not _again(known)
        and np.array_equal(known.sizes, listing.sizes)
        and np.array_equal(known.mtimes, listing.mtimes)
        and known.names == listing.names
    )


def _again(known: Index) -> set[int]:
    """Rows whose fault may have been mended without a trace in the file, as permissions are."""
    return {row for row, (code, _) in known.faults.items() if code in RETRIED}


def _unchanged(known: Index, listing: Listing) -> dict[int, int]:
    """The known row for each listed row whose file has the same name, size and time."""
    again = _again(known)
    before = {name: row for row, name in enumerate(known.names) if row not in again}
    found = {}
    for row, name in enumerate(listing.names):
        old = before.get(name)
        if old is not None and known.sizes[old] == listing.sizes[row] and known.mtimes[old] == listing.mtimes[row]:
            found[row] = old
    return found


def _collect(listing: Listing, chunks: Iterable[Examined], limit: int, progress: Progress) -> Index:
    """All chunks as one index; the pixels go straight into one growing block."""
    count, start = len(listing), 0
    whole = Examined.blank(count)
    assert whole.fitted_shapes is not None
    flat, is_kept = bytearray(), True
    for chunk in chunks:
        stop = start + len(chunk.heights)
        for name in ("hashes", "pixel_hashes", "heights", "widths", "conversions", "fitted_shapes"):
            getattr(whole, name)[start:stop] = getattr(chunk, name)
        whole.faults |= {start + row: fault for row, fault in chunk.faults.items()}
        is_kept = is_kept and bool(chunk.pixels or len(chunk.faults) == len(chunk.heights)) and len(flat) <= limit
        if is_kept:
            flat += chunk.pixels
        else:
            flat.clear()
        start = stop
        progress(start, count)
    assert start == count, "every listed image was looked at"
    held = None
    if is_kept:
        good = (whole.fitted_shapes > 0).all(axis=1)
        held = Held(np.frombuffer(flat, np.uint8), whole.fitted_shapes[good])
    return _index(listing, whole, held)


def _index(listing: Listing, whole: Examined, held: Held | None) -> Index:
    return Index(
        names=listing.names,
        sizes=listing.sizes,
        mtimes=listing.mtimes,
        hashes=whole.hashes,
        pixel_hashes=whole.pixel_hashes,
        heights=whole.heights,
        widths=whole.widths,
        conversions=whole.conversions,
        faults=whole.faults,
        held=held,
    )


def _update(
    known: Index, source: Source, listing: Listing, fit: Fit, rows: dict[int, int], limit: int, progress: Progress
) -> Index:
    """The index with only the new and changed files looked at."""
    fresh_rows = np.asarray([row for row in range(len(listing)) if row not in rows], dtype=np.int64)
    fresh_list = listing.take(fresh_rows)
    fresh = _collect(fresh_list, examine_files(source, fresh_list.names, fit), limit, progress)
    order: npt.NDArray[np.int64] = np.zeros(len(listing), np.int64)
    order[fresh_rows] = len(known.names) + np.arange(len(fresh_rows))
    order[list(rows)] = list(rows.values())
    whole = Examined.blank(len(listing))
    for name in ("hashes", "pixel_hashes", "heights", "widths", "conversions"):
        setattr(whole, name, np.concatenate([getattr(known, name), getattr(fresh, name)])[order])
    faults = known.faults | {len(known.names) + row: fault for row, fault in fresh.faults.items()}
    whole.faults = {row: faults[old] for row, old in enumerate(order.tolist()) if old in faults}
    held = None
    if known.held is not None and fresh.held is not None and len(known.held.flat) + len(fresh.held.flat) <= limit:
        both = Held(
            np.concatenate([known.held.flat, fresh.held.flat]), np.concatenate([known.held.shapes, fresh.held.shapes])
        )
        good = np.ones(len(known.names) + len(fresh.names), np.int64)
        good[list(faults)] = 0
        place = np.cumsum(good) - 1
        held = both.take(place[[old for old in order.tolist() if old not in faults]])
    return _index(listing, whole, held)
