"""What is laid out in an unusual way: how often subjects are learnt, how long averages remember, what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from fusain.data.dataset import Dataset
from fusain.runs.settings import RunSettings, make_plan
from fusain.settings.notice import Notice

OFTEN: Final = (50, 400)
"""How many times each image of a subject is learnt, from training scripts of others and from the miniature."""
SHORTEST_MEMORY: Final = 0.9


def worth_a_word(settings: RunSettings, dataset: Dataset) -> Iterator[Notice]:
    """Told at the start and by `plan`; nothing is refused."""
    if dataset.subjects:
        yield from _times(settings, dataset)
    if settings.engine.compile == "on" and (shapes := count_shapes(dataset)) > 1:
        yield Notice("W-ENV-002", where="engine.compile", shapes=f"{shapes:,}")
    decay = settings.train.ema_decay
    if 0 < decay < SHORTEST_MEMORY:
        yield Notice("W-TRAIN-004", where="train.ema_decay", decay=f"{decay:g}", steps=f"{1 / (1 - decay):.0f}")


def count_shapes(dataset: Dataset) -> int:
    """Of the images that are learnt."""
    return len(np.unique(dataset.shapes[dataset.train], axis=0))


def _times(settings: RunSettings, dataset: Dataset) -> Iterator[Notice]:
    plan, train = make_plan(settings, entries=dataset.entries), settings.train
    draws = plan.steps * train.batch_size * train.accumulation
    share = len(dataset.train_entries) / dataset.entries
    times = draws * share / max(1, len(dataset.subject_rows))
    low, high = OFTEN
    if low <= times <= high:
        return
    result = "too little to know it" if times < low else "they may come back as they are, whatever the prompt says"
    steps = round(plan.steps * (low if times < low else high) / times)
    yield Notice(
        "W-TRAIN-003",
        where="train.steps",
        times=f"{times:,.0f}",
        usual=f"{low} to {high}",
        result=result,
        steps=steps,
    )
