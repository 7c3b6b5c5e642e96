"""What a run took, held against what was foreseen for it: time of its steps, most memory at once; and its files."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from fusain.errors import StorageError
from fusain.messages.quantities import precise, size, span
from fusain.runs.folder import RunFolder, read_json
from fusain.training import events
from fusain.training.events import Event
from fusain.training.read_back import ReadBack

WARM_STEPS, MEASURED_STEPS = 2, 3
"""What a plan measures; a run that nobody planned is foreseen by as many of its own first steps."""
IN_THE_LOOP: Final = ("step", "held_out", "samples", "checkpoint", "done", "stopped")


@dataclass(frozen=True)
class Foreseen:
    """What was known before."""

    by: str
    """Who foresaw it, as part of a sentence."""
    seconds_per_step: float
    seconds_per_step_range: tuple[float, float]
    memory: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Of all sessions of a run together. Steps that were done twice count once, and pauses not at all."""

    steps: int
    seconds: float
    """Of these steps."""
    seconds_beside: float
    """Of all else between the start and the end of each session: held-out loss, samples, checkpoints."""
    memory: int | None
    """At the peak; None where every session was killed."""
    holder: str
    """Whose memory: that of the `process`, or on a GPU of the `device`."""
    foreseen: Foreseen | None
    read_back: ReadBack | None = None
    """What was found in the files of a LoRA when they were read again after saving."""

    @property
    def seconds_foreseen(self) -> float | None:
        return self.foreseen.seconds_per_step * self.steps if self.foreseen else None

    @property
    def memory_foreseen(self) -> int | None:
        return self.foreseen.memory if self.foreseen else None

    def as_json(self) -> dict[str, Any]:
        ends = self.foreseen.seconds_per_step_range if self.foreseen else None
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "seconds_foreseen": self.seconds_foreseen,
            "seconds_foreseen_range": [end * self.steps for end in ends] if ends else None,
            "seconds_ratio": _ratio(self.seconds, self.seconds_foreseen),
            "seconds_beside": round(self.seconds_beside, 3),
            "memory": self.memory,
            "memory_of": self.holder,
            "memory_foreseen": self.memory_foreseen,
            "memory_ratio": _ratio(self.memory, self.memory_foreseen),
            "foreseen_by": self.foreseen.by if self.foreseen else None,
            "read_back": asdict(self.read_back) if self.read_back else None,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """For people, as titles and texts."""
        if self.steps:
            beside = f"; {precise(self.seconds_beside)} more between the steps" if self.seconds_beside >= 1 else ""
            yield "Time", f"{precise(self.seconds)} for {self.steps:,} steps{self._against_time()}{beside}"
        if self.memory:
            of = {"process": "the whole process", "device": "the GPU"}[self.holder]
            yield "Memory", f"{size(self.memory)} of {of} at the peak{self._against_memory()}"
        if self.read_back:
            yield "Read back", str(self.read_back)

    def _against_time(self) -> str:
        ratio = _ratio(self.seconds, self.seconds_foreseen)
        if self.foreseen is None or ratio is None:
            return ", and nothing was foreseen"
        low, high = (end * self.steps for end in self.foreseen.seconds_per_step_range)
        likely = precise(self.seconds_foreseen or 0)
        ends = span(low, high, precise)
        return f", {ratio:.2f} times the {likely} foreseen by {self.foreseen.by} ({ends})"

    def _against_memory(self) -> str:
        ratio = _ratio(self.memory, self.memory_foreseen)
        if self.foreseen is None or ratio is None:
            return ", and nothing was foreseen: `fusain plan` does it"
        return f", {ratio:.2f} times the {size(self.memory_foreseen or 0)} foreseen by {self.foreseen.by}"


def of(run: RunFolder) -> Outcome:
    """What the files of a run say, at any time."""
    rows = list(events.read(run.events))
    every_step = [row for row in rows if row["kind"] == "step"]
    seconds = [row.get("seconds", 0.0) for row in every_step if not row.get("superseded")]
    peaks = [row for row in rows if row["kind"] == "took"]
    return Outcome(
        steps=len(seconds),
        seconds=sum(seconds),
        seconds_beside=max(0.0, _in_the_loop(rows) - sum(row.get("seconds", 0.0) for row in every_step)),
        memory=max((row["memory"] for row in peaks), default=None),
        holder=peaks[-1]["holder"] if peaks else "process",
        foreseen=_by_plan(run) or _by_first(seconds),
        read_back=_read_back(rows),
    )


def _read_back(rows: Sequence[Event]) -> ReadBack | None:
    """Of the newest files."""
    found = [row for row in rows if row["kind"] == "read_back"]
    if not found:
        return None
    facts = {one.name: found[-1][one.name] for one in fields(ReadBack)}
    return ReadBack(**facts | {"files": tuple(facts["files"])})


def _in_the_loop(rows: Sequence[Event]) -> float:
    """Seconds from each start to the last thing that happened in the loop; one that was killed has no end.

    A stop while class images are drawn is of a session that never started its loop.
    """
    total, before = 0.0, None
    for row in rows:
        if row["kind"] == "start":
            before = row.get("time")
        elif row["kind"] == "class_images":
            before = None
        elif before is not None and row["kind"] in IN_THE_LOOP:
            total += row["time"] - before
            before = row["time"]
    return total


def _by_plan(run: RunFolder) -> Foreseen | None:
    """Kept when the run began; what cannot be read was not foreseen."""
    with suppress(StorageError, KeyError, TypeError, ValueError):
        kept = read_json(run.foreseen)
        low, high = kept["seconds_per_step_range"]
        return Foreseen("the plan", kept["seconds_per_step"], (low, high), kept["memory"])
    return None


def _by_first(seconds: Sequence[float]) -> Foreseen | None:
    measured = seconds[WARM_STEPS : WARM_STEPS + MEASURED_STEPS]
    if len(seconds) <= WARM_STEPS + MEASURED_STEPS:
        return None
    by = f"its first {WARM_STEPS + MEASURED_STEPS} steps"
    return Foreseen(by, statistics.median(measured), (min(measured), max(measured)))


def _ratio(real: float | None, foreseen: float | None) -> float | None:
    return real / foreseen if real is not None and foreseen else None
