"""The judge of caricatures: answers every attribute, says nothing of what is hidden or smeared."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fusain.worlds.caricatures import ATTRIBUTES, spoken, world
from fusain.worlds.face_reader import accuracy, answers, plan, told, train_reader
from fusain.worlds.reader import CANNOT_TELL, Reader


def test_it_survives_storage_and_leaves_global_randomness_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    judge = train_reader(plan(drawings=60, steps=3, checked=60))
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


def test_what_a_caption_does_not_say_has_no_answer() -> None:
    faces = world(100).faces
    right, said = answers(faces), told(faces)
    for place, face in enumerate(faces):
        for name in ATTRIBUTES:
            expected = right[name][place] if name in spoken(face, face.seed) else CANNOT_TELL
            assert said[name][place] == expected
