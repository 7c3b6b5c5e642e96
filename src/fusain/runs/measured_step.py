"""A few real steps on the first images, on the clock: what `plan` tells, and what decides whether compiling pays."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch

from fusain.data.dataset import Dataset
from fusain.data.loader import Loader
from fusain.models.family import Family
from fusain.runs import assembly, encoding
from fusain.runs.settings import RunSettings
from fusain.training import engine as engines
from fusain.training.engine import Engine
from fusain.training.method import Method
from fusain.training.optimizers import optimizer_of
from fusain.training.stepping import make_stepping

WARM_STEPS, MEASURED_STEPS = 2, 3


@dataclass(frozen=True)
class MeasuredStep:
    """Seconds, of the first step and in the middle of those that follow the warm ones, and bytes."""

    first: float
    seconds: float
    fastest: float
    slowest: float
    memory: int


def measure(
    settings: RunSettings, dataset: Dataset, not_compiled: Callable[[Exception], None], *, one_batch: bool = False
) -> MeasuredStep:
    """The median of a few whole steps; with `one_batch` on the same images, so that one shape is compiled."""
    engine = engines.start(settings.engine)
    learner = assembly.build_trainee(settings, dataset.classes)
    assembly.compile_denoiser(learner, settings, not_compiled)
    family, method, train = learner.family, learner.method, settings.train
    family.to(engine.device)
    share = slice(settings.largest_share)
    loader = iter(Loader(dataset, settings.data, seed=train.seed, batch_size=train.batch_size, share=share))
    count = (WARM_STEPS + MEASURED_STEPS) * train.accumulation
    few = (
        repeat(next(loader).to(engine.device), count)
        if one_batch
        else (next(loader).to(engine.device) for _ in range(count))
    )
    batches = encoding.as_stored(family, method, dataset, iter(few))
    parameters = method.prepare(family)
    family.to(engine.device)
    family.network.train()
    optimizer = optimizer_of(train, parameters, method.rates(parameters))
    stepping = make_stepping(train, engine.accelerator, optimizer, parameters)
    seconds = []
    for _ in range(WARM_STEPS + MEASURED_STEPS):
        started = time.perf_counter()
        for _ in range(train.accumulation):
            _forward_backward(family, method, engine, next(batches), train.seed)
        stepping.finish()
        stepping.step()
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    warm = seconds[WARM_STEPS:]
    return MeasuredStep(seconds[0], statistics.median(warm), min(warm), max(warm), _peak_memory(engine))


def _forward_backward(family: Family, method: Method, engine: Engine, batch: Any, seed: int) -> None:
    with engine.accelerator.autocast():
        loss = method.loss(family, batch, seed=seed)
    loss.value.backward()  # type: ignore[no-untyped-call]


def _peak_memory(engine: Engine) -> int:
    """The device's own count, or on a CPU the most this process ever held."""
    if engine.device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
