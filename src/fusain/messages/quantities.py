"""Sizes and times as people read them."""

from __future__ import annotations

from collections.abc import Callable


def size(count: float) -> str:
    """Bytes, to three digits."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def numerous(count: int) -> str:
    """Thousands, millions or billions, to two digits."""
    for unit, least in (("billion", 10**9), ("million", 10**6), ("thousand", 1000)):
        if count >= least:
            return f"{float(f'{count / least:.2g}'):g} {unit}"
    return str(count)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is short."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def precise(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def span(low: float, high: float, say: Callable[[float], str] = duration) -> str:
    """A range of times; one where both ends read alike."""
    ends = (say(low), say(high))
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
