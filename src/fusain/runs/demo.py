"""Everything once, on drawn sprites: data, training, drawing and a judgement, for `fusain demo`.

Then a miniature Stable Diffusion is taught a character, and shown in the same report.
"""

from __future__ import annotations

import io
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from fusain.data.dataset import Dataset
from fusain.errors import StorageError, UsageError
from fusain.evaluation import report as reports
from fusain.evaluation.evaluator import Judgement, judge
from fusain.evaluation.evidence import Evidence, ImageSet, Reader
from fusain.evaluation.features import MainDirections
from fusain.evaluation.metric import percent
from fusain.generation import gallery
from fusain.generation.generator import Wanted, generate
from fusain.runs import actions, assembly, demo_character, lock, run_report
from fusain.runs.demo_character import Say, Taught
from fusain.runs.folder import RunFolder, read_json, write_json
from fusain.runs.settings import RunSettings
from fusain.settings.layers import Overrides, pairs
from fusain.settings.read import resolve_source
from fusain.training.events import Listener
from fusain.training.stopping import Reason
from fusain.worlds import sprites
from fusain.worlds.sprite_reader import classify, train_reader

RECIPE: Final = "demo"
WORLD_SEED: Final = 0
DRAWN = 1_000
"""Images that are drawn and judged."""
FIRST_SEED: Final = 1_000_000
"""Far from the seeds of the samples that were drawn while it trained."""
DRAWN_AT_ONCE: Final = 100
READER_IMAGES, READER_STEPS = 2_000, 400
"""How the judge of the classes is trained: images of each class, and steps."""
IN_SHEET: Final = 24
MARK: Final = "demo.json"
"""The file by which a folder of sprites is known as one that a demo drew."""


