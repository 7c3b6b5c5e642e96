"""Random choices are functions of (seed, n, what)."""

import numpy as np
import torch

from fusain.data import chance

DRAWS = np.arange(20_000)
KNOWN_KEY = 559756796673242490
KNOWN_ORDER = [1, 3, 0, 2, 5, 4]


def test_uniform_is_flat_and_within_its_range():
    numbers = chance.uniform(0, DRAWS, "crop")
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-square, 19 degrees of freedom, p = 0.0007


def test_choices_do_not_depend_on_what_is_asked_with_them():
    whole = chance.uniform(3, DRAWS, "flip")
    assert np.array_equal(whole[500:510], chance.uniform(3, np.arange(500, 510), "flip"))
    noise = chance.normal(3, DRAWS[:9], "noise", (2, 4))
    assert torch.equal(noise[5:], chance.normal(3, DRAWS[5:9], "noise", (2, 4)))


def test_seeds_draws_and_purposes_are_independent():
    base = chance.uniform(0, DRAWS, "crop")
    others = (chance.uniform(1, DRAWS, "crop"), chance.uniform(0, DRAWS, "flip"), chance.uniform(0, DRAWS + 1, "crop"))
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 4 / np.sqrt(len(DRAWS))


def test_normal_numbers_are_standard():
    noise = chance.normal(0, DRAWS[:200], "noise", (100,))
    assert abs(float(noise.mean())) < 4 / np.sqrt(20_000)
    assert abs(float(noise.std()) - 1) < 4 / np.sqrt(40_000)


def test_every_epoch_has_its_own_order():
    first, second = chance.permutation(0, 0, 50), chance.permutation(0, 1, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, chance.permutation(0, 0, 50))
    assert chance.key(0, 7, "order") != chance.key(0, 8, "order")


def test_known_values_stay():
    """A change here would change every run that was ever started."""
    assert chance.key(1, 2, "noise") == KNOWN_KEY
    assert chance.permutation(1, 0, 6).tolist() == KNOWN_ORDER
