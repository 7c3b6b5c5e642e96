"""How often a generated image is a near-copy of a training image, and how often that is to be expected by chance.

A drawing that nobody trained on may lie near a training image too. So each image's distance to its nearest training
image, divided by the mean distance to its 50 nearest (which makes sharp and blurred images comparable, and finds
copies of images that the training set repeats), is compared with the same number of held-out images of its class: a
near-copy is what lies lower than about one in twenty of those. If the model does not copy, generated and held-out
images are exchangeable within a class, and the number of near-copies follows a negative hypergeometric law; the sum
over the classes is tested against it exactly.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fusain.evaluation.evidence import Evidence
from fusain.evaluation.intervals import clopper_pearson, log_choose
from fusain.evaluation.metric import Measurement, Metric

LEVEL: Final = 0.05
SIGNIFICANT: Final = 0.01
EXACT: Final = 0.5
"""Levels of 255 below which two images are one and the same."""


class Stratum(NamedTuple):
    """One class: near-copies among its generated images, and the chance of each number of them."""

    flagged: int
    drawn: int
    chances: npt.NDArray[np.float64]


class Copies(Metric):
    kind: ClassVar[str] = "copies"
    title: ClassVar[str] = "Near-copies"
    unit: ClassVar[Literal["share", "ratio"]] = "share"
    needs: ClassVar[frozenset[str]] = frozenset({"held_out", "training"})
    cannot_say: ClassVar[str] = (
        "Near-copies are looked for in pixels, as they are and mirrored: a training image that was moved, recoloured "
        "or taken over in part is not found. Look at the pairs."
    )

    def measure(self, evidence: Evidence) -> Measurement:
        ours, theirs = evidence.generated_neighbours, evidence.held_out_neighbours
        strata = [stratum(ours.crowding[own], theirs.crowding[real]) for own, real in _classes(evidence)]
        flagged, count = sum(part.flagged for part in strata), sum(part.drawn for part in strata)
        chances = np.ones(1)
        for part in strata:
            chances = np.convolve(chances, part.chances)
        expected = float((np.arange(len(chances)) * chances).sum())
        p_value = float(chances[flagged:].sum())
        exact = int((ours.distances[:, 0] < EXACT).sum())
        equal = f"{exact:,} are equal to one" if exact > 1 else f"{exact or 'None'} is equal to one"
        verdict = (
            "that is more than chance: the model repeats training images"
            if p_value < SIGNIFICANT
            else "no more than among images that nobody trained on"
        )
        sentence = (
            f"{flagged:,} of {count:,} images lie as near to a training image as the nearest twentieth of held-out "
            f"images does, where {expected:.0f} are expected by chance: {verdict}. {equal}."
        )
        facts = {"p_value": p_value, "expected": expected, "exact": float(exact)}
        interval = clopper_pearson(flagged, count)
        return Measurement(flagged / count, *interval, count, sentence, reference=expected / count, facts=facts)


def _classes(evidence: Evidence) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Which generated and which held-out images belong together; all, where classes are not known of both."""
    assert evidence.held_out is not None
    ours, theirs = evidence.generated.labels, evidence.held_out.labels
    if ours is None or theirs is None:
        return [(np.ones(len(evidence.generated), np.bool_), np.ones(len(evidence.held_out), np.bool_))]
    return [(ours == label, theirs == label) for label in np.intersect1d(ours, theirs)]


def stratum(generated: npt.NDArray[np.float32], held_out: npt.NDArray[np.float32]) -> Stratum:
    """Generated images that lie below the k-th lowest held-out one, k being a twentieth of them, and at least one."""
    rank = max(1, round(LEVEL * (len(held_out) + 1)))
    threshold = np.sort(held_out)[rank - 1]
    flagged = int((generated < threshold).sum())
    return Stratum(flagged, len(generated), negative_hypergeometric(rank, len(held_out), len(generated)))


def negative_hypergeometric(rank: int, held_out: int, generated: int) -> npt.NDArray[np.float64]:
    """The chance that 0, 1, ... of the generated values lie below the held-out value of that rank, all being alike."""
    total = log_choose(generated + held_out, generated)
    return np.asarray(
        [
            math.exp(
                log_choose(below + rank - 1, below)
                + log_choose(generated - below + held_out - rank, generated - below)
                - total
            )
            for below in range(generated + 1)
        ]
    )
