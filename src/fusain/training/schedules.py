"""Learning-rate schedules as functions of the step: nothing to save, nothing to drift after a resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal

from fusain.settings.section import Section, advanced

ScheduleName = Literal[
    "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "rex", "warmup_stable_decay"
]


def _only_with(schedule: ScheduleName) -> dict[str, Any]:
    return {"only_when": {"schedule": schedule}}


class ScheduleSettings(Section):
    """How the learning rate changes."""

    schedule: ScheduleName = "constant"
    """How the learning rate changes: `constant`, or falling to zero: as a line, a cosine, a cosine that starts anew, a
    power, late and steeply (`rex`), or only at the end (`warmup_stable_decay`)."""
    warmup_steps: int = advanced(0, ge=0)
    """Steps over which the learning rate rises from zero."""
    schedule_cycles: int = advanced(3, ge=1, json_schema_extra=_only_with("cosine_with_restarts"))
    """How often the cosine falls; each time but the first it starts anew at the full rate."""
    schedule_power: float = advanced(2.0, gt=0, json_schema_extra=_only_with("polynomial"))
    """1 is a line; more falls early and ends gently, less falls late."""
    schedule_decay: float = advanced(0.2, gt=0, le=1, json_schema_extra=_only_with("warmup_stable_decay"))
    """Share of the run, at its end, over which the rate falls."""


def learning_rate(settings: ScheduleSettings, base: float, *, step: int, total: int) -> float:
    """The rate of step number `step`, counted from 0."""
    warmup = settings.warmup_steps
    if step < warmup:
        return base * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return base * max(0.0, _FACTORS[settings.schedule](settings, min(1.0, done)))


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _with_restarts(settings: ScheduleSettings, done: float) -> float:
    """Loshchilov and Hutter 2017, with cycles of one length."""
    return 0.0 if done >= 1 else _cosine(settings.schedule_cycles * done % 1.0)


def _rex(done: float) -> float:
    """Chen, Wolfe and Kyrillidis 2021: above the line all the way, and steepest at the end."""
    return (1 - done) / (1 - done / 2)


def _stable_then_down(settings: ScheduleSettings, done: float) -> float:
    """Hägele et al. 2024, section 3: a cooldown by one minus a square root, which did best there."""
    falling = (done - (1 - settings.schedule_decay)) / settings.schedule_decay
    return 1 - math.sqrt(max(0.0, falling))


_FACTORS: Final[dict[ScheduleName, Callable[[ScheduleSettings, float], float]]] = {
    "constant": lambda settings, done: 1.0,
    "linear": lambda settings, done: 1 - done,
    "cosine": lambda settings, done: _cosine(done),
    "cosine_with_restarts": _with_restarts,
    "polynomial": lambda settings, done: (1 - done) ** settings.schedule_power,
    "rex": lambda settings, done: _rex(done),
    "warmup_stable_decay": _stable_then_down,
}
