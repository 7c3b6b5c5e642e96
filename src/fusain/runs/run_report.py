"""Gathers from a run's folder and data what its report shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from fusain.data.dataset import Dataset
from fusain.evaluation.curves import Point
from fusain.evaluation.evaluator import Judgement
from fusain.evaluation.evidence import Evidence
from fusain.evaluation.report import ClassCount, Comparison, Contents, Stage
from fusain.runs import assembly, outcome
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.training import events


def contents(
    run: RunFolder,
    settings: RunSettings,
    dataset: Dataset,
    evidence: Evidence,
    judgement: Judgement,
    *,
    comparisons: Sequence[Comparison] = (),
    remarks: Sequence[str] = (),
    beside: Mapping[str, RunFolder] | None = None,
) -> Contents:
    """Everything that there is to show of a run that was judged, and what other runs took, by titles."""
    rows = list(events.current(run.events))
    held_out_curve = [Point(row["step"], row["loss"]) for row in rows if row["kind"] == "held_out"]
    steps = [row for row in rows if row["kind"] == "step"]
    minutes = sum(row["seconds"] for row in steps) / 60
    training, held_out = dataset.class_counts(dataset.train), dataset.class_counts(dataset.held_out)
    drawing = settings.samples
    return Contents(
        title=f"What the run “{run.name}” learnt",
        lead=(
            f"{len(evidence.generated):,} images, drawn after {len(steps):,} steps ({minutes:.1f} minutes) on "
            f"{len(dataset.train):,} training images. {len(dataset.held_out):,} more were set aside before it began."
        ),
        evidence=evidence,
        judgement=judgement,
        drawing=f"in {drawing.steps} {drawing.sampler.upper()} steps with guidance {drawing.guidance:g}",
        held_out_curve=held_out_curve,
        training_curve=[Point(row["step"], row["loss"]) for row in steps],
        stages=_stages(run),
        comparisons=comparisons,
        counts=[ClassCount(name, count, held_out[name]) for name, count in training.items()],
        took=[*outcome.of(run).lines(), *_took(beside or {})],
        quarantined=[(broken.name, broken.reason) for broken in dataset.quarantined],
        settings=settings.model_dump(mode="json"),
        versions=assembly.versions(),
        remarks=remarks,
    )


def _took(runs: Mapping[str, RunFolder]) -> Iterator[tuple[str, str]]:
    for title, run in runs.items():
        yield from ((f"{title}: {what.lower()}", text) for what, text in outcome.of(run).lines())


def _stages(run: RunFolder) -> list[Stage]:
    """The samples that were drawn while it trained."""
    stages = []
    for folder in sorted(run.samples.glob("step-*")):
        rows: dict[str, list[np.ndarray]] = {}
        for path in sorted(folder.glob("[0-9]*.png")):
            with Image.open(path) as image:
                rows.setdefault(path.stem.partition("-")[2], []).append(np.asarray(image.convert("RGB")))
        stages.append(Stage(int(folder.name.removeprefix("step-")), rows))
    return stages
