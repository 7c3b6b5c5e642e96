"""The one training loop, top to bottom; it names no family and no method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator

from fusain.data import chance
from fusain.data.batch import Batch
from fusain.errors import NonFiniteError, StorageError
from fusain.models.family import Family, at_rest
from fusain.models.weights import check_fit
from fusain.settings.section import basic
from fusain.training import checkpoint as checkpoints
from fusain.training import diagnosis, optimizer_memory, sharding
from fusain.training.averaging import make_average
from fusain.training.checkpoint import Checkpoint, Checkpoints
from fusain.training.course import Plan
from fusain.training.engine import Engine
from fusain.training.events import EventLog
from fusain.training.held_out import held_out_loss
from fusain.training.method import Method, Progress
from fusain.training.optimizers import OptimizerSettings, optimizer_of
from fusain.training.paces import PartSettings
from fusain.training.schedules import ScheduleSettings, learning_rate
from fusain.training.stepping import make_stepping
from fusain.training.stopping import Reason, StopRequest

OVERFLOWS_IN_A_ROW = 10
FAILED_SAVES_IN_A_ROW = 2


class TrainSettings(ScheduleSettings, OptimizerSettings):
    """How long and how fast it learns."""

    steps: int | None = basic(None, ge=1, json_schema_extra={"instead_of": "epochs"})
    """Length in optimizer steps."""
    epochs: float | None = basic(None, gt=0, json_schema_extra={"instead_of": "steps"})
    """Length in passes over the training images, in place of `steps`."""
    batch_size: int = basic(32, ge=1)
    """Images a step. Larger is steadier and needs more memory."""
    accumulation: int = Field(1, ge=1)
    """Batches whose gradients are added up before each step: a larger batch for the memory of a small one."""
    learning_rate: float = basic(
        1e-4, gt=0, le=1, json_schema_extra={"usual": [1e-6, 1e-2], "usual_unless": {"optimizer": "prodigy"}}
    )
    """How far each step goes. Too high: noise or NaN; too low: nothing is learnt."""
    clip_norm: float = Field(1.0, ge=0)
    """Longest gradient allowed; 0 lets any through."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay of the moving average of the weights that images are drawn from; 0 keeps none."""
    held_out_every_steps: int | None = Field(None, ge=1)
    """Measure the held-out loss after this many steps. Without it, up to twenty times a run."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Start of all randomness: the same seed gives the same run."""
    parts: tuple[PartSettings, ...] = ()
    """Parts of the network that learn at a pace of their own, as in [{ names = "*.bias", weight_decay = 0 }]."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


@dataclass(frozen=True)
class Parts:
    """What the loop is handed."""

    family: Family
    method: Method
    engine: Engine
    batches: Callable[[int], Iterator[Batch]]
    """Batches from a given draw on, for ever."""
    held_out: Sequence[Batch]
    names: Callable[[chance.Draws], list[str]]
    sample: Callable[[int], None]
    checkpoints: Checkpoints
    report: EventLog
    folder: Path


@dataclass
class Trainer:
    """One run in progress."""

    parts: Parts
    settings: TrainSettings
    plan: Plan
    identity: dict[str, Any]
    """What a checkpoint must say of its run beside the numbers: versions, data, settings."""
    step: int = 0
    draws: int = 0
    """Running number of the next draw: counted, so that another batch size later repeats and skips none."""
    held_out: list[float] = field(default_factory=list)
    skipped: int = 0
    """Steps that moved nothing, for they overflowed in fp16; schedules do not count them."""
    _overflows: int = 0
    _failed_saves: int = 0

    def __post_init__(self) -> None:
        parts, engine, train = self.parts, self.parts.engine, self.settings
        self._parameters = engine.brought(parts.family, parts.method.prepare(parts.family))
        parts.family.network = engine.wrapped(parts.family.network).train()
        optimizer = optimizer_of(train, self._parameters, parts.method.rates(self._parameters))
        self._optimizer: Any = engine.accelerator.prepare(optimizer)
        self._stepping = make_stepping(train, engine.accelerator, self._optimizer, self._parameters)
        self.average = make_average(self._optimizer, self._parameters, train.ema_decay)

    def run(self, stop: StopRequest) -> Reason | None:
        """Train to the end, or to a stop; the reason for stopping early is returned."""
        parts, plan, report = self.parts, self.plan, self.parts.report
        draws_per_step = self.settings.batch_size * self.settings.accumulation
        with stop.listening():
            batches = parts.batches(self.draws)
            to_come = plan.to_come(self.step)
            report("start", step=self.step, steps=plan.steps, images_per_step=draws_per_step, to_come=to_come)
            if self.step == 0:
                self._measure_held_out()
            while self.step < plan.steps:
                started = time.perf_counter()
                rate = self._set_learning_rate()

                # Gradients of all micro-batches, then one step of the weights and of their average.
                micro = [next(batches).to(parts.engine.device) for _ in range(self.settings.accumulation)]
                waited = time.perf_counter() - started
                loss, norm = self._gradients(micro)
                self._update()
                self.step += 1
                self.draws += draws_per_step

                changed = parts.method.after_step(parts.family, self.progress)
                if changed:
                    parts.family.network = parts.engine.wrapped_again(parts.family.network)
                    report("note", step=self.step, text=changed)
                took = {"seconds": round(time.perf_counter() - started, 5), "waited": round(waited, 5)}
                report("step", step=self.step, loss=loss, norm=norm, rate=rate, **took)

                if plan.is_due(self.step, plan.held_out_every):
                    self._measure_held_out()
                if plan.is_due(self.step, plan.sample_every):
                    self._sample()
                reason = parts.engine.team.agreed(stop.reason, report)
                if plan.is_due(self.step, plan.checkpoint_every) or self.step in plan.snapshots or reason:
                    self._save(must=bool(reason) or self.step == plan.steps)
                    reason = parts.engine.team.agreed(stop.reason, report)
                if reason and self.step < plan.steps:
                    report("stopped", step=self.step, reason=reason)
                    return reason
        report("done", step=self.step)
        return None

    @property
    def progress(self) -> Progress:
        return Progress(self.step, self.step / self.plan.steps_per_epoch, self.held_out)

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint."""
        state, weights, parts = saved.state, saved.tensors("trainable"), self.parts
        check_fit(self._parameters, weights, where=saved.folder)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(sharding.like(weights[name], parameter))
        if state["optimizer_name"] == self.settings.optimizer:
            optimizer_memory.restore(self._optimizer, self._parameters, saved.tensors("optimizer"), state["optimizer"])
        if self.average:
            self.average.restore(saved.tensors("ema") or weights)
        if parts.engine.accelerator.scaler is not None and state["scaler"] is not None:
            parts.engine.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.draws, self.held_out = saved.step, state["draws"], state["held_out"]
        self.skipped = state.get("skipped", 0)
        parts.method.restore(parts.family, state["method"])
        parts.family.network = parts.engine.wrapped_again(parts.family.network)

    def averaged(self) -> Any:
        """Within, the network holds the weights that images are drawn from."""
        return self.average.in_place() if self.average else nullcontext()

    def _set_learning_rate(self) -> float:
        taken, total = self.step - self.skipped, self.plan.steps
        rate = learning_rate(self.settings, self.settings.learning_rate, step=taken, total=total)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def _gradients(self, micro: list[Batch]) -> tuple[float, float]:
        """The loss and the length of the gradient; neither is used when it is not finite."""
        parts, engine, accelerator, total = self.parts, self.parts.engine, self.parts.engine.accelerator, 0.0
        for index, batch in enumerate(micro):
            number = self.step * len(micro) + index
            torch.manual_seed(chance.key(self.settings.seed, number, f"dropout/{accelerator.process_index}"))
            with accelerator.autocast(), engine.summed(parts.family.network, at_once=index + 1 == len(micro)):
                loss = parts.method.loss(parts.family, batch, seed=self.settings.seed)
            weight = engine.team.weight(len(batch), self.settings.batch_size)
            value = engine.team.mean(loss.value.item() * weight)  # all stop where one of them must
            if not math.isfinite(value):
                odd_B, times_B = engine.team.rows(~loss.images_B.isfinite()), engine.team.rows(loss.times_B)
                raise self._not_finite("loss", value, [batch], odd_B=odd_B, times_B=times_B)
            accelerator.backward(loss.value * weight / len(micro))
            total += value / len(micro)
        norm = self._stepping.finish()
        if not math.isfinite(norm) and accelerator.scaler is None:
            raise self._not_finite("gradient", norm, micro, within=self._stepping.odd)
        return total, norm

    def _update(self) -> None:
        self._stepping.step()
        if self._stepping.was_skipped:
            self._overflows, self.skipped = self._overflows + 1, self.skipped + 1
            self.parts.report.warn("W-TRAIN-001", step=self.step + 1)
            if self._overflows >= OVERFLOWS_IN_A_ROW:
                raise NonFiniteError("E-TRAIN-003", where=f"step {self.step + 1}", count=self._overflows)
            return
        self._overflows = 0
        if self.average:
            self.average.update(self.step)

    def _not_finite(self, what: str, value: float, batches: list[Batch], **tensors: Any) -> NonFiniteError:
        self.parts.report.flush()
        team, told = self.parts.engine.team, {"names": self.parts.names, "step": self.step + 1, **tensors}
        folder = self.parts.folder if team.is_first else None
        return diagnosis.not_finite(what, value, team.everyones(batches), folder=folder, **told)

    def _measure_held_out(self) -> None:
        """The mean over the same images, times and noises each time: the curve to watch."""
        if not self.parts.held_out:
            return
        with self.averaged(), at_rest(self.parts.family.network):
            loss = held_out_loss(self.parts.family, self.parts.method, self.parts.held_out, self.parts.engine)
        self.held_out.append(loss)
        self.parts.report("held_out", step=self.step, loss=loss)

    def _sample(self) -> None:
        """Samples never stop a training: what fails is told and left out."""
        try:
            with self.averaged():
                self.parts.sample(self.step)
        except Exception as fault:  # an edge: samplers of all libraries raise what they like
            if diagnosis.is_broken_device(fault):
                raise
            self.parts.report.warn("W-SAMPLE-001", step=self.step, fault=diagnosis.in_words(fault))

    def _save(self, *, must: bool) -> None:
        """A full disk costs one checkpoint and a warning; the second in a row, or one that must be, stops the run."""
        engine = self.parts.engine
        if not (engine.team.is_first or engine.shard):
            return
        optimizer, rest = optimizer_memory.flatten(self._optimizer, self._parameters)
        average = {"ema": self.average.tensors()} if self.average else {}
        held: dict[str, Mapping[str, torch.Tensor]] = {"trainable": self._parameters, "optimizer": optimizer, **average}
        tensors = {part: engine.gathered(own) for part, own in held.items()}
        if not engine.team.is_first:
            return
        scaler = engine.accelerator.scaler
        state = {
            **self.identity,
            "optimizer_name": self.settings.optimizer,
            "optimizer": rest,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "draws": self.draws,
            "skipped": self.skipped,
            "held_out": self.held_out,
            "method": self.parts.method.state(),
        }
        self.parts.report.flush()  # a kill after the save must find the rows of all steps that it holds
        try:
            saved = self.parts.checkpoints.save(self.step, tensors, state)
        except checkpoints.STORAGE_FAULTS as fault:
            self._failed_saves += 1
            why = checkpoints.reason(fault)
            if must or self._failed_saves >= FAILED_SAVES_IN_A_ROW:
                where = str(self.parts.checkpoints.folder)
                raise StorageError("E-STORE-003", where=where, step=self.step, fault=why) from fault
            self.parts.report.warn("W-STORE-001", step=self.step, fault=why)
            return
        self._failed_saves = 0
        self.parts.report("checkpoint", step=self.step, path=saved.folder.name)