@dataclass(frozen=True)
class DemoResult:
    """What a demo found; where it was stopped there is no report yet, and the same call goes on."""

    run: Path
    seconds: float
    report: Path | None = None
    sheet: Path | None = None
    steps: int = 0
    images: int = 0
    """Images that were drawn and judged."""
    judgement: Judgement | None = None
    per_class: dict[str, float] = field(default_factory=dict)
    taught: Taught | None = None
    """The second half: a character that a miniature Stable Diffusion learnt."""
    stopped: Reason | None = None

    @property
    def class_accuracy(self) -> float | None:
        return self.judgement["class_accuracy"].value if self.judgement else None

    @property
    def diversity(self) -> float | None:
        """Effective number of different images, by that of as many held-out drawings."""
        return self.judgement["diversity"].value if self.judgement else None

    @property
    def mean_distance(self) -> float | None:
        """Between two generated images, by that between two held-out drawings."""
        return self.judgement["diversity"].facts["mean_distance"] if self.judgement else None

    @property
    def copies(self) -> float | None:
        """Share of near-copies of training images."""
        return self.judgement["copies"].value if self.judgement else None

    @property
    def copies_expected(self) -> float | None:
        """The share of near-copies that images have which nobody trained on."""
        return self.judgement["copies"].reference if self.judgement else None

    def as_json(self) -> dict[str, Any]:
        return {
            "report": str(self.report) if self.report else None,
            "run": str(self.run),
            "sheet": str(self.sheet) if self.sheet else None,
            "class_accuracy": self.class_accuracy,
            "per_class": self.per_class,
            "diversity": self.diversity,
            "mean_distance": self.mean_distance,
            "copies": self.copies,
            "copies_expected": self.copies_expected,
            "character": None if self.taught is None else self.taught.as_json(),
            "images": self.images,
            "steps": self.steps,
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        if self.judgement is None:
            return [f"Stopped with a checkpoint; the same command goes on with {self.run}."]
        accuracy, diversity, copies = (self.judgement[kind] for kind in ("class_accuracy", "diversity", "copies"))
        near = f"{percent(copies.value)} ({percent(copies.reference or 0)} expected by chance)"
        rows = [
            ("Class accuracy", f"{percent(accuracy.value)} of {accuracy.count:,} images"),
            *((f"  {name}", percent(value)) for name, value in self.per_class.items()),
            ("Diversity", f"{diversity.value:.2f} of that of unseen drawings"),
            ("Near-copies", near),
            *(self.taught.rows() if self.taught else ()),
            ("Sprites", str(self.sheet)),
            ("Run", str(self.run)),
            ("Report", str(self.report)),
        ]
        return [f"{name:<16}{value}" for name, value in rows]


def demo(
    folder: Path | str,
    *,
    report: Listener | None = None,
    images: int = 10_000,
    steps: int | None = None,
    overrides: Overrides = (),
    of_character: Overrides = (),
) -> DemoResult:
    """Draw a world of sprites, train on it, draw from the model and judge it; then teach a miniature a character.

    All of it lies in `folder`. `overrides` are of the first half, `of_character` of the second.
    """
    started = time.monotonic()
    folder = Path(folder)

    def say(text: str) -> None:
        if report is not None:
            report({"kind": "note", "time": round(time.time(), 3), "text": text})

    own = [("data.path", str(folder / "sprites")), ("runs_folder", str(folder / "runs"))]
    own.append(("weights_folder", "none"))
    own += [("train.steps", str(steps))] if steps is not None else []
    overrides = [*own, *pairs(overrides)]
    _draw_world(folder, images, say)
    settings = assembly.resolved_engine(resolve_source(RunSettings, RECIPE, overrides).settings)
    dataset = assembly.prepare_data(settings, folder=None, report=lambda kind, **facts: None)
    sheet = _show(dataset, folder / "sprites-sheet.png", say)

    run = _free_run(settings)
    say(f"Training {run.name}.")
    trained = actions.train(RECIPE, name=run.name, overrides=overrides, report=report)
    if trained.stopped is not None:
        return DemoResult(run.path, _since(started), sheet=sheet, steps=trained.step, stopped=trained.stopped)

    taught = demo_character.teach(
        folder, settings.runs_folder, f"{run.name}-character", say=say, report=report, overrides=of_character
    )
    if taught.stopped is not None:
        return DemoResult(run.path, _since(started), sheet=sheet, steps=trained.step, stopped=taught.stopped)

    say(f"Drawing {DRAWN:,} images.")
    drawn = _draw(run)
    say("Training the judge of the classes on other drawings, then judging.")
    evidence = _evidence(dataset, drawn)
    judgement = judge(evidence)
    shown = _contents(run, settings, dataset, evidence, judgement, taught)
    reports.write(shown, run.report)
    write_json(run.metrics, judgement.as_json())
    per_class = {name: part.value for name, part in judgement["class_accuracy"].parts.items()}
    return DemoResult(
        run.path, _since(started), run.report, sheet, trained.step, len(drawn), judgement, per_class, taught
    )


def _contents(
    run: RunFolder, settings: RunSettings, dataset: Dataset, evidence: Evidence, judgement: Judgement, taught: Taught
) -> reports.Contents:
    """The report of both halves."""
    remark = (
        f"The judge of the classes is a small network that was trained on {READER_IMAGES * len(dataset.classes):,} "
        "other drawings of the same world; it knows sprites and nothing else."
    )
    beside = {"The character": RunFolder(taught.run)}
    return run_report.contents(
        run,
        settings,
        dataset,
        evidence,
        judgement,
        comparisons=taught.comparisons,
        remarks=[remark],
        beside=beside,
    )


def _since(started: float) -> float:
    return round(time.monotonic() - started, 1)


def _draw_world(folder: Path, images: int, say: Say) -> None:
    """The sprites, drawn whole or not at all; those of an earlier demo are used again, and nothing is ever deleted."""
    target = folder / "sprites"
    wanted = {"images": images, "seed": WORLD_SEED, "classes": list(sprites.CLASSES)}
    if target.exists():
        mark = target / MARK
        found = read_json(mark) if mark.is_file() else None
        if found is None:
            raise UsageError("E-DEMO-001", where=str(target), path=target)
        if found != wanted:
            raise UsageError("E-DEMO-002", where=str(target), path=target, found=found.get("images"), wanted=images)
        return
    say(f"Drawing a world of {images:,} sprites.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".drawing-", dir=folder) as waiting:
            drawing = Path(waiting) / "sprites"
            sprites.write_folder(sprites.world(images, seed=WORLD_SEED), drawing)
            _add_broken_files(drawing)
            write_json(drawing / MARK, wanted)
            drawing.rename(target)
    except OSError as fault:
        raise StorageError("E-STORE-004", where=str(folder), fault=fault.strerror or fault) from fault


def _add_broken_files(folder: Path) -> None:
    """What is found in every real folder of images: a download that broke off, a page of an error, nothing at all."""
    content = io.BytesIO()
    Image.fromarray(sprites.draw(0, WORLD_SEED)).save(content, "PNG")
    whole = content.getvalue()
    (folder / "human" / "cut-off.png").write_bytes(whole[: len(whole) // 2])
    (folder / "spell" / "not-found.png").write_text("<!doctype html><title>404 Not Found</title>", encoding="utf-8")
    (folder / "food" / "empty.png").write_bytes(b"")


def _show(dataset: Dataset, path: Path, say: Say) -> Path:
    """Says what is in the data and lays out a contact sheet."""
    rows = {}
    for label, (name, count) in enumerate(dataset.class_counts().items()):
        say(f"{name:<12} {count:>7,}")
        assert dataset.label_ids is not None
        first = np.flatnonzero(dataset.label_ids == label)[:IN_SHEET]
        rows[f"{name}: {count:,}"] = list(dataset.pixels(first))
    for broken in dataset.quarantined:
        say(f"Put aside: {broken.reason}")
    gallery.contact_sheet(rows, columns=IN_SHEET, scale=3).save(path)
    say(f"{len(dataset.train):,} to train on, {len(dataset.held_out):,} set aside; a contact sheet is in {path}")
    return path


def _free_run(settings: RunSettings) -> RunFolder:
    """A demo with these settings that was stopped, else a new name: demo, demo-2, demo-3, ..."""
    names = itertools.chain([RECIPE], (f"{RECIPE}-{number}" for number in itertools.count(2)))
    for name in names:
        run = RunFolder.named(settings.runs_folder, name)
        if not run.exists():
            return run
        if not run.metrics.exists() and not lock.is_held(run.lock) and _has_settings(run, settings):
            return run
    raise AssertionError("names never end")


def _has_settings(run: RunFolder, settings: RunSettings) -> bool:
    return read_json(run.settings) == settings.model_dump(mode="json")


def _draw(run: RunFolder) -> ImageSet:
    """As many images of each class, each from a seed of its own, by the recipe's own sampler settings."""
    opened = actions.open_run(run.path)
    family = opened.learner.family
    family.network.to(assembly.device_of("auto"))
    classes = family.facts.classes
    labels = np.repeat(np.arange(len(classes)), DRAWN // len(classes))
    wanted = [Wanted(FIRST_SEED + row, {classes[label]: 1.0}) for row, label in enumerate(labels.tolist())]
    drawn = [image.pixels for image in generate(family, wanted, opened.settings.samples, chunk=DRAWN_AT_ONCE)]
    return ImageSet(np.stack(drawn), labels, tuple(f"{image.title}, seed {image.seed}" for image in wanted))


def _evidence(dataset: Dataset, drawn: ImageSet) -> Evidence:
    training, held_out = _images(dataset, dataset.train), _images(dataset, dataset.held_out)
    return Evidence(
        drawn,
        held_out if len(held_out) else None,
        training,
        dataset.classes,
        _judge_of_classes(dataset.classes),
        MainDirections.of(training.images),
    )


def _images(dataset: Dataset, rows: np.ndarray) -> ImageSet:
    assert dataset.label_ids is not None
    names = tuple(dataset.names_of(rows))
    return ImageSet(dataset.pixels(rows), dataset.label_ids[rows].astype(np.int64), names)


def _judge_of_classes(classes: Sequence[str]) -> Reader:
    """The reader knows the world's order of the classes, the data set its own."""
    reader = train_reader(images_per_class=READER_IMAGES, steps=READER_STEPS)
    order = [reader.plan.questions["class"].index(name) for name in classes]
    return lambda images: classify(reader, images)[:, order]
