"""The demo in full: that it learns what the README says it learns, within a budget in steps."""

from __future__ import annotations

import pytest

from fusain.evaluation.metrics.copies import SIGNIFICANT
from fusain.runs import demo

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
