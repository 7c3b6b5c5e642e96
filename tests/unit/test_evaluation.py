"""Metrics against numbers worked out by hand, and against sets whose truth is known: fresh, copied, collapsed."""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from fusain import plugins
from fusain.evaluation import evaluator, neighbours
from fusain.evaluation.evaluator import judge, nearest_pairs
from fusain.evaluation.evidence import Evidence, ImageSet
from fusain.evaluation.features import MainDirections
from fusain.evaluation.intervals import clopper_pearson, wilson
from fusain.evaluation.metric import Metric
from fusain.evaluation.metrics import copies, diversity
from fusain.worlds.sprites import CLASSES, world


@pytest.fixture(scope="module")
def evidence():
    """Fresh drawings in place of generated ones; the judge knows the truth of no image but says spell for all."""
    drawn, fresh = world(3_000, seed=0), world(300, seed=7, balanced=True)
    training = ImageSet(drawn.images[400:], drawn.labels[400:])
    held_out = ImageSet(drawn.images[:400], drawn.labels[:400])
    spell = np.eye(len(CLASSES), dtype=np.float32)[[CLASSES.index("spell")]]
    features = MainDirections.of(training.images)
    generated = ImageSet(fresh.images, fresh.labels)
    return Evidence(generated, held_out, training, CLASSES, lambda images: spell.repeat(len(images), 0), features)


def generated(evidence, images):
    return replace(evidence, generated=ImageSet(images, evidence.generated.labels))


