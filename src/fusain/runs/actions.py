"""What can be done with runs: the one API behind the command line, Python and the web page."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fusain.data.dataset import Dataset
from fusain.errors import FusainError, StorageError, UsageError
from fusain.generation import prompt_weights
from fusain.generation.samplers import SamplerSettings
from fusain.runs import (
    assembly,
    compile_choice,
    copies,
    crew,
    foreseen,
    lock,
    outcome,
    planning,
    relief,
    requests,
    resuming,
    run_report,
    tracking,
    usual,
)
from fusain.runs.assembly import Learner
from fusain.runs.crew import Crew
from fusain.runs.folder import RunFolder, read_json, write_json
from fusain.runs.outcome import Outcome
from fusain.runs.settings import RunSettings, settings_of
from fusain.settings.layers import Overrides
from fusain.settings.notice import Notice
from fusain.settings.read import resolve_source
from fusain.training import checkpoint as saved_states
from fusain.training import diagnosis, events, peak
from fusain.training import engine as engines
from fusain.training.checkpoint import Checkpoint, Checkpoints
from fusain.training.events import EventLog, Listener
from fusain.training.stopping import Reason, Stopped, StopRequest
from fusain.training.trainer import Trainer

Resume = Literal["auto", "must", "never"]

DRAWING_NEEDS_LESS = "fewer images at once (--batch-size 1); smaller ones (--size); or --device cpu"
"""What to change where drawing runs out of memory."""


@dataclass(frozen=True)
class TrainResult:
    """How a training ended."""

    folder: Path
    step: int
    steps: int | None
    """None where it was stopped before the length was known."""
    stopped: Reason | None
    outcome: Outcome
    """What it took so far against what was foreseen."""
    report: Path | None = None
    """Where it was trained to its end: all that there is to show of it."""

    def as_json(self) -> dict[str, Any]:
        found = {"run": str(self.folder), "step": self.step, "steps": self.steps, "stopped": self.stopped}
        return {**found, "report": str(self.report) if self.report else None, "outcome": self.outcome.as_json()}


@dataclass(frozen=True)
class Generated:
    """Where drawn images lie."""

    folder: Path
    images: tuple[Path, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def sheet(self) -> Path:
        return self.folder / "sheet.png"

    def as_json(self) -> dict[str, Any]:
        images = [str(path) for path in self.images]
        notices = [notice.as_json() for notice in self.notices]
        return {"folder": str(self.folder), "sheet": str(self.sheet), "images": images, "notices": notices}


@dataclass(frozen=True)
class OpenRun:
    """A run with its model loaded, ready to draw."""

    folder: RunFolder
    settings: RunSettings
    learner: Learner
    step: int


def train(
    source: Path | str,
    *,
    name: str | None = None,
    overrides: Overrides = (),
    resume: Resume = "auto",
    allow_change: Collection[str] = (),
    report: Listener | None = None,
) -> TrainResult:
    """Train by a settings file or a recipe; the same call again goes on where the run stands."""
    try:
        return _train(source, name, overrides, resume=resume, allow_change=allow_change, report=report)
    finally:
        engines.give_back()  # to whatever the caller does next, be it another training


def _train(
    source: Path | str,
    name: str | None,
    overrides: Overrides,
    *,
    resume: Resume,
    allow_change: Collection[str],
    report: Listener | None,
) -> TrainResult:
    resolved = resolve_source(RunSettings, source, overrides)
    settings = assembly.resolved_engine(resolved.settings)
    folder = RunFolder.named(settings.runs_folder, name or default_name(source))
    folder.create()
    peak.count_anew()
    listeners: list[Listener] = [report] if report else []
    log = EventLog(folder.events, (*listeners, *tracking.listeners(settings, folder)))
    count = settings.engine.processes
    with lock.held(folder.lock, note=lambda text: log("note", text=text)), crew.started(count) as others:
        for notice in resolved.notices:
            log("warning", code=notice.code, text=str(notice))
        try:
            with relief.told(settings, lambda: "before the first step", is_resumable=folder.exists()):
                trainer, dataset = _start(settings, folder, log, others, resume=resume, allow_change=allow_change)
        except Stopped as stop:
            step = _saved_step(Checkpoints(folder.checkpoints, keep=settings.checkpoint.keep))
            log("stopped", step=step, reason=stop.reason)
            log.close()
            return TrainResult(folder.path, step, settings.train.steps, stop.reason, outcome.of(folder))
        epochs = trainer.plan.steps / trainer.plan.steps_per_epoch
        for notice in trainer.parts.method.foreseen(trainer.parts.family, epochs):
            log("warning", code=notice.code, text=str(notice))
        has_report = trainer.step >= trainer.plan.steps and folder.report.exists()  # of what it is already
        try:
            stopped = _finish(trainer, settings, folder, log, others)
            if stopped is None and settings.weights_folder is not None:
                copies.copy(folder, settings.weights_folder, log)
        except FusainError as fault:
            log("failed", step=trainer.step, code=fault.code, text=fault.message.what)
            log.close()
            raise
        device = trainer.parts.engine.device
        log("took", memory=peak.reached(device), holder=peak.holder(device))
        if stopped is None:
            has_report = has_report or run_report.write(folder, dataset, log)
        log.close()
    report_file = folder.report if has_report else None
    return TrainResult(folder.path, trainer.step, trainer.plan.steps, stopped, outcome.of(folder), report_file)


def _finish(trainer: Trainer, settings: RunSettings, folder: RunFolder, log: EventLog, others: Crew) -> Reason | None:
    """Train to the end and write the final weights, or stop before that for the reason returned."""
    if trainer.step < trainer.plan.steps:
        with others.faults_told(), relief.told(settings, lambda: f"step {trainer.step + 1}", is_resumable=True):
            stopped = trainer.run(StopRequest(folder.stop_file))
        if stopped is not None:
            return stopped
    else:
        log("note", text=f"Already at step {trainer.step}; a larger train.steps goes on from there.")
    assembly.export(trainer, folder)
    return None


def default_name(source: Path | str) -> str:
    """A settings file's or a recipe's name, so that the same command finds the same run."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).stem).strip("-.") or "run"


