"""What is laid out in an unusual way: rates, ranks, averages, how often images are learnt, what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fusain.data.dataset import Dataset
from fusain.messages.quantities import numerous
from fusain.models.family import Family
from fusain.models.packed import count_weights
from fusain.runs.settings import METHODS, RunSettings, make_plan
from fusain.settings.notice import Notice
from fusain.training.optimizers import kind_of
from fusain.training.usual import DECAYS, SUBJECT, Span


def worth_a_word(settings: RunSettings, dataset: Dataset, family: Family) -> Iterator[Notice]:
    """Told at the start and by `plan`, of a family without anything beside its own weights; nothing is refused."""
    weights = count_weights(family.network.get_submodule(family.denoiser))
    yield from _times(settings, dataset)
    if settings.engine.compile == "on" and (shapes := count_shapes(dataset)) > 1:
        yield Notice("W-ENV-002", where="engine.compile", shapes=f"{shapes:,}")
    yield from _decay(settings, weights)
    yield from _rate(settings, weights)
    yield from _own(settings, weights)


def count_shapes(dataset: Dataset) -> int:
    """Of the images that are learnt."""
    return len(np.unique(dataset.shapes[dataset.train], axis=0))


def _times(settings: RunSettings, dataset: Dataset) -> Iterator[Notice]:
    usual = SUBJECT if dataset.subjects else METHODS[settings.method.kind].usual.times
    if usual is None or dataset.stream is not None:
        return
    plan, train = make_plan(settings, entries=dataset.entries), settings.train
    draws = plan.steps * train.batch_size * train.accumulation
    share = len(dataset.train_entries) / dataset.entries
    times = draws * share / max(1, len(dataset.subject_rows))
    low, high = usual
    if low <= times <= high:
        return
    result = "too little to know it" if times < low else "they may come back as they are, whatever the prompt says"
    steps = round(plan.steps * (low if times < low else high) / times)
    yield Notice(
        "W-TRAIN-003",
        where="train.steps",
        of_what=" of the subject" if dataset.subjects else "",
        times=f"{times:,.0f}" if times >= 1 else f"{times:.2g}",
        usual=_spelt(usual),
        result=result,
        steps=steps,
    )


def _decay(settings: RunSettings, weights: int) -> Iterator[Notice]:
    decay, (low, high) = settings.train.ema_decay, DECAYS.of(weights)
    if decay == 0 or low <= decay <= high or settings.train.is_schedule_free:
        return
    yield Notice(
        "W-TRAIN-004",
        where="train.ema_decay",
        decay=f"{decay:g}",
        steps=f"{1 / (1 - decay):,.0f}",
        result=" only and smooths next to nothing" if decay < low else ", longer than most runs",
        usual=_spelt((low, high)),
    )


def _rate(settings: RunSettings, weights: int) -> Iterator[Notice]:
    rates, pace = METHODS[settings.method.kind].usual.rates, kind_of(settings.train.optimizer).pace
    if rates is None or pace is None:
        return
    low, high = rates.of(weights)
    usual, rate = (low * pace[0], high * pace[1]), settings.train.learning_rate
    if side := _side(rate, usual):
        facts = {"rate": f"{rate:g}", "optimizer": settings.train.optimizer}
        yield Notice("W-TRAIN-007", where="train.learning_rate", **facts, **_facts(settings, side, usual, weights))


def _own(settings: RunSettings, weights: int) -> Iterator[Notice]:
    for name, spans in METHODS[settings.method.kind].usual.own.items():
        value, usual, key = getattr(settings.method, name), spans.of(weights), f"method.{name}"
        if side := _side(value, usual):
            facts = {"key": key, "value": f"{value:g}"}
            yield Notice("W-TRAIN-008", where=key, **facts, **_facts(settings, side, usual, weights))


def _side(value: float, usual: Span) -> str:
    """Ends count as usual, rounding aside."""
    low, high = usual
    return "below" if value < low * (1 - 1e-9) else "above" if value > high * (1 + 1e-9) else ""


def _facts(settings: RunSettings, side: str, usual: Span, weights: int) -> dict[str, Any]:
    return {"side": side, "usual": _spelt(usual), "method": settings.method.kind, "weights": numerous(weights)}


def _spelt(usual: Span) -> str:
    return f"{usual[0]:.4g} to {usual[1]:.4g}"
