"""Builds what the loop is handed from the settings of a run: data, family, method, engine, samples."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusain.data import chance, stream
from fusain.data.batch import Batch, to_images
from fusain.data.dataset import Dataset, check_batch, prepare
from fusain.data.encoded import few
from fusain.data.loader import Loader, held_out_batches
from fusain.data.source import Source
from fusain.data.stream import StreamLoader
from fusain.errors import StorageError
from fusain.generation import gallery, samplers
from fusain.generation.generator import Drawn, Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models import compiled, identifiers, layout, packed
from fusain.models.family import Facts, Family
from fusain.runs import class_images, encoding, hub_data, requests
from fusain.runs.folder import RunFolder, read_json, write_json
from fusain.runs.settings import FAMILIES, METHODS, RunSettings, make_plan
from fusain.settings.notice import Notice
from fusain.training import diagnosis, optimizer_trial
from fusain.training import engine as engines
from fusain.training.checkpoint import STORAGE_FAULTS, Checkpoints, reason
from fusain.training.course import Plan
from fusain.training.engine import Engine, EngineSettings
from fusain.training.events import EventLog
from fusain.training.method import Lesson, Method
from fusain.training.optimizers import EXTRAS, kind_of
from fusain.training.read_back import ReadBack
from fusain.training.team import Team
from fusain.training.trainer import Parts, Trainer, TrainSettings

Overrides = Sequence[tuple[str, str]]

CHUNK = 16
"""Images drawn at once, fewer where they are large, everywhere: at one chunk size an image is the same to the last
bit."""
HELD_OUT_BATCH, HELD_OUT_IMAGES = 64, 256
LARGEST_OF_MANY = 64**2
"""Images of a larger area are measured in smaller batches than those: at least in the training's own."""
LARGEST_BUCKET_STEP = 64
NOT_AS_LEARNT = ("E-LORA-015", "E-LORA-016")
"""Faults of files that were written, and are not what was learnt: more room on the disk would not mend them."""
CAPTIONS_DRAWN = 4
"""Captions of the data that samples are drawn from where the settings name no prompts."""


@dataclass(frozen=True)
class Learner:
    """A family and the method that trains it."""

    family: Family
    method: Method


def build_learner(settings: RunSettings, classes: tuple[str, ...]) -> Learner:
    """Fresh weights, the same ones for the same seed."""
    torch.manual_seed(chance.key(settings.train.seed, 0, "weights"))
    family = FAMILIES[settings.family.kind](settings.family, Facts(classes))
    if settings.engine.gradient_checkpointing:
        family.recompute_activations()
    return Learner(family, METHODS[settings.method.kind](settings.method))


def build_trainee(settings: RunSettings, classes: tuple[str, ...]) -> Learner:
    """What is trained: a base that stays as it is may take less room than where it is drawn from or merged into."""
    learner, bits = build_learner(settings, classes), settings.engine.base_bits
    if bits != 32:
        packed.pack_layers(learner.family.network, bits, without=learner.family.text_encoders())
    return learner


def without_weights(settings: RunSettings, classes: tuple[str, ...]) -> Learner:
    """Shapes and settings only: of any size in no time."""
    with torch.device("meta"):
        return build_trainee(settings, classes)


def ready_denoiser(learner: Learner, settings: RunSettings, told: Callable[[Exception], None]) -> None:
    """Laid out in memory and compiled as the settings say; why it could not be compiled is told."""
    denoiser = learner.family.network.get_submodule(learner.family.denoiser)
    if settings.engine.channels_last == "on":
        layout.put_channels_last(denoiser)
    if settings.engine.compile == "on":
        compiled.compile_forward(denoiser, told)


def prepare_data(settings: RunSettings, *, folder: RunFolder | None, report: Any) -> Dataset:
    """The data set; a run that exists keeps the split that it was started with.

    Without a folder nothing is drawn: then the class images are those that there are.
    """
    lock = read_json(folder.data_lock) if folder is not None and folder.data_lock.exists() else None
    family = FAMILIES[settings.family.kind]

    def drawn(prompts: Sequence[str]) -> Source:
        if folder is None:
            return class_images.ready(settings, prompts)
        return class_images.drawn(settings, prompts, report, stop_file=folder.stop_file)

    reads_captions = settings.family.condition == "text" and METHODS[settings.method.kind].reads_condition
    facts: dict[str, Any] = {
        "size": settings.family.size,
        "multiple": bucket_step(settings.family.size, family.multiple),
        "needs_captions": reads_captions,
        "batch_size": settings.train.batch_size,
        "seed": settings.train.seed,
        "lock": lock,
        "report": report,
    }
    if settings.data.streaming:
        return stream.prepare(*hub_data.streamed(settings.data), **facts)
    return prepare(hub_data.here(settings.data), **facts, drawn=drawn)


def check_drawing(settings: RunSettings, family: Family) -> None:
    """Whether samples can be drawn as the settings say, which else would be told at the first ones only."""
    if settings.samples.every_steps != 0:
        samplers.check(settings.samples, family.schedule, where="samples.")


