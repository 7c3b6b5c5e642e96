"""How varied the generated images are beside as many held-out ones: the ratio of their Vendi scores.

The Vendi score (Friedman and Dieng, 2023) is the effective number of different images: exp of the entropy of the
eigenvalues of the similarity matrix divided by n. It is preferred to the mean pairwise distance because that hardly
falls when a model draws only a few images of each class, which are as far apart as before; the effective number falls
at once. Similarity is exp(-d^2 / 2 s^2) in the given features, with s half the median distance between held-out
images. The score grows with n, so both sets have equal n, and as many of each class where classes are known; beyond
that no label is looked at. The interval is from half-samples without replacement: drawing with replacement repeats
images, which is the very thing that is measured.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fusain.evaluation.evidence import Evidence, ImageSet
from fusain.evaluation.intervals import Z_95
from fusain.evaluation.metric import Measurement, Metric

MOST_IMAGES: Final = 1_000
"""Of each set: eigenvalues cost the third power."""
HALF_SAMPLES: Final = 50
REACH: Final = 0.5
"""The width of the similarity in medians: at 1 a hundred images repeated five times still reach 70 % of the score."""

Rows = npt.NDArray[np.int64]


class Pairing(NamedTuple):
    """Equally many rows of two sets, as many of each class."""

    generated: Rows
    held_out: Rows


class Diversity(Metric):
    kind: ClassVar[str] = "diversity"
    title: ClassVar[str] = "Diversity"
    unit: ClassVar[Literal["share", "ratio"]] = "ratio"
    needs: ClassVar[frozenset[str]] = frozenset({"held_out", "features"})
    cannot_say: ClassVar[str] = (
        "Diversity does not say that images are good: strange and broken ones count as varied too. It compares with "
        "the held-out images at hand, so it cannot see a kind that is missing from both."
    )

    def measure(self, evidence: Evidence) -> Measurement:
        assert evidence.held_out is not None
        dice = np.random.default_rng(0)
        rows = pair(evidence.generated, evidence.held_out, dice)
        ours, theirs = evidence.generated_features[rows.generated], evidence.held_out_features[rows.held_out]
        count = len(ours)
        own, real = squared_distances(ours), squared_distances(theirs)
        width = REACH * float(np.sqrt(np.median(real[np.triu_indices(count, 1)]))) if count > 1 else 1.0
        similar, similar_real = similarities(own, width), similarities(real, width)
        score, score_real = vendi(similar), vendi(similar_real)
        halves = []
        for _ in range(HALF_SAMPLES if count > 3 else 0):
            half, half_real = (np.sort(dice.permutation(count)[: count // 2]) for _ in range(2))
            halves.append(vendi(similar[np.ix_(half, half)]) / vendi(similar_real[np.ix_(half_real, half_real)]))
        # The spread of half-samples is that of whole ones: 1/2 in their size and 1/2 for drawing without replacement.
        reach = Z_95 * float(np.std(halves, ddof=1)) if halves else float(count)
        value = score / score_real
        apart = mean_distance(own) / mean_distance(real) if count > 1 else 1.0
        sentence = (
            f"{count:,} generated images are as varied as {score:.0f} entirely different ones; as many held-out images "
            f"are as varied as {score_real:.0f}. Two of them lie {apart:.2f} times as far apart as two held-out ones."
        )
        facts = {"generated": score, "held_out": score_real, "mean_distance": apart}
        return Measurement(value, max(0.0, value - reach), value + reach, count, sentence, reference=1.0, facts=facts)


def pair(generated: ImageSet, held_out: ImageSet, dice: np.random.Generator) -> Pairing:
    """As many of each class from both sets, chosen at random; without classes simply as many."""
    ours, theirs = np.zeros(len(generated), np.int64), np.zeros(len(held_out), np.int64)
    if generated.labels is not None and held_out.labels is not None:
        ours, theirs = generated.labels, held_out.labels
    kept = min(1.0, MOST_IMAGES / max(1, min(len(ours), len(theirs))))
    chosen: list[Rows] = []
    chosen_real: list[Rows] = []
    for label in np.unique(theirs):
        own, real = np.flatnonzero(ours == label), np.flatnonzero(theirs == label)
        number = int(kept * min(len(own), len(real)))
        chosen.append(dice.permutation(own)[:number])
        chosen_real.append(dice.permutation(real)[:number])
    return Pairing(np.concatenate(chosen), np.concatenate(chosen_real))


def squared_distances(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = features.astype(np.float64)
    squares = (wide * wide).sum(axis=1)
    distances: npt.NDArray[np.float64] = np.maximum(squares[:, None] + squares[None] - 2 * wide @ wide.T, 0.0)
    return distances


def mean_distance(squared: npt.NDArray[np.float64]) -> float:
    """Between two different images of a set: the milder measure, told beside the score."""
    return float(np.sqrt(squared[np.triu_indices(len(squared), 1)]).mean())


def similarities(squared: npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64]:
    similar: npt.NDArray[np.float64] = np.exp(-squared / (2 * max(width, 1e-12) ** 2))
    return similar


def vendi(similar: npt.NDArray[np.float64]) -> float:
    """The effective number of different things among n with these similarities: from 1 to n."""
    values = np.linalg.eigvalsh(similar / len(similar))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
