"""The contract of a metric: what it needs, and one measurement with its uncertainty and what it cannot say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from fusain.evaluation.evidence import Evidence


@dataclass(frozen=True)
class Measurement:
    """One number with its 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    """Images that it was measured on."""
    sentence: str
    """What the number says, for people."""
    reference: float | None = None
    """What unseen real images reach under the same measurement."""
    parts: Mapping[str, Measurement] = field(default_factory=dict)
    """The same for each class or other part."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Further numbers, by name."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def percent(share: float) -> str:
    """A share as people read it, the sign never parted from its number."""
    return f"{share * 100:.1f}\u202f%"


class Metric(ABC):
    """One way to measure; one file in `evaluation/metrics/` each."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """What the report calls it."""
    unit: ClassVar[Literal["share", "ratio"]]
    """How its values are shown: 0.95 as 95 %, or as 0.95."""
    needs: ClassVar[frozenset[str]]
    """Fields of `Evidence`, and `labels` for the classes that were asked for; without them it is left out."""
    cannot_say: ClassVar[str]
    """What a good value does not mean, in a sentence."""

    @abstractmethod
    def measure(self, evidence: Evidence) -> Measurement: ...
