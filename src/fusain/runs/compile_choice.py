"""Whether compiling makes a run shorter: measured once for a machine and a shape of model, and known from then on."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fusain.data import index_cache
from fusain.data.dataset import Dataset
from fusain.messages.quantities import duration
from fusain.runs import assembly, measured_step, usual
from fusain.runs.settings import METHODS, RunSettings, make_plan
from fusain.training.diagnosis import in_words


@dataclass(frozen=True)
class Pace:
    """Seconds of a step as it is and compiled, and what compiling takes for one shape."""

    plain: float
    compiled: float
    compiling: float


def made(settings: RunSettings, dataset: Dataset, note: Callable[[str], None]) -> RunSettings:
    """The settings with `engine.compile = "auto"` as what it means for this run, which is said."""
    if settings.engine.compile != "auto":
        return settings
    if not METHODS[settings.method.kind].uses_denoiser:
        return _with(settings, "off")
    path = _path(settings, dataset)
    known = _read(path)
    pace = known or _measured(settings, dataset, note)
    if pace is None:
        return _with(settings, "off")
    if known is None:
        _write(path, pace)
    steps, shapes = make_plan(settings, entries=dataset.entries).steps, usual.count_shapes(dataset)
    choice: Literal["on", "off"] = "on" if (pace.plain - pace.compiled) * steps > pace.compiling * shapes else "off"
    note(
        f"engine.compile = {choice} for {steps:,} steps: a step takes {pace.compiled * 1000:.0f} ms compiled and "
        f"{pace.plain * 1000:.0f} ms as it is, and compiling takes {duration(pace.compiling * shapes)}"
        + (", as measured before." if known else ".")
    )
    return _with(settings, choice)


def _with(settings: RunSettings, choice: Literal["on", "off"]) -> RunSettings:
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"compile": choice})})


def _measured(settings: RunSettings, dataset: Dataset, note: Callable[[str], None]) -> Pace | None:
    """None where it cannot be compiled; that is not kept, for what is missing may come."""
    faults: list[Exception] = []
    plain, compiled = (
        measured_step.measure(_with(settings, choice), dataset, faults.append, one_batch=True)
        for choice in ("off", "on")
    )
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if faults:
        note(f"engine.compile = off, for the denoiser could not be compiled: {in_words(faults[0])}.")
        return None
    return Pace(plain.seconds, compiled.seconds, max(0.0, compiled.first - plain.first))


def _path(settings: RunSettings, dataset: Dataset) -> Path:
    """One file for each machine and shape of model and batch."""
    engine = settings.engine
    device = torch.cuda.get_device_name() if engine.device.startswith("cuda") else platform.machine()
    facts: list[Any] = [platform.node(), os.cpu_count(), device, torch.__version__, engine.threads, engine.precision]
    facts += [engine.gradient_checkpointing, engine.base_bits, engine.channels_last]
    facts += [settings.family.size, settings.largest_share]
    learner = assembly.without_weights(settings, dataset.classes)
    learner.method.prepare(learner.family)
    weights = learner.family.network.named_parameters()
    facts += [(name, tuple(one.shape), one.requires_grad) for name, one in weights]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return index_cache.folder() / "compiling" / f"{digest}.json"


def _read(path: Path) -> Pace | None:
    """What was kept; what is damaged is measured anew."""
    with suppress(OSError, ValueError, TypeError):
        return Pace(**json.loads(path.read_text(encoding="utf-8")))
    return None


def _write(path: Path, pace: Pace) -> None:
    """A cache that cannot be written costs another measurement."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(pace)), encoding="utf-8")