def _start(
    settings: RunSettings,
    folder: RunFolder,
    log: EventLog,
    others: Crew,
    *,
    resume: Resume,
    allow_change: Collection[str],
) -> tuple[Trainer, Dataset]:
    """A trainer at the step from which it goes on; a run that stands is never begun anew in silence."""
    checkpoints = Checkpoints(folder.checkpoints, keep=settings.checkpoint.keep)

    def note(text: str) -> None:
        log("note", text=text)

    if folder.exists():
        checkpoints.refuse_newer()
        settings = resuming.keep_pinned(read_json(folder.settings), settings, note=note)
        if resume == "never":
            raise UsageError("E-RUN-006", where=str(folder.path), run=folder.name, step=_saved_step(checkpoints))
        resuming.check(
            read_json(folder.settings), settings, allowed=allow_change, where=str(folder.settings), note=note
        )
    elif resume == "must":
        raise UsageError("E-RUN-007", where=str(folder.path), run=folder.name)
    checkpoints.clean()
    saved = checkpoints.newest(note=note)
    if saved is None and resume == "must":
        raise UsageError("E-RUN-007", where=str(folder.path), run=folder.name)
    if saved is None and any(event["kind"] == "checkpoint" for event in events.current(folder.events)):
        raise StorageError("E-RESUME-002", where=str(folder.checkpoints))
    dataset = assembly.prepare_data(settings, folder=folder, report=log)
    settings = compile_choice.made(settings, dataset, note)
    sketch = assembly.without_weights(settings, dataset.classes)
    for notice in usual.worth_a_word(settings, dataset, sketch.family):
        log("warning", code=notice.code, text=str(notice))
    planning.require_disk(settings, dataset, folder, sketch)
    others.begin(settings, folder, dataset, saved)
    trainer = assembly.build_trainer(settings, folder, dataset, log, others.team)
    if saved is None:
        events.supersede(folder.events, after_step=0)
        write_json(folder.data_lock, dataset.lock(), indent=None)
        foreseen.take(settings, folder)
    else:
        _restore(trainer, saved, folder, log)
    data = settings.data.model_copy(update={"revision": dataset.settings.revision})
    pinned = settings.model_copy(update={"family": trainer.parts.family.pinned(settings.family), "data": data})
    write_json(folder.settings, pinned.model_dump(mode="json"))
    if known := foreseen.of(folder):
        log("foreseen", seconds_each=known.seconds_each)
    return trainer, dataset


