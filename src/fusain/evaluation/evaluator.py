"""Runs every metric whose needs are met, and looks up the nearest training images of some samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import fusain.evaluation.metrics
from fusain.evaluation.evidence import Evidence
from fusain.evaluation.metric import Measurement, Metric
from fusain.plugins import find

METRICS: dict[str, type[Metric]] = find(fusain.evaluation.metrics, Metric)


class Result(NamedTuple):
    """A metric and what it measured."""

    metric: type[Metric]
    measurement: Measurement


@dataclass(frozen=True)
class Judgement:
    """What was measured, by the metrics' kinds."""

    results: dict[str, Result]
    left_out: dict[str, tuple[str, ...]]
    """Metrics that could not be measured, with what they lacked."""

    def __getitem__(self, kind: str) -> Measurement:
        return self.results[kind].measurement

    def as_json(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        measured = {kind: result.measurement.as_json() for kind, result in self.results.items()}
        return {"metrics": measured, "left_out": {kind: list(needs) for kind, needs in self.left_out.items()}}


def judge(evidence: Evidence, metrics: dict[str, type[Metric]] | None = None) -> Judgement:
    """Measure all that the evidence allows; features and distances are computed once, in the evidence."""
    results: dict[str, Result] = {}
    left_out: dict[str, tuple[str, ...]] = {}
    for kind, metric in (METRICS if metrics is None else metrics).items():
        missing = tuple(sorted(need for need in metric.needs if not evidence.has(need)))
        if missing:
            left_out[kind] = missing
        else:
            results[kind] = Result(metric, metric().measure(evidence))
    return Judgement(results, left_out)


class Pair(NamedTuple):
    """A generated image and the training image nearest to it."""

    generated: int
    training: int
    distance: float
    """Root mean square difference in levels of 255."""
    is_mirrored: bool


def nearest_pairs(evidence: Evidence, rows: list[int]) -> list[Pair]:
    """The nearest training image of each of these generated images."""
    assert evidence.training is not None
    found = evidence.generated_neighbours
    pairs = []
    for row in rows:
        training = int(found.rows[row, 0])
        ours = evidence.generated.images[row].astype(np.float32)
        theirs = evidence.training.images[training].astype(np.float32)
        plain, mirrored = (float(np.square(side - theirs).mean()) for side in (ours, ours[:, ::-1]))
        pairs.append(Pair(row, training, float(found.distances[row, 0]), mirrored < plain))
    return pairs


def closest(evidence: Evidence, count: int) -> list[int]:
    """The generated images that stand out most as near to one training image."""
    order: list[int] = np.argsort(evidence.generated_neighbours.crowding, kind="stable")[:count].tolist()
    return order


def spread(evidence: Evidence, count: int) -> list[int]:
    """Some generated images that nobody chose: evenly spaced over the classes."""
    total = len(evidence.generated)
    return [int(position) for position in (np.arange(min(count, total)) + 0.5) * total / max(1, min(count, total))]
