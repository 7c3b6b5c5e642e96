"""The judge of caricatures, carried and made anew: it reads what it has not seen, and not what cannot be read.

With pytest's -rP what it reaches is printed.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fusain.worlds import face_reader, reader
from fusain.worlds.caricatures import STYLES, world
from fusain.worlds.face_reader import accuracy, answers
from fusain.worlds.reader import CANNOT_TELL, Answers, Reader

pytestmark = pytest.mark.prove


SURE = 0.9
MADE = {"carried": face_reader.carried, "made anew": lambda: face_reader.train_reader(face_reader.plan())}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_it_reads_unseen_drawings_and_does_not_read_smears(made: Callable[[], Reader]) -> None:
    judge = made()
    unseen = world(2_000, seed=77, styles=STYLES, combinations="all")
    right = answers(unseen.faces)
    found = accuracy(judge.read(unseen.images), right)
    sure = sure_and_right(judge, unseen.images, right)
    smeared = reader.smears(reader.to_pixels(unseen.images[:500]), torch.Generator().manual_seed(1))
    pictures = ((smeared + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    told = {name: float((answer != CANNOT_TELL).mean()) for name, answer in judge.read(pictures).items()}
    print(f"mean {np.mean(list(found.values())):.4f}, worst {extreme(found, min)}")
    print(f"of answers given at {SURE} or more those that are right, worst {extreme(sure, min)}")
    print(f"smears of which something is told, most {extreme(told, max)}")
    assert len(found) == len(sure) == 16
    assert min(found.values()) >= 0.93, found
    assert np.mean(list(found.values())) >= 0.97, found
    assert min(sure.values()) >= SURE, sure
    assert max(told.values()) <= 0.05, told


def sure_and_right(judge: Reader, images: np.ndarray, right: Answers) -> dict[str, float]:
    """For each attribute the share of right ones among the answers that are given with so much sureness."""
    read = judge.read(images)
    shares = {}
    for name, found in judge.probabilities(images).items():
        given = (read[name] != CANNOT_TELL) & (right[name] != CANNOT_TELL) & (found.max(1) >= SURE)
        shares[name] = float((read[name][given] == right[name][given]).mean())
    return shares


def extreme(shares: dict[str, float], which: Callable[..., str]) -> str:
    """The least or the greatest share, with its attribute."""
    name = which(shares, key=lambda name: shares[name])
    return f"{shares[name]:.4f} ({name})"
