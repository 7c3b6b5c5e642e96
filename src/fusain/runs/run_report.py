"""Gathers from a run's folder and data what its report shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from fusain.data.dataset import Dataset
from fusain.evaluation import report as reports
from fusain.evaluation.curves import Point
from fusain.evaluation.evaluator import Judgement
from fusain.evaluation.evidence import Evidence
from fusain.evaluation.report import ClassCount, Comparison, Contents, Stage
from fusain.evaluation.sections import IN_STAGE
from fusain.messages.quantities import precise
from fusain.runs import assembly, outcome
from fusain.runs.folder import RunFolder, read_json
from fusain.runs.settings import RunSettings
from fusain.settings.notice import Notice
from fusain.training import events
from fusain.training.diagnosis import in_words
from fusain.training.events import Event, EventLog

IMAGES: Final = "[0-9]*.png"
MOST_STAGES: Final = 8
MOST_ROWS: Final = 12
"""Classes or prompts whose samples are shown."""


def write(run: RunFolder, dataset: Dataset, log: EventLog) -> bool:
    """The report of a run that was trained and that nobody has judged; a fault costs the report and not the run."""
    try:
        settings = RunSettings.model_validate(read_json(run.settings))
        reports.write(contents(run, settings, dataset), run.report)
    except Exception as fault:  # an edge: what only tells of a run may not make it fail
        notice = Notice("W-STORE-004", where=str(run.report), fault=in_words(fault))
        log("warning", code=notice.code, text=str(notice))
        return False
    return True


def contents(
    run: RunFolder,
    settings: RunSettings,
    dataset: Dataset,
    evidence: Evidence = reports.NOTHING_DRAWN,
    judgement: Judgement = reports.NOT_JUDGED,
    *,
    comparisons: Sequence[Comparison] = (),
    remarks: Sequence[str] = (),
    beside: Mapping[str, RunFolder] | None = None,
) -> Contents:
    """Everything that there is to show of a run, judged or not, and what other runs took, by titles."""
    rows = list(events.current(run.events))
    held_out_curve = [Point(row["step"], row["loss"]) for row in rows if row["kind"] == "held_out"]
    steps = [row for row in rows if row["kind"] == "step"]
    training, held_out = dataset.class_counts(dataset.train), dataset.class_counts(dataset.held_out)
    drawing = settings.samples
    return Contents(
        title=f"What the run “{run.name}” learnt",
        lead=_lead(steps, dataset, len(evidence.generated)),
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
        warnings=Counter(row["text"] for row in rows if row["kind"] == "warning"),
        settings=settings.model_dump(mode="json"),
        versions=assembly.versions(),
        remarks=remarks,
    )


def _lead(steps: Sequence[Event], dataset: Dataset, drawn: int) -> str:
    took, images = precise(sum(row["seconds"] for row in steps)), len(dataset.stream or dataset.train)
    before, aside = f"{drawn:,} images, drawn after" if drawn else "Trained for", len(dataset.held_out)
    lead = f"{before} {len(steps):,} steps ({took}) on {images:,} training images."
    return f"{lead} {aside:,} more were set aside before it began." if aside else lead


def _took(runs: Mapping[str, RunFolder]) -> Iterator[tuple[str, str]]:
    for title, run in runs.items():
        yield from ((f"{title}: {what.lower()}", text) for what, text in outcome.of(run).lines())


def _stages(run: RunFolder) -> list[Stage]:
    """The samples that were drawn while it trained: the first few of each kind, at steps that are evenly apart."""
    folders = [folder for folder in sorted(run.samples.glob("step-*")) if any(folder.glob(IMAGES))]
    chosen = np.linspace(0, len(folders) - 1, min(MOST_STAGES, len(folders))).round().astype(int).tolist()
    return [Stage(int(folders[one].name.removeprefix("step-")), _rows(folders[one])) for one in chosen]


def _rows(folder: Path) -> dict[str, list[np.ndarray]]:
    rows: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob(IMAGES)):
        with Image.open(path) as image:
            title = _title(image)
            if title not in rows and len(rows) == MOST_ROWS:
                break
            row = rows.setdefault(title, [])
            if len(row) < IN_STAGE:
                row.append(np.asarray(image.convert("RGB")))
    return rows


def _title(image: Image.Image) -> str:
    """The class or the prompt as it was given, which a file's name has no room for."""
    told = json.loads(getattr(image, "text", {}).get("fusain", "{}"))
    return str(told.get("prompt", told.get("label", "")))
