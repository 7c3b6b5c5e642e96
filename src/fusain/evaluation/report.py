"""One self-contained `report.html` of a run, built from sections; each says itself whether it has something to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from fusain.evaluation import sections
from fusain.evaluation.curves import Point
from fusain.evaluation.evaluator import Judgement
from fusain.evaluation.evidence import Evidence, Images, ImageSet
from fusain.evaluation.page import page, tag

NOTHING_DRAWN: Final = Evidence(ImageSet(np.zeros((0, 1, 1, 3), np.uint8)))
NOT_JUDGED: Final = Judgement({}, {})


@dataclass(frozen=True)
class ClassCount:
    """How many images of a class there were."""

    name: str
    training: int
    held_out: int


@dataclass(frozen=True)
class Stage:
    """Samples that were drawn while it trained, by class."""

    step: int
    rows: Mapping[str, Sequence[Images]]


@dataclass(frozen=True)
class Comparison:
    """Rows of images that say more side by side than numbers do."""

    title: str
    words: str
    rows: Mapping[str, Sequence[Images]]


@dataclass(frozen=True)
class Contents:
    """Everything that a report shows; what is empty is left out."""

    title: str
    lead: str
    evidence: Evidence = NOTHING_DRAWN
    judgement: Judgement = NOT_JUDGED
    drawing: str = ""
    """How the images were drawn, as part of a sentence."""
    held_out_curve: Sequence[Point] = ()
    training_curve: Sequence[Point] = ()
    stages: Sequence[Stage] = ()
    comparisons: Sequence[Comparison] = ()
    counts: Sequence[ClassCount] = ()
    quarantined: Sequence[tuple[str, str]] = ()
    """Name and reason of each image that was put aside."""
    took: Sequence[tuple[str, str]] = ()
    """What the training took against what was foreseen, as titles and texts."""
    warnings: Mapping[str, int] = field(default_factory=dict)
    """What was warned of while it trained, and how often."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    """Further limits of the numbers, a sentence each."""


def write(contents: Contents, path: Path) -> None:
    """Write the report beside `path` and rename it, so that nobody opens half of it."""
    waiting = path.with_name(f".{path.name}.tmp")
    try:
        waiting.write_text(render(contents), encoding="utf-8")
        waiting.replace(path)
    finally:
        waiting.unlink(missing_ok=True)


def render(contents: Contents) -> str:
    """The report as one HTML file that asks for nothing outside itself."""
    built = [section for section in (build(contents) for build in sections.ALL) if section]
    foot = tag("footer", "Written by Fusain. This file holds all it shows and asks for nothing from outside.")
    return page(contents.title, sections.header(contents), tag("main", *built), foot)