def test_wilson():
    """The example of Newcombe (1998): 81 of 263."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_clopper_pearson():
    assert clopper_pearson(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert clopper_pearson(0, 100) == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)))
    assert clopper_pearson(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))


def test_vendi_closed_forms():
    assert diversity.vendi(np.eye(8)) == pytest.approx(8.0)
    assert diversity.vendi(np.ones((8, 8))) == pytest.approx(1.0)
    assert diversity.vendi(np.kron(np.eye(4), np.ones((5, 5)))) == pytest.approx(4.0)
    share = np.asarray([0.75, 0.25])  # two images at similarity 1/2: eigenvalues (1 ± 1/2) / 2
    assert diversity.vendi(np.asarray([[1.0, 0.5], [0.5, 1.0]])) == pytest.approx(
        np.exp(-(share * np.log(share)).sum())
    )


def test_negative_hypergeometric_by_counting_all_orders():
    rank, held_out, drawn = 2, 4, 3
    expected = np.zeros(drawn + 1)
    for places in combinations(range(held_out + drawn), held_out):
        expected[places[rank - 1] - (rank - 1)] += 1
    found = copies.negative_hypergeometric(rank, held_out, drawn)
    assert found == pytest.approx(expected / expected.sum())
    assert found.sum() == pytest.approx(1.0)
    assert (found * np.arange(drawn + 1)).sum() == pytest.approx(drawn * rank / (held_out + 1))


def test_nearest_is_exact_and_sees_mirrors(evidence, monkeypatch):
    references, images = evidence.training.images[:200], evidence.generated.images[:7]
    wide = references.astype(np.float64)
    expected = [
        min(np.sqrt(np.square(side - wide[row]).mean()) for row in range(200) for side in (image, image[:, ::-1]))
        for image in images.astype(np.float64)
    ]
    monkeypatch.setattr(neighbours, "CELLS", 500)
    found = neighbours.nearest(images, references, count=5)
    assert found.distances[:, 0] == pytest.approx(expected, rel=1e-5)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    mirrored = neighbours.nearest(references[3:4, :, ::-1], references, count=5)
    assert (mirrored.rows[0, 0], mirrored.distances[0, 0]) == (3, 0.0)


def test_large_images_are_compared_small():
    dice = np.random.default_rng(0)
    blocks = dice.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    large = blocks.repeat(16, axis=1).repeat(16, axis=2)
    assert neighbours.nearest(large[2:3], large, count=4).distances[0, 0] == 0.0


def test_main_directions_keep_distances():
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    features = MainDirections.of(images, count=48)(images)
    pixels = images.reshape(40, -1) / 255
    assert np.linalg.norm(features[0] - features[1]) == pytest.approx(np.linalg.norm(pixels[0] - pixels[1]), rel=1e-4)


def test_class_accuracy_counts(evidence):
    found = judge(evidence)["class_accuracy"]
    assert (found.value, found.count) == (0.2, 300)
    assert (found.low, found.high) == wilson(60, 300)
    assert found.parts["spell"].value == 1.0
    assert found.parts["food"].value == 0.0
    assert found.reference == pytest.approx((evidence.held_out.labels == CLASSES.index("spell")).mean())


def test_identical_sets_have_diversity_one(evidence):
    found = judge(replace(evidence, generated=evidence.held_out))["diversity"]
    assert found.value == pytest.approx(1.0, abs=1e-9)
    assert found.low <= 1.0 <= found.high


def test_fresh_drawings_are_diverse_and_no_copies(evidence):
    judgement = judge(evidence)
    assert judgement["diversity"].value > 0.85
    assert judgement["copies"].facts["p_value"] > 0.05
    assert judgement["copies"].value < 2 * judgement["copies"].reference


@pytest.mark.parametrize("kept", [1, 5])
def test_collapsed_sets_have_low_diversity(evidence, kept):
    labels = evidence.generated.labels
    rows = [np.flatnonzero(labels == label)[place % kept] for place, label in enumerate(labels)]
    assert judge(generated(evidence, evidence.generated.images[rows]))["diversity"].value < 0.1 * kept + 0.1


def test_noise_is_not_diverse(evidence):
    noise = np.random.default_rng(0).integers(0, 256, evidence.generated.images.shape, dtype=np.uint8)
    assert judge(generated(evidence, noise))["diversity"].value < 0.3


@pytest.mark.parametrize("noise", [0, 5])
def test_a_model_that_copies_is_caught(evidence, noise):
    """One image in four is a training image of its class, with a little noise."""
    dice = np.random.default_rng(1)
    images = evidence.generated.images.astype(np.float64)
    for row in range(0, len(images), 4):
        same = np.flatnonzero(evidence.training.labels == evidence.generated.labels[row])
        images[row] = evidence.training.images[dice.choice(same)] + dice.normal(0, noise, images[row].shape)
    found = judge(generated(evidence, images.round().clip(0, 255).astype(np.uint8)))["copies"]
    assert found.facts["p_value"] < copies.SIGNIFICANT
    assert found.value > 0.2
    assert found.facts["exact"] == (75 if noise == 0 else 0)
    assert "repeats training images" in found.sentence


def test_copies_of_repeated_images_are_caught(evidence):
    """The ratio of the two nearest distances misses these; that to the fifty nearest does not."""
    training = evidence.training
    twice = ImageSet(np.concatenate([training.images] * 2), np.concatenate([training.labels] * 2))
    copied = ImageSet(training.images[:200], training.labels[:200])
    found = judge(replace(evidence, generated=copied, training=twice))["copies"]
    assert found.value == 1.0
    assert found.facts["exact"] == 200


def test_blurred_images_are_no_copies(evidence):
    """Low variance brings images nearer to all training images, not to one of them."""
    images = evidence.generated.images.astype(np.float64)
    soft = (0.5 * images + 0.5 * images.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
    assert judge(generated(evidence, soft))["copies"].facts["p_value"] > 0.05


def test_chance_finds_copies_rarely():
    """Under exchangeability the test is wrong in at most about one case in twenty."""
    dice, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        part = copies.stratum(dice.random(60).astype(np.float32), dice.random(80).astype(np.float32))
        wrong += float(part.chances[part.flagged :].sum()) < 0.05
    assert wrong / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_pairs_name_the_nearest(evidence):
    copied = evidence.training.images[:3].copy()
    copied[1] = copied[1][:, ::-1]
    pairs = nearest_pairs(replace(evidence, generated=ImageSet(copied)), [0, 1])
    assert [pair.training for pair in pairs] == [0, 1]
    assert [pair.distance for pair in pairs] == [0.0, 0.0]
    assert not pairs[0].is_mirrored


def test_metrics_that_lack_something_are_left_out(evidence):
    judgement = judge(Evidence(evidence.generated, training=evidence.training))
    assert judgement.results == {}
    assert judgement.left_out["copies"] == ("held_out",)
    assert judgement.left_out["class_accuracy"] == ("classify", "labels")


def test_features_are_computed_once(evidence):
    asked = []

    def features(images):
        asked.append(len(images))
        return evidence.features(images)

    once = replace(evidence, features=features)
    judge(once)
    judge(once)
    assert sorted(asked) == [300, 400]


def test_all_metrics_are_found_and_say_their_limits():
    assert list(evaluator.METRICS) == ["class_accuracy", "copies", "diversity"]
    for metric in evaluator.METRICS.values():
        assert metric.title
        assert metric.cannot_say.endswith(".")


def test_a_metric_is_added_as_one_file(tmp_path, monkeypatch, evidence):
    package = tmp_path / "more_metrics"
    package.mkdir()
    (package / "__init__.py").write_text('"""Metrics from elsewhere."""\n')
    (package / "brightness.py").write_text(
        "from fusain.evaluation.metric import Measurement, Metric\n\n\n"
        "class Brightness(Metric):\n"
        "    kind, title, unit, needs = 'brightness', 'Brightness', 'ratio', frozenset({'generated'})\n"
        "    cannot_say = 'Whether it is pretty.'\n\n"
        "    def measure(self, evidence):\n"
        "        mean = float(evidence.generated.images.mean() / 255)\n"
        "        return Measurement(mean, mean, mean, len(evidence.generated), 'It is bright.')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = plugins.find(importlib.import_module("more_metrics"), Metric)
    judgement = judge(evidence, found)
    assert judgement["brightness"].value == pytest.approx(evidence.generated.images.mean() / 255)
    for name in [name for name in sys.modules if name.startswith("more_metrics")]:
        del sys.modules[name]
