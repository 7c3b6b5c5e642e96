"""The judge of caricatures: answers every attribute, says nothing of what is hidden or smeared."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fusain.worlds import reader
from fusain.worlds.caricatures import ATTRIBUTES, STYLES, world
from fusain.worlds.face_reader import accuracy, answers, plan, train_reader
from fusain.worlds.reader import CANNOT_TELL, Reader


def test_it_survives_storage_and_leaves_global_randomness_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    judge = train_reader(plan(drawings=60, steps=3))
    assert torch.equal(state, torch.get_rng_state())
    judge.save(tmp_path / "reader.safetensors")
    loaded = Reader.load(tmp_path / "reader.safetensors")
    assert (loaded.plan, loaded.sureness) == (judge.plan, judge.sureness)
    images = world(8).images
    for name, found in judge.probabilities(images).items():
        np.testing.assert_allclose(loaded.probabilities(images)[name], found, atol=2e-3)  # stored in fp16
        assert found.shape == (8, len(ATTRIBUTES[name]))


def test_hidden_attributes_have_no_answer() -> None:
    faces = world(200).faces
    right = answers(faces)
    bare = [place for place, face in enumerate(faces) if face.attributes["hat"] == "none"]
    assert bare
    assert (right["hat_colour"][bare] == CANNOT_TELL).all()
    assert (right["hat"] != CANNOT_TELL).all()


def test_accuracy_counts_seen_attributes_and_silence_is_wrong() -> None:
    right = {"hat": np.asarray([0, 1, 2, CANNOT_TELL])}
    assert accuracy({"hat": np.asarray([0, 1, CANNOT_TELL, 3])}, right) == {"hat": pytest.approx(2 / 3)}


@pytest.mark.prove
def test_it_reads_unseen_drawings_and_does_not_read_smears() -> None:
    judge = train_reader(plan())
    unseen = world(2_000, seed=77, styles=STYLES, combinations="all")
    found = accuracy(judge.read(unseen.images), answers(unseen.faces))
    assert len(found) == 16
    assert min(found.values()) >= 0.93, found
    assert np.mean(list(found.values())) >= 0.97, found
    smeared = reader.smears(reader.to_pixels(unseen.images[:500]), torch.Generator().manual_seed(1))
    pictures = ((smeared + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    told = {name: float((answer != CANNOT_TELL).mean()) for name, answer in judge.read(pictures).items()}
    assert max(told.values()) <= 0.05, told
