"""All settings of one run, composed from the sections that stand beside the code they set, and whether they fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, model_validator

import fusain.models.families
import fusain.training.methods
from fusain.data.lock import some
from fusain.data.settings import DataSettings
from fusain.errors import FusainError, SettingsError, StorageError
from fusain.generation import prompt_weights
from fusain.generation.samplers import SamplerSettings
from fusain.models.family import Family
from fusain.plugins import find
from fusain.runs.folder import RunFolder, read_json
from fusain.settings.notice import Notice
from fusain.settings.section import Section, basic, one_of
from fusain.training.checkpoint import CheckpointSettings
from fusain.training.course import Plan
from fusain.training.engine import EngineSettings
from fusain.training.method import Method
from fusain.training.optimizers import KINDS, kind_of
from fusain.training.tracker import TrackSettings
from fusain.training.trainer import TrainSettings

FAMILIES: dict[str, type[Family]] = find(fusain.models.families, Family)
METHODS: dict[str, type[Method]] = find(fusain.training.methods, Method)

if TYPE_CHECKING:
    FamilySettings: TypeAlias = Any
    MethodSettings: TypeAlias = Any
else:
    FamilySettings, MethodSettings = one_of(FAMILIES), one_of(METHODS)

CHECKPOINTS, MEASUREMENTS, SAMPLINGS = 10, 20, 5
"""How often each happens in a run whose settings leave it open..."""
FEWEST_STEPS_BETWEEN = 10
"""...but never more often than this, for a short run would drown in it."""
KEYS_SHOWN = 5


class SampleSettings(SamplerSettings):
    """Images drawn while it trains, always from the same seeds."""

    every_steps: int | None = basic(None, ge=0, json_schema_extra={"instead_of": "every_epochs"})
    """Draw after this many steps; 0 never draws."""
    every_epochs: float | None = Field(None, gt=0, json_schema_extra={"instead_of": "every_steps"})
    """Draw after this many passes over the data, in place of `every_steps`. With neither, up to five times a run."""
    count: int = Field(4, ge=1, le=1000)
    """Images each time, of each class or prompt."""
    prompts: tuple[str, ...] = basic(())
    """What is drawn where text steers; without any, the first captions of the data."""
    negative: str = ""
    """What these images are drawn away from."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the first image; each further one adds one."""


