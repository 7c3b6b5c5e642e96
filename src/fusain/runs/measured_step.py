"""A few real steps on the first images, on the clock: what `plan` tells, and what decides whether compiling pays.

A plan has what comes between the steps measured too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any, Final

import torch

from fusain.data.dataset import Dataset
from fusain.data.loader import Loader
from fusain.models.family import Family
from fusain.runs import assembly, encoding, measured_beside
from fusain.runs.measured_beside import Took
from fusain.runs.settings import RunSettings
from fusain.training import engine as engines
from fusain.training import peak
from fusain.training.averaging import make_average
from fusain.training.engine import Engine
from fusain.training.method import Method
from fusain.training.optimizers import optimizer_of
from fusain.training.stepping import make_stepping

WARM_STEPS: Final = 2
MEASURED_STEPS: Final = 3


@dataclass(frozen=True)
class MeasuredStep:
    """Seconds, of the first step and in the middle of those that follow the warm ones, and bytes."""

    first: float
    seconds: float
    fastest: float
    slowest: float
    memory: int
    beside: Mapping[str, Took] = field(default_factory=dict)
    """Other parts of the course, where they were asked for and there are such."""


def measure(
    settings: RunSettings,
    dataset: Dataset,
    not_compiled: Callable[[Exception], None],
    *,
    one_batch: bool = False,
    not_drawn: Callable[[Exception], None] | None = None,
) -> MeasuredStep:
    """The median of a few whole steps; with `one_batch` on the same images, so that one shape is compiled.

    With `not_drawn`, which is told why no samples could be drawn, what comes between steps is measured too.
    """
    engine = engines.start(settings.engine)
    learner = assembly.build_trainee(settings, dataset.classes)
    assembly.ready_denoiser(learner, settings, not_compiled)
    family, method, train = learner.family, learner.method, settings.train
    family.encoders_to(engine.device)
    share = slice(settings.largest_share)
    loader = iter(Loader(dataset, settings.data, seed=train.seed, batch_size=train.batch_size, share=share))
    count = (WARM_STEPS + MEASURED_STEPS) * train.accumulation
    few = (
        repeat(next(loader).to(engine.device), count)
        if one_batch
        else (next(loader).to(engine.device) for _ in range(count))
    )
    held_out = assembly.held_out_of(settings, dataset) if not_drawn else iter(())
    first = (one.to(engine.device) for one in islice(held_out, 1))
    batches = encoding.as_stored(family, method, dataset, chain(few, first))
    parameters = engine.brought(family, method.prepare(family))
    family.network.train()
    optimizer = optimizer_of(train, parameters, method.rates(parameters))
    stepping = make_stepping(train, engine.accelerator, optimizer, parameters)
    average = make_average(optimizer, parameters, train.ema_decay)
    seconds = []
    for number in range(WARM_STEPS + MEASURED_STEPS):
        started = time.perf_counter()
        for _ in range(train.accumulation):
            _forward_backward(family, method, engine, next(batches), train.seed)
        stepping.finish()
        stepping.step()
        if average is not None:
            average.update(number)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    beside: dict[str, Took] = {}
    if not_drawn is not None:
        beside = measured_beside.measure(settings, dataset, learner, engine, next(batches, None), not_drawn)
    warm = seconds[WARM_STEPS:]
    return MeasuredStep(seconds[0], statistics.median(warm), min(warm), max(warm), peak.reached(engine.device), beside)


def _forward_backward(family: Family, method: Method, engine: Engine, batch: Any, seed: int) -> None:
    with engine.accelerator.autocast():
        loss = method.loss(family, batch, seed=seed)
    loss.value.backward()  # type: ignore[no-untyped-call]
