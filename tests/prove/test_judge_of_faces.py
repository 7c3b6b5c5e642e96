"""The judge of caricatures, carried and made anew: it reads what it has not seen, and not what cannot be read."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fusain.worlds import face_reader, reader
from fusain.worlds.caricatures import STYLES, world
from fusain.worlds.face_reader import accuracy, answers
from fusain.worlds.reader import CANNOT_TELL, Reader

pytestmark = pytest.mark.prove


@pytest.mark.parametrize("made", [face_reader.carried, lambda: face_reader.train_reader(face_reader.plan())])
def test_it_reads_unseen_drawings_and_does_not_read_smears(made: Callable[[], Reader]) -> None:
    judge = made()
    unseen = world(2_000, seed=77, styles=STYLES, combinations="all")
    found = accuracy(judge.read(unseen.images), answers(unseen.faces))
    assert len(found) == 16
    assert min(found.values()) >= 0.93, found
    assert np.mean(list(found.values())) >= 0.97, found
    smeared = reader.smears(reader.to_pixels(unseen.images[:500]), torch.Generator().manual_seed(1))
    pictures = ((smeared + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    told = {name: float((answer != CANNOT_TELL).mean()) for name, answer in judge.read(pictures).items()}
    assert max(told.values()) <= 0.05, told
