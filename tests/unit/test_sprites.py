"""The drawn world keeps its promises: same seed same pixels, white around, no class told by colour, faults known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusain.errors import StorageError
from fusain.worlds.reader import Reader
from fusain.worlds.sprite_parts.faults import FAULTS
from fusain.worlds.sprite_reader import FEATURES, classify, train_reader
from fusain.worlds.sprites import CLASSES, SHARES, Sprites, draw, world, write_arrays, write_folder

CORNERS = ([0, 0, -1, -1], [0, -1, 0, -1])


@pytest.fixture(scope="module")
def natural() -> Sprites:
    return world(3_000, seed=1)


def test_an_image_is_a_function_of_its_label_and_seed() -> None:
    for label in range(len(CLASSES)):
        np.testing.assert_array_equal(draw(label, 7), draw(label, 7))
        assert not np.array_equal(draw(label, 7), draw(label, 8))


def test_a_world_is_a_function_of_its_seed() -> None:
    first, again, other = world(60, seed=3), world(60, seed=3), world(60, seed=4)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)


def test_a_larger_world_holds_the_images_of_a_smaller_one() -> None:
    small, large = world(50, seed=5, balanced=True), world(100, seed=5, balanced=True)
    assert {image.tobytes() for image in small.images} <= {image.tobytes() for image in large.images}


def test_counts_follow_the_shares(natural: Sprites) -> None:
    total = sum(SHARES.values())
    counts = np.bincount(natural.labels, minlength=len(CLASSES))
    expected = [len(natural) * SHARES[name] / total for name in CLASSES]
    np.testing.assert_allclose(counts, expected, atol=1.0)
    assert np.bincount(world(53, balanced=True).labels).tolist() == [11, 11, 11, 10, 10]
    assert np.bincount(world(5).labels, minlength=len(CLASSES)).min() == 1


def test_the_order_is_shuffled(natural: Sprites) -> None:
    assert len(set(natural.labels[:30].tolist())) > 1


def test_the_background_is_white(natural: Sprites) -> None:
    white = (natural.images == 255).all(-1)
    assert white[:, *CORNERS].all()
    assert white.sum((1, 2)).min() >= 26


def test_nearly_all_images_are_distinct(natural: Sprites) -> None:
    assert len({image.tobytes() for image in natural.images}) >= 0.99 * len(natural)


def test_mean_colour_does_not_tell_the_class() -> None:
    seen, unseen = (world(2_000, seed=seed, balanced=True) for seed in (11, 12))
    weights = np.zeros((4, len(CLASSES)))
    inputs, targets = _mean_colours(seen, seen), np.eye(len(CLASSES))[seen.labels]
    for _ in range(400):
        logits = inputs @ weights
        odds = np.exp(logits - logits.max(1, keepdims=True))
        weights -= inputs.T @ (odds / odds.sum(1, keepdims=True) - targets) / len(inputs)
    guesses = (_mean_colours(unseen, seen) @ weights).argmax(1)
    assert (guesses == unseen.labels).mean() <= 0.60


def _mean_colours(sprites: Sprites, reference: Sprites) -> np.ndarray:
    known = reference.images.mean((1, 2))
    scaled = (sprites.images.mean((1, 2)) - known.mean(0)) / known.std(0)
    return np.hstack([scaled, np.ones((len(scaled), 1))])


def test_bad_images_come_at_their_share_and_carry_their_fault() -> None:
    sprites = world(1_000, seed=2, bad_share={"food": 0.5, "spell": 0.1}, balanced=True)
    good = world(1_000, seed=2, balanced=True)
    bad = np.asarray([fault != "" for fault in sprites.faults])
    assert np.bincount(sprites.labels[bad], minlength=len(CLASSES)).tolist() == [0, 0, 100, 20, 0]
    assert set(sprites.faults) == {"", *FAULTS}
    changed = (sprites.images != good.images).any((1, 2, 3))
    np.testing.assert_array_equal(changed, bad)


def test_faults_show_in_the_pixels() -> None:
    sprites = world(500, seed=6, bad_share=1.0)
    white = (sprites.images == 255).all(-1)
    faults = np.asarray(sprites.faults)
    assert not white[faults == "no_white_corners"][:, *CORNERS].any()
    assert white[faults == "few_white_pixels"].sum((1, 2)).max() < 26


def test_a_folder_holds_every_image_and_the_truth(tmp_path: Path) -> None:
    sprites = world(40, seed=8, bad_share=0.25)
    write_folder(sprites, tmp_path / "world")
    truth = json.loads((tmp_path / "world" / "truth.json").read_text(encoding="utf-8"))
    assert truth["classes"] == list(CLASSES)
    assert len(truth["images"]) == len(list((tmp_path / "world").glob("*/*.png"))) == 40
    for row, image, label, fault in zip(truth["images"], sprites.images, sprites.labels, sprites.faults, strict=True):
        with Image.open(tmp_path / "world" / row["file"]) as written:
            np.testing.assert_array_equal(np.asarray(written), image)
        assert (row["label"], row["fault"]) == (CLASSES[label], fault)
        assert row["file"].startswith(f"{CLASSES[label]}/")


def test_arrays_load_without_pickle(tmp_path: Path) -> None:
    sprites = world(40, seed=9)
    write_arrays(sprites, tmp_path)
    images = np.load(tmp_path / "sprites.npy", allow_pickle=False)
    labels = np.load(tmp_path / "labels.npy", allow_pickle=False)
    np.testing.assert_array_equal(images, sprites.images)
    assert (images.dtype, labels.dtype, labels.shape) == (np.uint8, np.float64, (40, len(CLASSES)))
    np.testing.assert_array_equal(labels.argmax(1), sprites.labels)
    assert len(json.loads((tmp_path / "truth.json").read_text(encoding="utf-8"))["images"]) == 40


@pytest.mark.parametrize("write", [write_folder, write_arrays])
def test_a_folder_in_use_is_refused(write: object, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    assert callable(write)
    with pytest.raises(StorageError) as caught:
        write(world(5), tmp_path)
    assert str(caught.value) == (
        "E-STORE-006 The folder holds files already, and nothing is written over.\n"
        f"Where: {tmp_path}\n"
        "Do: Name a new or an empty folder."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_reader_survives_storage_and_leaves_global_randomness_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    reader = train_reader(seed=1, images_per_class=20, steps=3)
    assert torch.equal(state, torch.get_rng_state())
    images = world(10).images
    reader.save(tmp_path / "reader.safetensors")
    loaded = Reader.load(tmp_path / "reader.safetensors")
    assert loaded.plan == reader.plan
    np.testing.assert_allclose(classify(loaded, images), classify(reader, images), atol=2e-3)  # stored in fp16
    np.testing.assert_allclose(classify(reader, images).sum(1), 1.0, atol=1e-5)
    assert reader.features(images).shape == (10, FEATURES)


@pytest.mark.prove
def test_a_reader_tells_the_classes_of_unseen_drawings() -> None:
    unseen = world(2_000, seed=77, balanced=True)
    right = classify(train_reader(), unseen.images).argmax(1) == unseen.labels
    assert right.mean() >= 0.98
