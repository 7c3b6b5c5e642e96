"""What a run does beside its steps, on the clock: a part of each, from which the whole is reckoned."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import torch

from fusain.data.batch import Batch
from fusain.data.dataset import Dataset
from fusain.data.encoded import few
from fusain.models.family import at_rest
from fusain.runs import assembly
from fusain.runs.assembly import Learner
from fusain.runs.settings import RunSettings
from fusain.training import diagnosis
from fusain.training.checkpoint import STORAGE_FAULTS, Checkpoints
from fusain.training.engine import Engine
from fusain.training.held_out import held_out_loss

LARGEST_SAVED: Final = 32_000_000
"""Bytes of the checkpoint that is written as a trial; a larger one takes as much longer as it is larger."""
PARTS_SAVED: Final = ("trainable", "optimizer", "ema")
ASKED_TWICE: Final = frozenset(("heun",))
"""Samplers that ask the network twice a step."""


class Took(NamedTuple):
    """Seconds of a part of the course."""

    each: float
    more_at_first: float
    """What the first time takes longer, with libraries that are loaded for it."""


def measure(
    settings: RunSettings,
    dataset: Dataset,
    learner: Learner,
    engine: Engine,
    held_out: Batch | None,
    not_drawn: Callable[[Exception], None],
) -> dict[str, Took]:
    """The held-out loss, whose first batch is given, and a round of samples."""
    found: dict[str, Took] = {}
    if held_out is not None:
        found["held_out"] = _of_held_out(dataset, learner, engine, held_out)
    if settings.samples.every_steps != 0:
        try:
            found["samples"] = _of_samples(settings, dataset, learner, engine, held_out)
        except Exception as fault:  # an edge, as in the loop: samplers of all libraries raise what they like
            if diagnosis.is_broken_device(fault):
                raise
            not_drawn(fault)
    return found


def of_checkpoint(folder: Path, size: int) -> Took:
    """A checkpoint of so many bytes; where none can be written, the training will say so."""
    numbers = torch.zeros(min(size, LARGEST_SAVED) // 4 // len(PARTS_SAVED))
    tensors = {part: {"numbers": numbers} for part in PARTS_SAVED}
    with suppress(*STORAGE_FAULTS), tempfile.TemporaryDirectory(prefix=".plan-", dir=folder) as place:
        checkpoints, steps = Checkpoints(Path(place), keep=1), count(1)
        took = _twice(lambda: checkpoints.save(next(steps), tensors, {}))
        return took._replace(each=took.each * max(1.0, size / LARGEST_SAVED))
    return Took(0.0, 0.0)


def _of_held_out(dataset: Dataset, learner: Learner, engine: Engine, batch: Batch) -> Took:
    def one_batch() -> None:
        with at_rest(learner.family.network):
            held_out_loss(learner.family, learner.method, [batch], engine)

    took, images = _twice(one_batch), min(assembly.HELD_OUT_IMAGES, len(dataset.held_out))
    return took._replace(each=took.each * images / len(batch))


def _of_samples(
    settings: RunSettings, dataset: Dataset, learner: Learner, engine: Engine, held_out: Batch | None
) -> Took:
    """By what one step of drawing takes, and all that is done once for an image, such as decoding it."""
    family, method, drawing = learner.family, learner.method, settings.samples
    if held_out is not None and method.shown(family, held_out.to(engine.device)):
        return Took(_clocked(lambda: method.shown(family, held_out.to(engine.device))), 0.0)
    wanted = assembly.samples_of(settings, family, assembly.captions_read(learner, dataset))
    at_once = wanted[: few(assembly.CHUNK, settings.family.size**2)]

    def draw(steps: int) -> None:
        quick = drawing.model_copy(update={"sampler": "ddim", "steps": steps, "eta": 0.0})
        with tempfile.TemporaryDirectory() as place:
            assembly.draw_into(Path(place), family, at_once, quick, facts={}, engine=engine)

    one, three = _twice(lambda: draw(1)), _clocked(lambda: draw(3))
    step = max(0.0, three - one.each) / 2
    steps = drawing.steps * (2 if drawing.sampler in ASKED_TWICE else 1)
    return one._replace(each=(one.each + (steps - 1) * step) * len(wanted) / len(at_once))


def _twice(action: Callable[[], object]) -> Took:
    first, second = _clocked(action), _clocked(action)
    return Took(second, max(0.0, first - second))


def _clocked(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
