"""The course of a training from its first step to its last: how often each part of it comes, and what each takes.

The plan, the time that is left and what is told at the end are all made of these parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PARTS: Final = {
    "step": "steps",
    "held_out": "held-out losses",
    "samples": "samples",
    "checkpoint": "checkpoints",
}
"""What people call them, by the kind of the event that ends each."""
ENDS: Final = ("done", "stopped")
REST: Final = "rest"
"""What lies between the parts."""


@dataclass(frozen=True)
class Plan:
    """The numbers that the loop runs by, resolved from settings and data."""

    steps: int
    steps_per_epoch: float
    checkpoint_every: int
    held_out_every: int
    sample_every: int
    snapshots: Collection[int] = ()

    def is_due(self, step: int, every: int) -> bool:
        return every > 0 and (step % every == 0 or step == self.steps)

    def to_come(self, step: int = 0) -> dict[str, int]:
        """How often each part is still to come after a step, of those that the settings ask for."""

        def due(every: int) -> int:
            if not every or step >= self.steps:
                return 0
            return self.steps // every - step // every + bool(self.steps % every)

        of_snapshots = [one for one in self.snapshots if one > step and not self.is_due(one, self.checkpoint_every)]
        return {
            "step": max(0, self.steps - step),
            "held_out": due(self.held_out_every) + (step == 0),
            "samples": due(self.sample_every),
            "checkpoint": due(self.checkpoint_every) + len(of_snapshots),
        }


@dataclass
class Spent:
    """What a training took so far, event by event. Pauses count nothing, and what was done twice counts once."""

    times: Counter[str] = field(default_factory=Counter)
    """How often each part was done, and under `start` how many sessions there were."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By parts, with the rest."""
    _before: float | None = None
    """When the newest part ended. One that was killed has no end: a start begins anew."""

    def take(self, event: Mapping[str, Any]) -> None:
        kind, now = event["kind"], event.get("time")
        if kind == "start":
            self.times[kind] += 1
            self._before = now
        elif kind == "class_images":  # a stop while they are drawn is of a session that never started its loop
            self._before = None
        elif kind in PARTS or kind in ENDS:
            passed = 0.0
            if self._before is not None and now is not None:
                passed, self._before = max(0.0, now - self._before), now
            if not event.get("superseded"):
                self._count(kind, passed, event)

    def _count(self, kind: str, passed: float, event: Mapping[str, Any]) -> None:
        own = event.get("seconds", 0.0) if kind == "step" else passed
        self.times[kind] += 1
        self._add(REST if kind in ENDS else kind, own)
        self._add(REST, max(0.0, passed - own))

    def _add(self, part: str, seconds: float) -> None:
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    @property
    def whole(self) -> float:
        """From the first step to the last."""
        return sum(self.seconds.values())

    def each(self, part: str) -> float | None:
        """What it takes once; None where it never was."""
        return self.seconds[part] / self.times[part] if self.times[part] else None
