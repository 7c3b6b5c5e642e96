"""The judge of sprites: says which class one shows."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.worlds import reader
from fusain.worlds.reader import Plan, Reader
from fusain.worlds.sprite_parts.canvas import SIDE
from fusain.worlds.sprites import CLASSES, world

FEATURES: Final = 96

# Far from the seeds that people give their worlds, so that the judge has not seen what it judges.
_FIRST_DRAWING_SEED: Final = 7_000_000


def train_reader(seed: int = 0, images_per_class: int = 2000, steps: int = 400) -> Reader:
    """A reader trained on `images_per_class` drawings of each class."""
    drawn = world(images_per_class * len(CLASSES), seed=_FIRST_DRAWING_SEED + seed, balanced=True)
    plan = Plan(
        side=SIDE,
        questions={"class": CLASSES},
        widths=(32, 64, 96),
        hidden=FEATURES,
        fold=1,
        rate=4e-3,
        steps=steps,
        drawings=len(drawn),
        seed=seed,
    )
    return reader.train(plan, drawn.images, {"class": drawn.labels})


def classify(judge: Reader, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The probability of each class, N x 5."""
    return judge.probabilities(images)["class"]