def captions_read(learner: Learner, dataset: Dataset) -> tuple[str, ...]:
    """The captions as they are learnt, of all images; none where the method does not read them."""
    if learner.family.condition != "text" or not learner.method.reads_condition:
        return ()
    return learner.method.wording(dataset.said(np.arange(len(dataset))) or ())


def foreseen(learner: Learner, dataset: Dataset, captions: tuple[str, ...]) -> Iterator[Notice]:
    """What family and method have to say of the captions that are learnt."""
    yield from learner.family.foreseen(dataset.names, captions)
    for tokenizer in list(learner.family.tokenizers().values())[:1]:  # those of one base cut words alike
        yield from identifiers.unfit(tokenizer, [subject.identifier for subject in dataset.subjects])
    if captions:
        yield from learner.method.foreseen_in(dataset.names, captions)


def bucket_step(size: int, multiple: int) -> int:
    """What the sides of buckets are multiples of: an eighth of the size, at most the usual 64."""
    return max(multiple, min(LARGEST_BUCKET_STEP, size // 8) // multiple * multiple)


def build_trainer(
    settings: RunSettings, folder: RunFolder, dataset: Dataset, log: EventLog, team: Team | None = None
) -> Trainer:
    """Everything for one run, ready to start or to be restored; with a team for the part of this process in it."""
    engine = engines.start(settings.engine, team)
    learner = build_trainee(settings, dataset.classes)
    ready_denoiser(learner, settings, lambda fault: log.warn("W-ENV-001", fault=diagnosis.in_words(fault)))
    check_drawing(settings, learner.family)
    train = settings.train
    captions = captions_read(learner, dataset)
    for notice in foreseen(learner, dataset, captions):
        log("warning", code=notice.code, text=str(notice))
    check_batch(dataset, batch_size=train.batch_size, accumulation=train.accumulation)

    def batches(start_draw: int) -> Iterator[Batch]:
        loading: type[Loader | StreamLoader] = Loader if dataset.stream is None else StreamLoader
        from_here = partial(loading, dataset, settings.data, seed=train.seed, start_draw=start_draw, report=log)
        return iter(from_here(batch_size=train.batch_size, share=engine.team.share(train.batch_size)))

    learner.family.encoders_to(engine.device)  # a base that learns in few bits would not fit in full beside them
    with engine.accelerator.main_process_first():
        encoding.ahead(learner.family, learner.method, dataset, report=log)
    held_out = list(held_out_of(settings, dataset))

    def sample(step: int) -> None:
        target = folder.samples / f"step-{step:08d}"
        family, drawing = learner.family, settings.samples
        shown = learner.method.shown(family, held_out[0].to(engine.device)) if held_out else {}
        if shown:
            show(target, shown, count=drawing.count)
        else:
            wanted = samples_of(settings, family, captions)
            draw_into(target, family, wanted, drawing, facts={"run": folder.name, "step": step}, engine=engine)
        log("samples", step=step, path=str(target.relative_to(folder.path)))

    parts = Parts(
        family=learner.family,
        method=learner.method,
        engine=engine,
        batches=batches,
        held_out=held_out,
        names=dataset.names_of if dataset.stream is None else dataset.stream.names_of,
        sample=sample if engine.team.is_first or engine.shard else lambda step: None,
        checkpoints=Checkpoints(
            folder.checkpoints, keep=settings.checkpoint.keep, snapshots=settings.checkpoint.snapshots
        ),
        report=log,
        folder=folder.path,
    )
    plan = make_plan(settings, entries=dataset.entries)
    learner.method.lesson = lesson(settings, dataset, plan)
    identity = {
        "settings": digest(settings),
        "data": dataset.id,
        "threads": engine.threads,
        "versions": versions(train),
    }
    return Trainer(parts, train, plan, identity)


def lesson(settings: RunSettings, dataset: Dataset, plan: Plan) -> Lesson:
    """What the files of a run may tell of it."""
    word = settings.data.captions.trigger_word
    called = [*([word] if word else []), *(subject.title for subject in dataset.subjects)]
    return Lesson(
        images=len(dataset.train_entries) if dataset.stream is None else len(dataset.stream),
        class_images=len(dataset.class_entries) if dataset.class_draws else 0,
        steps_per_epoch=plan.steps_per_epoch,
        learning_rate=settings.train.learning_rate,
        trigger=", ".join(called),
    )


def held_out_of(settings: RunSettings, dataset: Dataset) -> Iterator[Batch]:
    """What the held-out loss is measured on."""
    most = max(settings.train.batch_size, few(HELD_OUT_BATCH, settings.family.size**2, whole=LARGEST_OF_MANY))
    return held_out_batches(dataset, batch_size=min(HELD_OUT_BATCH, most), limit=HELD_OUT_IMAGES)


def samples_of(settings: RunSettings, family: Family, captions: Sequence[str]) -> list[Wanted]:
    """What is drawn while it trains."""
    drawing = settings.samples
    usual = requests.usual(family, drawing.prompts or list(dict.fromkeys(captions))[:CAPTIONS_DRAWN])
    return requests.each(usual, count=drawing.count, seed=drawing.seed, negative=drawing.negative)


def show(target: Path, rows: Mapping[str, torch.Tensor], *, count: int) -> None:
    """Rows of pixels as one contact sheet."""
    target.mkdir(parents=True, exist_ok=True)
    images = {title: list(to_images(pixels[:count])) for title, pixels in rows.items()}
    gallery.contact_sheet(images, columns=count).save(target / "sheet.png")


def draw_into(
    target: Path,
    family: Family,
    wanted: list[Wanted],
    settings: SamplerSettings,
    *,
    facts: dict[str, Any],
    chunk: int | None = None,
    engine: Engine | None = None,
) -> list[Path]:
    """Draw into a folder: a PNG an image and one contact sheet. Training and `generate` both come through here.

    Processes that share a network draw together, all of it before the first one writes: whatever its disk does, they
    have come to the end.
    """
    facts = {**facts, **settings.model_dump(include={"sampler", "steps", "eta", "guidance"})}
    paths: list[Path] = []
    rows: dict[str, list[np.ndarray]] = {}
    own = (family.settings.size, family.settings.size)
    chunk = chunk or few(CHUNK, max((math.prod(one.size or own) for one in wanted), default=1))
    images: Iterable[Drawn] = generate(family, wanted, settings, chunk=chunk)
    with engine.drawing() if engine is not None else nullcontext():
        if engine is not None and engine.shard:
            images = list(images)
            if not engine.team.is_first:
                return []
        target.mkdir(parents=True, exist_ok=True)
        for position, drawn in enumerate(images):
            title = drawn.wanted.title
            path = target / f"{position:05d}{'-' if title else ''}{gallery.slug(title)}.png"
            gallery.write_png(drawn, path, facts)
            paths.append(path)
            rows.setdefault(title, []).append(drawn.pixels)
    gallery.contact_sheet(rows, columns=min(16, max(len(row) for row in rows.values()))).save(target / "sheet.png")
    return paths


@contextmanager
def finished(trainer: Trainer) -> Iterator[None]:
    """Within, the first process holds the final weights whole, to be saved; all processes of a split one must come."""
    parts = trainer.parts
    with trainer.averaged(), parts.engine.brought_together(parts.family.network):
        yield


def export(trainer: Trainer, folder: RunFolder) -> None:
    """The final weights, from the average where there is one, in the form that diffusers loads."""
    with finished(trainer):
        checked = write_weights(Learner(trainer.parts.family, trainer.parts.method), folder.weights, step=trainer.step)
    if checked:
        trainer.parts.report("read_back", **asdict(checked))


def write_weights(learner: Learner, target: Path, *, step: int) -> ReadBack | None:
    """What was learnt up to a step, as a folder that is there whole or not at all; older ones of its name go."""
    waiting, retired = (target.with_name(f".{target.name}.{end}") for end in ("tmp", "old"))
    for left in (waiting, retired):  # by a process that was killed here
        shutil.rmtree(left, ignore_errors=True)
    try:
        family = learner.family
        checked = learner.method.save(family, waiting)
        facts: dict[str, Any] = {"classes": list(family.facts.classes), "step": step}
        facts |= {"base_revision": family.base_revision} if family.base_revision else {}
        write_json(waiting / "fusain.json", facts)
        if target.exists():
            target.rename(retired)
        waiting.rename(target)
    except STORAGE_FAULTS as fault:
        shutil.rmtree(waiting, ignore_errors=True)
        if isinstance(fault, StorageError) and fault.code in NOT_AS_LEARNT:
            raise
        raise StorageError("E-STORE-007", where=str(target), fault=reason(fault)) from fault
    shutil.rmtree(retired, ignore_errors=True)
    return checked


def digest(settings: RunSettings) -> str:
    """The identity of resolved settings."""
    return hashlib.sha256(json.dumps(settings.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def versions(train: TrainSettings | None = None) -> dict[str, str]:
    """What the numbers depend on beside the settings."""
    usual = ("torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "safetensors")
    of_optimizer = kind_of(train.optimizer).needs if train else ()
    names = [*usual, *(name for name in of_optimizer if name in EXTRAS)]
    return {"fusain": version("fusain"), "python": platform.python_version(), **{name: version(name) for name in names}}


def resolved_engine(settings: RunSettings, *, here: bool = True) -> RunSettings:
    """The settings with every `auto` of the engine replaced by what it means here, or where there is such a device."""
    engine: EngineSettings = engines.resolve(settings.engine, here=here)
    optimizer_trial.check(settings.train, engine.device)
    if engine.channels_last == "auto":
        convolves = FAMILIES[settings.family.kind].convolves and METHODS[settings.method.kind].uses_denoiser
        chosen = "on" if convolves and engine.device.startswith("cuda") else "off"
        engine = engine.model_copy(update={"channels_last": chosen})
    return settings.model_copy(update={"engine": engine})


def device_of(name: str) -> torch.device:
    """The device for drawing by its name or `auto`."""
    return torch.device(engines.resolve(EngineSettings(device=name, precision="fp32")).device)
