"""The demo in full: that it learns what the README says it learns, within a budget in steps."""

from __future__ import annotations

import numpy as np
import pytest

from fusain.evaluation.metrics.copies import SIGNIFICANT
from fusain.runs import demo, demo_character
from fusain.worlds.caricatures import ATTRIBUTES
from tests.prove import subjects

pytestmark = pytest.mark.prove


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return demo.demo(tmp_path_factory.mktemp("demo"))


def test_the_classes_are_learnt(result):
    assert result.images == 1_000
    assert result.class_accuracy >= 0.95
    assert min(result.per_class.values()) >= 0.90


def test_the_judge_of_the_classes_can_judge(result):
    """On drawings that neither it nor the model has seen."""
    assert result.judgement["class_accuracy"].reference >= 0.98


def test_the_images_are_varied(result):
    """By mean pairwise distance; the sterner Vendi score stands in the report beside it."""
    assert result.mean_distance >= 0.8


def test_near_copies_are_no_more_frequent_than_among_held_out_drawings(result):
    assert result.judgement["copies"].facts["p_value"] >= SIGNIFICANT


def test_the_character_is_learnt(result):
    """By the word alone: the mean share of her features, which the base, that never read the word, meets by chance."""
    print(f"the character: {result.taught.before:.2f} before, {result.taught.after:.2f} after")
    assert result.taught.before <= 0.3
    assert result.taught.after >= 0.8


def test_the_character_goes_where_no_drawing_showed_her(result, judge):
    """With a crown and on a ground that her drawings do not have, and still with her own features."""
    prompt = demo_character.PROMPTS[1]
    (title,) = [title for title in result.taught.comparison.rows if title.startswith("After ") and prompt in title]
    pictures = np.stack(result.taught.comparison.rows[title])
    found, wanted = judge.read(pictures), {"hat": "crown", "background": "green"}
    obeyed = {name: float((found[name] == ATTRIBUTES[name].index(value)).mean()) for name, value in wanted.items()}
    features = float(np.mean(list(subjects.rates(pictures, demo_character.NAME, judge).values())))
    print(f"with a crown, on green: {features:.2f} of her features, as asked {obeyed}")
    assert len(pictures) == demo_character.DRAWN
    assert features >= 0.8
    assert min(obeyed.values()) >= 0.6, obeyed