def _saved_step(checkpoints: Checkpoints) -> int:
    """The step at which a run stands on disk."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints.listed()), default=0)


def _restore(trainer: Trainer, saved: Checkpoint, folder: RunFolder, log: EventLog) -> None:
    changed = {
        name: (was, now)
        for name, now in trainer.identity["versions"].items()
        if (was := saved.state["versions"].get(name, now)) != now
    }
    for name, (was, now) in changed.items():
        log("note", text=f"{name} is {now}, the run was at {was}: no longer equal to the last bit.")
    trainer.restore(saved)
    if saved.state["optimizer_name"] != trainer.settings.optimizer:
        log("note", text=f"{trainer.settings.optimizer} starts without a memory: the run was at another optimizer.")
    events.supersede(folder.events, after_step=saved.step)
    log("resumed", step=saved.step, checkpoint=saved.folder.name)


def open_run(
    run: str | Path,
    *,
    checkpoint: str | None = None,
    weights: Literal["ema", "raw"] = "ema",
    strength: float | None = None,
    runs_folder: Path | str | None = None,
) -> OpenRun:
    """Load a run's model: its final weights, or those of a checkpoint ("step-00000200" or "latest").

    `strength` says how much of a LoRA counts; 0 is the base.
    """
    folder = RunFolder.existing(run, runs_folder)
    settings = settings_of(folder)
    classes = tuple(read_json(folder.data_lock)["classes"])
    learner = assembly.build_learner(settings, classes)
    if strength is not None:
        learner.method.at_strength(strength)
    if checkpoint is None and weights == "ema" and folder.weights.exists():
        learner.method.attach(learner.family, folder.weights)
        return OpenRun(folder, settings, learner, read_json(folder.weights / "fusain.json")["step"])
    saved = find_checkpoint(folder, checkpoint or "latest")
    tensors = weights_of(saved, weights)
    learner.method.attach_parameters(learner.family, tensors)
    return OpenRun(folder, settings, learner, saved.step)


def weights_of(saved: Checkpoint, weights: Literal["ema", "raw"]) -> dict[str, torch.Tensor]:
    """What learnt, averaged where it was."""
    return (saved.tensors("ema") if weights == "ema" else {}) or saved.tensors("trainable")


def find_checkpoint(folder: RunFolder, wanted: str) -> Checkpoint:
    """One by its name, its step, or "latest"."""
    checkpoints = Checkpoints(folder.checkpoints, keep=1)
    if wanted == "latest":
        newest = checkpoints.newest(note=lambda text: None)
        if newest is not None:
            return newest
    for path in checkpoints.listed():
        if path.name == wanted or path.name.removeprefix("step-").lstrip("0") == wanted:
            return saved_states.read(path)
    listed = ", ".join(path.name for path in checkpoints.listed()) or "none"
    raise UsageError("E-RUN-008", where=str(folder.checkpoints), wanted=wanted, listed=listed)


def generate(
    run: str | Path,
    *,
    labels: str | Sequence[str] = (),
    prompts: str | Sequence[str] = (),
    negative: str = "",
    size: tuple[int, int] | None = None,
    original_size: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
    count: int = 16,
    seed: int = 0,
    chunk: int | None = None,
    sampler: SamplerSettings | None = None,
    checkpoint: str | None = None,
    weights: Literal["ema", "raw"] = "ema",
    strength: float | None = None,
    device: str = "auto",
    output: Path | str | None = None,
    runs_folder: Path | str | None = None,
    warn: Callable[[Notice], None] = lambda notice: None,
) -> Generated:
    """Draw `count` images of each label or prompt; of all classes, or the run's own prompts, where none is named.

    Sizes are height and width, a crop is left and top; XL draws as if its images had been cut from others like that.
    `warn` is told before the first image what of the prompts is not read as it may be meant.
    """
    opened = open_run(run, checkpoint=checkpoint, weights=weights, strength=strength, runs_folder=runs_folder)
    family, drawing = opened.learner.family, sampler or opened.settings.samples
    run_name = opened.folder.name
    requests.check(family, run_name, labels=bool(labels), prompts=bool(prompts or negative), size=size)
    framing = requests.framing(family, run_name, original_size=original_size, crop=crop, size=size)
    place = assembly.device_of(device)
    named = requests.named(family, labels=_listed(labels), prompts=_listed(prompts)) or requests.usual(
        family, opened.settings.samples.prompts
    )
    notices = (
        *prompt_weights.notices([one.prompt for one in named if one.prompt], where="--prompt"),
        *prompt_weights.notices([negative], where="--negative"),
    )
    for notice in notices:
        warn(notice)
    wanted = requests.each(named, count=count, seed=seed, negative=negative, size=size, framing=framing)
    target = Path(output) if output else _next_folder(opened.folder.generated)
    facts: dict[str, Any] = {"run": run_name, "step": opened.step, "weights": weights}
    facts |= {} if strength is None else {"strength": strength}
    with diagnosis.device_faults_told(place, lambda: "drawing", lambda: DRAWING_NEEDS_LESS):
        family.to(place)
        images = tuple(assembly.draw_into(target, family, wanted, drawing, facts=facts, chunk=chunk))
    return Generated(target, images, notices)


def _listed(named: str | Sequence[str]) -> Sequence[str]:
    return [named] if isinstance(named, str) else named


def _next_folder(parent: Path) -> Path:
    """A new numbered folder: nothing that was drawn before is written over."""
    taken = [int(path.name) for path in parent.glob("*") if path.name.isdigit()]
    return parent / f"{max(taken, default=0) + 1:04d}"
