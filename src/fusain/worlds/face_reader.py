"""The judge of caricatures: says of a picture which style it has and what every attribute of the face is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.worlds import reader
from fusain.worlds.caricatures import ATTRIBUTES, SIDE, STYLES, Face, spoken, unseen, world
from fusain.worlds.reader import CANNOT_TELL, Answers, Plan, Reader

# Far from the seeds that people give their worlds, so that the judge has not seen what it judges.
_FIRST_DRAWING_SEED: Final = 7_000_000
CARRIED: Final = Path(__file__).parent / "mini" / "face-reader.safetensors"


def plan(*, drawings: int = 16_000, steps: int = 1_600, seed: int = 0, checked: int = 2_000) -> Plan:
    return Plan(
        side=SIDE,
        questions=ATTRIBUTES,
        widths=(32, 64, 96, 128),
        hidden=256,
        fold=2,
        rate=4e-3,
        steps=steps,
        drawings=drawings,
        seed=seed,
        smears=0.1,
        checked=checked,
    )


@cache
def carried() -> Reader:
    """The judge that the package carries: `train_reader(plan())`, so that nobody waits for it."""
    return Reader.load(CARRIED)


def train_reader(wanted: Plan) -> Reader:
    """A reader of all styles and all combinations, the ones kept from the models included: it must judge these."""
    seed = _FIRST_DRAWING_SEED + 2 * wanted.seed
    drawn = world(wanted.drawings, seed=seed, styles=STYLES, combinations="all")
    fresh = world(wanted.checked, seed=seed + 1, styles=STYLES, combinations="all")
    trained = reader.train(wanted, drawn.images, answers(drawn.faces))
    return reader.calibrated(trained, fresh.images, answers(fresh.faces))


def answers(faces: Sequence[Face]) -> Answers:
    """The right answers, CANNOT_TELL where the picture hides them."""
    return {
        name: np.asarray(
            [CANNOT_TELL if name in unseen(face) else values.index(face.attributes[name]) for face in faces], np.int64
        )
        for name, values in ATTRIBUTES.items()
    }


def told(faces: Sequence[Face]) -> Answers:
    """The right answers as far as the captions of faces say them, CANNOT_TELL for all else."""
    right = answers(faces)
    for place, face in enumerate(faces):
        for name in right.keys() - spoken(face, face.seed):
            right[name][place] = CANNOT_TELL
    return right


def accuracy(found: Answers, right: Answers) -> dict[str, float]:
    """For each attribute the share of images, among those that show it, of which it was read right."""
    return {name: _share(found[name], right[name]) for name in right}


def _share(found: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> float:
    is_seen = right != CANNOT_TELL
    return float((found[is_seen] == right[is_seen]).mean()) if is_seen.any() else float("nan")
