"""What a run took, held against what was foreseen for it: the whole time, the most memory at once; and its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fusain.messages.quantities import precise, size, span
from fusain.runs import foreseen
from fusain.runs.folder import RunFolder
from fusain.runs.foreseen import Foreseen
from fusain.training import events
from fusain.training.course import PARTS, REST, Spent
from fusain.training.events import Event
from fusain.training.read_back import ReadBack


@dataclass(frozen=True)
class Outcome:
    """Of all sessions of a run together. What was done twice counts once, and pauses not at all."""

    spent: Spent
    memory: int | None
    """At the peak; None where every session was killed."""
    holder: str
    """Whose memory: that of the `process`, or on a GPU of the `device`."""
    foreseen: Foreseen | None
    """By a plan, where there was one."""
    read_back: ReadBack | None = None
    """What was found in the files of a LoRA when they were read again after saving."""

    @property
    def steps(self) -> int:
        return self.spent.times["step"]

    @property
    def seconds(self) -> float:
        """From the first step to the last: of steps, held-out losses, samples, checkpoints and what lies between."""
        return self.spent.whole

    @property
    def not_foreseen(self) -> list[str]:
        """Parts that no plan knew of, such as samples that are drawn in another way."""
        known = self.foreseen.seconds_each if self.foreseen else {}
        return [part for part in PARTS if self.spent.times[part] and part not in known]

    @property
    def seconds_compared(self) -> float:
        """Of all that was foreseen."""
        return self.seconds - sum(self.spent.seconds[part] for part in self.not_foreseen)

    @property
    def seconds_foreseen(self) -> float | None:
        return self.foreseen.whole(self.spent.times) if self.foreseen and self.steps else None

    @property
    def memory_foreseen(self) -> int | None:
        return self.foreseen.memory if self.foreseen else None

    def as_json(self) -> dict[str, Any]:
        ends = self.foreseen.ends(self.spent.times) if self.foreseen and self.steps else None
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "seconds_compared": round(self.seconds_compared, 3) if self.foreseen else None,
            "seconds_foreseen": self.seconds_foreseen,
            "seconds_foreseen_range": list(ends) if ends else None,
            "seconds_ratio": _ratio(self.seconds_compared, self.seconds_foreseen),
            "parts": dict(self._parts()),
            "memory": self.memory,
            "memory_of": self.holder,
            "memory_foreseen": self.memory_foreseen,
            "memory_ratio": _ratio(self.memory, self.memory_foreseen),
            "read_back": asdict(self.read_back) if self.read_back else None,
        }

    def _parts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What each part took and what was foreseen for it; the rest is foreseen to be nothing."""
        known = self.foreseen.seconds(self.spent.times) if self.foreseen and self.steps else {}
        for part in (*PARTS, REST):
            if part in self.spent.seconds:
                facts: dict[str, Any] = {} if part == REST else {"times": self.spent.times[part]}
                took = round(self.spent.seconds[part], 3)
                yield part, {**facts, "seconds": took, "seconds_foreseen": known.get(part)}

    def lines(self) -> Iterator[tuple[str, str]]:
        """For people, as titles and texts."""
        if self.steps:
            yield "Time", f"{precise(self.seconds)} for {self.steps:,} steps and all between them{self._against_time()}"
            if self.seconds - self.spent.seconds["step"] >= 1:
                yield "Of it", ", ".join(self._said_of_parts())
        if self.memory:
            of = {"process": "the whole process", "device": "the GPU"}[self.holder]
            yield "Memory", f"{size(self.memory)} of {of} at the peak{self._against_memory()}"
        if self.read_back:
            yield "Read back", str(self.read_back)

    def _said_of_parts(self) -> Iterator[str]:
        for part, facts in self._parts():
            known = facts["seconds_foreseen"]
            if part != REST or facts["seconds"] >= 1:
                beside = "" if known is None else f" ({precise(known)} foreseen)"
                yield f"{precise(facts['seconds'])} for {PARTS.get(part, 'the rest')}{beside}"

    def _against_time(self) -> str:
        ratio = _ratio(self.seconds_compared, self.seconds_foreseen)
        if self.foreseen is None or ratio is None:
            return ""
        without = " and ".join(PARTS[part] for part in self.not_foreseen)
        ends = span(*self.foreseen.ends(self.spent.times), precise)
        times = f"{ratio:.2f} times the {precise(self.seconds_foreseen or 0)} foreseen by the plan ({ends})"
        return f"; without {without} {times}" if without else f", {times}"

    def _against_memory(self) -> str:
        ratio = _ratio(self.memory, self.memory_foreseen)
        return (
            "" if ratio is None else f", {ratio:.2f} times the {size(self.memory_foreseen or 0)} foreseen by the plan"
        )


def of(run: RunFolder) -> Outcome:
    """What the files of a run say, at any time."""
    rows, spent = list(events.read(run.events)), Spent()
    for row in rows:
        spent.take(row)
    peaks = [row for row in rows if row["kind"] == "took"]
    return Outcome(
        spent=spent,
        memory=max((row["memory"] for row in peaks), default=None),
        holder=peaks[-1]["holder"] if peaks else "process",
        foreseen=foreseen.of(run),
        read_back=_read_back(rows),
    )


def _read_back(rows: Sequence[Event]) -> ReadBack | None:
    """Of the newest files."""
    found = [row for row in rows if row["kind"] == "read_back"]
    if not found:
        return None
    facts = {one.name: found[-1][one.name] for one in fields(ReadBack)}
    return ReadBack(**facts | {"files": tuple(facts["files"])})


def _ratio(real: float | None, foreseen: float | None) -> float | None:
    return real / foreseen if real is not None and foreseen else None