class RunSettings(Section):
    """One run."""

    schema_version: Literal[1] = 1
    """Version of the settings' layout."""
    runs_folder: Path = Path("runs")
    """Where run folders are made."""
    weights_folder: Path | None = None
    """Finished weights are copied there too, under the name of the run. Nothing there is written over."""
    family: FamilySettings = Field(default_factory=FAMILIES["pixel"].Settings)
    method: MethodSettings = Field(default_factory=METHODS["full"].Settings)
    data: DataSettings
    train: TrainSettings
    checkpoint: CheckpointSettings = CheckpointSettings()
    samples: SampleSettings = SampleSettings()
    engine: EngineSettings = EngineSettings()
    track: TrackSettings = TrackSettings()

    @property
    def largest_share(self) -> int:
        """Images of a batch that one process takes; of several the one that takes most."""
        return math.ceil(self.train.batch_size / self.engine.processes)

    def silent_settings(self) -> dict[str, str]:
        silent = {}
        if self.family.condition == "none":
            reason = 'nothing steers this model (family.condition = "none")'
            silent = dict.fromkeys(("method.condition_warmup", "method.condition_dropout", "samples.guidance"), reason)
        if self.family.condition != "text" or not METHODS[self.method.kind].reads_condition:
            of_subjects = ("data.subject.identifier", "data.subject.class_word", "data.class_images.weight")
            silent |= dict.fromkeys(of_subjects, "no captions are learnt")
        if self.family.condition != "text":
            silent |= dict.fromkeys(("samples.prompts", "samples.negative"), "no text steers this model")
            silent["method.text_encoder"] = f'no text steers this model (family.condition = "{self.family.condition}")'
        if not FAMILIES[self.family.kind].convolves:
            silent["engine.channels_last"] = "this model is no network of convolutions"
        if not METHODS[self.method.kind].uses_denoiser:
            reason = "the denoiser, which it is for, does not learn"
            silent |= dict.fromkeys(("engine.compile", "engine.channels_last"), reason)
        return silent

    def faults(self) -> Iterator[FusainError]:
        processes, images = self.engine.processes, self.train.batch_size
        if processes > images:
            yield SettingsError("E-CFG-034", where="engine.processes", processes=processes, images=images)
        if self.train.fused_backward:
            where = "train.fused_backward"
            if self.train.accumulation > 1:
                yield SettingsError("E-FUSE-001", where=where, accumulation=self.train.accumulation)
            if self.engine.precision == "fp16":
                yield SettingsError("E-FUSE-002", where=where)
            if processes > 1:
                yield SettingsError("E-FUSE-004", where=where, processes=processes)
            if self.engine.compile != "off":
                yield SettingsError("E-FUSE-006", where=where, compile=self.engine.compile)
        yield from self._unfit_to_be_narrow()
        yield from self._unfit_to_be_split()
        if self.engine.base_bits != 32 and not METHODS[self.method.kind].leaves_base:
            yield SettingsError(
                "E-CFG-050", where="engine.base_bits", bits=self.engine.base_bits, method=self.method.kind
            )

    def _unfit_to_be_narrow(self) -> Iterator[FusainError]:
        if self.engine.weights != "bf16":
            return
        where = "engine.weights"
        if METHODS[self.method.kind].leaves_base:
            yield SettingsError("E-CFG-051", where=where, method=self.method.kind)
        elif not self.train.fused_backward:
            yield SettingsError("E-FUSE-007", where=where)
        elif self.engine.precision not in ("auto", "bf16"):
            yield SettingsError("E-FUSE-008", where=where, precision=self.engine.precision)

    def _unfit_to_be_split(self) -> Iterator[FusainError]:
        if not self.engine.shard:
            return
        where, optimizer = "engine.shard", self.train.optimizer
        if not kind_of(optimizer).each_alone:
            able = ", ".join(name for name, kind in KINDS.items() if kind.each_alone)
            yield SettingsError("E-SHARD-005", where=where, optimizer=optimizer, able=able)
        if not METHODS[self.method.kind].may_be_split:
            able = ", ".join(name for name, method in METHODS.items() if method.may_be_split)
            yield SettingsError("E-SHARD-006", where=where, method=self.method.kind, able=able)
        elif getattr(self.method, "text_encoder", False):
            yield SettingsError("E-SHARD-007", where=where)

    def notices(self) -> Iterator[Notice]:
        for name, what in (("checkpoint", "checkpoint is written"), ("samples", "sample is drawn")):
            for unit in ("steps", "epochs"):
                every, length = getattr(getattr(self, name), f"every_{unit}"), getattr(self.train, unit)
                if every and length and every >= length > 1:
                    key = f"{name}.every_{unit}"
                    yield Notice("W-CFG-004", where=key, what=what, key=key, every=every, length=length, unit=unit)
        if self.train.optimizer == "prodigy" and self.train.learning_rate != 1:
            yield Notice("W-TRAIN-005", where="train.learning_rate", rate=f"{self.train.learning_rate:g}")
        if self.train.is_schedule_free and self.train.schedule != "constant":
            yield Notice("W-TRAIN-006", where="train.schedule", schedule=self.train.schedule)
        if self.family.condition == "text":
            yield from prompt_weights.notices(self.samples.prompts, where="samples.prompts")
            yield from prompt_weights.notices([self.samples.negative], where="samples.negative")

    @model_validator(mode="after")
    def _method_fits_family(self) -> RunSettings:
        needs = METHODS[self.method.kind].needs
        if self.family.condition not in needs:
            fits = ", ".join(sorted(needs))
            raise ValueError(
                f"method '{self.method.kind}' works with {fits}, not with condition '{self.family.condition}'"
            )
        return self


def settings_of(run: RunFolder) -> RunSettings:
    """The settings that a run was trained by; what of them is not known here is an error, and never left out."""
    try:
        return RunSettings.model_validate(read_json(run.settings))
    except ValidationError as error:
        keys = [".".join(map(str, fault["loc"])) for fault in error.errors()]
        raise StorageError("E-RUN-013", where=str(run.settings), run=run.name, keys=some(keys, KEYS_SHOWN)) from error


def make_plan(settings: RunSettings, *, entries: int) -> Plan:
    """The numbers that the loop runs by, for a data set of so many entries an epoch."""
    train = settings.train
    steps_per_epoch = entries / (train.batch_size * train.accumulation)

    def in_steps(epochs: float) -> int:
        return max(1, math.ceil(epochs * steps_per_epoch - 1e-9))

    steps = train.steps or in_steps(train.epochs or 1)

    def interval(section: CheckpointSettings | SampleSettings, times: int) -> int:
        if section.every_steps is not None:
            return section.every_steps
        return in_steps(section.every_epochs) if section.every_epochs else left_open(times)

    def left_open(times: int) -> int:
        return max(FEWEST_STEPS_BETWEEN, steps // times)

    return Plan(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        checkpoint_every=interval(settings.checkpoint, CHECKPOINTS),
        held_out_every=train.held_out_every_steps or left_open(MEASUREMENTS),
        sample_every=interval(settings.samples, SAMPLINGS),
        snapshots=frozenset(step for step in settings.checkpoint.snapshots if step <= steps),
    )
