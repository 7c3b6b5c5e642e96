"""Intervals for shares: Wilson's for what is counted often, Clopper and Pearson's exact one for what is rare."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

Z_95: Final = 1.959963984540054
TAIL: Final = 0.025


class Interval(NamedTuple):
    low: float
    high: float


def wilson(hits: int, count: int) -> Interval:
    """The 95 % score interval of Wilson (1927)."""
    if count == 0:
        return Interval(0.0, 1.0)
    share, square = hits / count, Z_95**2 / count
    middle = (share + square / 2) / (1 + square)
    reach = Z_95 * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach))


def clopper_pearson(hits: int, count: int) -> Interval:
    """The exact 95 % interval: the shares under which so many hits, or so few, are no rarer than one in forty."""
    if count == 0:
        return Interval(0.0, 1.0)
    low = 0.0 if hits == 0 else _solve(lambda share: 1 - _at_most(hits - 1, count, share) - TAIL)
    high = 1.0 if hits == count else _solve(lambda share: TAIL - _at_most(hits, count, share))
    return Interval(low, high)


def _solve(rising: Callable[[float], float]) -> float:
    """Where a rising function of a share crosses zero."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _at_most(hits: int, count: int, share: float) -> float:
    """P(X <= hits) for X binomial."""
    if share <= 0.0 or share >= 1.0:
        return 1.0 if share <= 0.0 or hits >= count else 0.0
    logs = (log_choose(count, k) + k * math.log(share) + (count - k) * math.log1p(-share) for k in range(hits + 1))
    return math.fsum(map(math.exp, logs))


def log_choose(count: int, chosen: int) -> float:
    """The logarithm of the number of ways to choose."""
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
