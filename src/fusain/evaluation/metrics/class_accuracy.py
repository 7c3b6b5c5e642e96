"""How often an independent judge sees the class that was asked for."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from fusain.evaluation.evidence import Evidence
from fusain.evaluation.intervals import wilson
from fusain.evaluation.metric import Measurement, Metric, percent


class ClassAccuracy(Metric):
    kind: ClassVar[str] = "class_accuracy"
    title: ClassVar[str] = "Class accuracy"
    unit: ClassVar[Literal["share", "ratio"]] = "share"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "classify"})
    cannot_say: ClassVar[str] = (
        "Class accuracy does not say that an image is well drawn: one perfect image of each class, drawn again and "
        "again, would reach 100 %, and a judge that is wrong about an image is wrong about it every time."
    )

    def measure(self, evidence: Evidence) -> Measurement:
        wanted = evidence.generated.labels
        assert wanted is not None
        is_right = evidence.generated_probabilities.argmax(axis=1) == wanted
        parts = {}
        for label, name in enumerate(evidence.classes):
            of_class = is_right[wanted == label]
            if len(of_class):
                hits, count = int(of_class.sum()), len(of_class)
                sentence = f"{hits:,} of {count:,} {name} images are seen as {name}."
                parts[name] = Measurement(hits / count, *wilson(hits, count), count, sentence)
        hits, count = int(is_right.sum()), len(is_right)
        worst = min(parts, key=lambda name: parts[name].value)
        sentence = (
            f"The judge saw the class that was asked for in {hits:,} of {count:,} images; the weakest class is {worst} "
            f"with {percent(parts[worst].value)}."
        )
        reference = self._on_held_out(evidence)
        if reference is not None:
            sentence += f" Of real images that nobody trained on it recognises {percent(reference)}."
        interval = wilson(hits, count)
        return Measurement(hits / count, *interval, count, sentence, reference=reference, parts=parts)

    def _on_held_out(self, evidence: Evidence) -> float | None:
        """How good the judge itself is; no model can be seen to be better."""
        held_out = evidence.held_out
        if held_out is None or held_out.labels is None or not len(held_out):
            return None
        return float(np.mean(evidence.held_out_probabilities.argmax(axis=1) == held_out.labels))
