"""What a run will need before it starts: steps, memory, disk and time, from one measured step or from shapes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fusain.data.dataset import Dataset, check_batch
from fusain.data.report import DataReport
from fusain.errors import StorageError
from fusain.messages.quantities import duration, size, span
from fusain.runs import (
    assembly,
    class_images,
    compile_choice,
    encoding,
    forecast,
    foreseen,
    measured_beside,
    measured_step,
    relief,
    usual,
)
from fusain.runs.folder import RunFolder
from fusain.runs.forecast import Forecast
from fusain.runs.foreseen import Foreseen
from fusain.runs.measured_beside import Took
from fusain.runs.measured_step import MeasuredStep
from fusain.runs.settings import RunSettings, make_plan
from fusain.settings.layers import Overrides
from fusain.settings.notice import Notice
from fusain.settings.read import resolve_source
from fusain.training import peak
from fusain.training.course import PARTS, Plan
from fusain.training.diagnosis import in_words
from fusain.training.optimizers import kind_of
from fusain.training.trainer import TrainSettings


@dataclass(frozen=True)
class RunPlan:
    """The answer of `fusain plan`; sizes in bytes, times in seconds, None where nothing was measured."""

    settings: dict[str, Any]
    origins: dict[str, str]
    notices: list[str]
    data: DataReport
    images: int
    held_out: int
    steps: int
    epochs: float
    images_per_step: int
    parameters: int
    checkpoint_every: int
    sample_every: int
    held_out_every: int
    memory_foreseen: Forecast
    """On the device, from shapes."""
    memory_peak: int | None
    """As measured."""
    disk: int
    disk_free: int
    stored_encodings: int
    """In the cache folder, of images and captions that are encoded once."""
    snapshots: list[int]
    class_images_to_draw: int
    class_images_seconds: float | None
    """What drawing them takes about, before the first step."""
    seconds_per_step: float | None
    course: dict[str, tuple[int, float]] | None
    """How often each part of the training comes, and the seconds that all of it takes."""
    seconds: float | None
    """Of the whole, from the first step to the last."""
    seconds_range: tuple[float, float] | None
    """By the fastest and the slowest of the steps that were measured."""

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        found["memory_foreseen"]["peak"] = self.memory_foreseen.peak
        return found

    def lines(self) -> Iterator[tuple[str, str]]:
        """The plan for people, as titles and texts."""
        yield from self.data.lines()
        epochs = f"{self.epochs:.3g} epochs of {self.data.draws_an_epoch:,} draws"
        yield "length", f"{self.steps:,} steps of {self.images_per_step} images = {epochs}"
        yield "network", f"{self.parameters / 1e6:.2f} million parameters learn"
        kept = ", ".join(f"{step:,}" for step in self.snapshots)
        yield "checkpoint", f"every {self.checkpoint_every:,} steps" + (f"; kept for good: {kept}" if kept else "")
        yield "held-out loss", f"every {self.held_out_every:,} steps" if self.held_out else "none"
        yield "samples", f"every {self.sample_every:,} steps" if self.sample_every else "none"
        engine = self.settings["engine"]
        if engine["shard"]:
            yield "processes", f"{engine['processes']} that hold a part each: memory is for each, nothing was measured"
        elif engine["processes"] > 1:
            yield (
                "processes",
                f"{engine['processes']}: memory and time are for each, time without their exchange of gradients",
            )
        parts = ", ".join(f"{size(count)} {part}" for part, count in asdict(self.memory_foreseen).items() if count)
        yield "memory", f"{size(self.memory_foreseen.peak)} foreseen at the peak of a step: {parts}"
        if self.memory_peak:
            yield "process", f"{size(self.memory_peak)} at most, measured with everything that the process holds"
        yield "disk", f"{size(self.disk)} of {size(self.disk_free)} free"
        if self.class_images_to_draw:
            about = f", about {duration(self.class_images_seconds)}" if self.class_images_seconds is not None else ""
            yield "to draw", f"{self.class_images_to_draw:,} class images before the first step{about}"
        if self.stored_encodings:
            yield "stored encodings", f"{size(self.stored_encodings)} in the cache folder"
        yield from self._lines_of_time()

    def _lines_of_time(self) -> Iterator[tuple[str, str]]:
        if self.seconds_range is None or self.seconds_per_step is None or self.course is None:
            yield "time", "not measured"
            return
        pace = f"{self.seconds_per_step * 1000:.0f} ms a step"
        yield "time", f"about {span(*self.seconds_range)} from the first step to the last ({pace})"
        beside = [
            f"{duration(seconds)} for {PARTS[part]} ({times:,} ×)"
            for part, (times, seconds) in self.course.items()
            if part != "step" and seconds >= 1
        ]
        if beside:
            yield "of it", ", ".join(beside)


def plan(source: Path | str, *, overrides: Overrides = (), measure: bool = True) -> RunPlan:
    """What training by these settings would need; kept until they are trained by, and no run folder is written into."""
    peak.count_anew()
    resolved = resolve_source(RunSettings, source, overrides)
    settings = assembly.resolved_engine(resolved.settings, here=measure)
    measure = measure and not settings.engine.shard  # one process alone would hold all of it
    dataset = assembly.prepare_data(settings, folder=None, report=None)
    train = settings.train
    check_batch(dataset, batch_size=train.batch_size, accumulation=train.accumulation)
    numbers = make_plan(settings, entries=dataset.entries)
    learner = assembly.without_weights(settings, dataset.classes)
    assembly.check_drawing(settings, learner.family)
    unusual = list(usual.worth_a_word(settings, dataset, learner.family))
    parameters = _count_parameters(learner)
    of_method = learner.method.foreseen(learner.family, numbers.steps / numbers.steps_per_epoch)
    compiling: list[str] = []
    memory = foreseen_memory(settings, dataset)
    too_much = list(relief.too_much(settings, memory.peak, relief.room(settings.engine.device, look=measure)))
    measure = measure and not too_much  # on a CPU the system would kill this process, and say nothing
    with relief.told(settings, lambda: "the steps that are measured"):
        if measure:
            settings = compile_choice.made(settings, dataset, compiling.append)
        step = _measured(settings, dataset, compiling) if measure else None
    of_captions = assembly.foreseen(learner, dataset, assembly.captions_read(learner, dataset))
    said = (*resolved.notices, *dataset.notices, *unusual, *of_method, *of_captions, *too_much, *compiling)
    times = numbers.to_come()
    known = _foreseen(settings, dataset, step, parameters) if step else None
    missing = class_images.missing(dataset)
    found = RunPlan(
        settings=settings.model_dump(mode="json"),
        origins={key: str(origin) for key, origin in resolved.origins.items()},
        notices=[str(notice) for notice in said],
        data=dataset.report(),
        images=len(dataset.stream or dataset.subject_rows),
        held_out=len(dataset.held_out),
        steps=numbers.steps,
        epochs=numbers.steps / numbers.steps_per_epoch,
        images_per_step=train.batch_size * train.accumulation,
        parameters=parameters,
        checkpoint_every=numbers.checkpoint_every,
        sample_every=numbers.sample_every,
        held_out_every=numbers.held_out_every,
        memory_foreseen=memory,
        memory_peak=step.memory if step else None,
        disk=_disk(settings, numbers, parameters),
        disk_free=shutil.disk_usage(_existing(settings.runs_folder)).free,
        stored_encodings=encoding.size(learner.family, learner.method, dataset),
        snapshots=sorted(numbers.snapshots),
        class_images_to_draw=missing,
        class_images_seconds=_seconds_of_drawing(settings, missing, step) if step else None,
        seconds_per_step=step.seconds if step else None,
        course={part: (times[part], seconds) for part, seconds in known.seconds(times).items()} if known else None,
        seconds=known.whole(times) if known else None,
        seconds_range=known.ends(times) if known else None,
    )
    if known:
        foreseen.keep(settings, known)
    return found


def _measured(settings: RunSettings, dataset: Dataset, told: list[str]) -> MeasuredStep:
    def not_compiled(fault: Exception) -> None:
        told.append(str(Notice("W-ENV-001", where="engine.compile", fault=in_words(fault))))

    def not_drawn(fault: Exception) -> None:
        told.append(str(Notice("W-SAMPLE-001", where="samples", fault=in_words(fault))))

    is_compiled = settings.engine.compile == "on"
    return measured_step.measure(settings, dataset, not_compiled, one_batch=is_compiled, not_drawn=not_drawn)


def _foreseen(settings: RunSettings, dataset: Dataset, step: MeasuredStep, parameters: int) -> Foreseen:
    """What each part of the course takes; each shape of images is compiled by itself, at the first of its steps."""
    shapes = usual.count_shapes(dataset) if settings.engine.compile == "on" else 1
    saved = round(4 * parameters * _copies_saved(settings.train))
    took = {
        "step": Took(step.seconds, shapes * max(0.0, step.first - step.seconds)),
        **step.beside,
        "checkpoint": measured_beside.of_checkpoint(_existing(settings.runs_folder), saved),
    }
    return Foreseen(
        {part: one.each for part, one in took.items()},
        {part: one.more_at_first for part, one in took.items()},
        (step.fastest, step.slowest),
        step.memory,
    )


def foreseen_memory(settings: RunSettings, dataset: Dataset) -> Forecast:
    """The memory of a step, without doing one."""
    learner = assembly.without_weights(_hiding_nothing(settings), dataset.classes)
    learner.method.prepare(learner.family)
    return forecast.of_a_step(settings, dataset, learner)


def _hiding_nothing(settings: RunSettings) -> RunSettings:
    """Which captions a step hides hangs on numbers, of which shapes have none; hidden ones have the same shape."""
    method: Any = settings.method
    if "condition_dropout" not in type(method).model_fields:
        return settings
    return settings.model_copy(update={"method": method.model_copy(update={"condition_dropout": 0.0})})


def require_disk(settings: RunSettings, dataset: Dataset, folder: RunFolder, sketch: assembly.Learner) -> None:
    """Nothing starts that the disk cannot hold to its end; what a run has saved already is counted for it.

    A sketch is a learner without weights.
    """
    numbers = make_plan(settings, entries=dataset.entries)
    saved = sum(path.stat().st_size for path in folder.checkpoints.glob("step-*/*"))
    needed = _disk(settings, numbers, _count_parameters(sketch)) - saved
    free = shutil.disk_usage(_existing(settings.runs_folder)).free
    if needed > free:
        keep = settings.checkpoint.keep
        raise StorageError(
            "E-STORE-005", where=str(settings.runs_folder), needed=size(needed), free=size(free), keep=keep
        )


def _disk(settings: RunSettings, numbers: Plan, parameters: int) -> int:
    """Kept checkpoints, one more while it is written, and the final weights."""
    kept = min(settings.checkpoint.keep, max(1, numbers.steps // numbers.checkpoint_every)) + 1 + len(numbers.snapshots)
    return round(parameters * 4 * (_copies_saved(settings.train) * kept + 1))


def _copies_saved(train: TrainSettings) -> float:
    """What a checkpoint holds, counted in all that learns: itself, what the optimizer remembers, and the average."""
    return 1 + kind_of(train.optimizer).states + bool(train.ema_decay)


def _count_parameters(learner: assembly.Learner) -> int:
    return sum(parameter.numel() for parameter in learner.method.prepare(learner.family).values())


def _seconds_of_drawing(settings: RunSettings, count: int, step: MeasuredStep) -> float:
    """From a step, of which a forward pass is about a third; guidance takes two of them."""
    wanted = settings.data.class_images
    passes = wanted.steps * (2 if wanted.guidance > 1 else 1)
    return count * passes * step.seconds / (settings.train.batch_size * settings.train.accumulation) / 3


def _existing(path: Path) -> Path:
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
