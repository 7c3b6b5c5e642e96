"""Every recipe's first losses are those that were recorded: a change of the mathematics is seen, never guessed."""

import json
from pathlib import Path

import pytest

from fusain.settings import recipes
from tests import record

RECORDED = json.loads(record.FILE.read_text())["losses"]


def test_every_recipe_is_recorded() -> None:
    assert sorted(RECORDED) == record.names()
    assert set(RECORDED) >= set(recipes.names())
    assert len(RECORDED) == 21


@pytest.mark.parametrize("recipe", sorted(RECORDED))
def test_losses_are_the_recorded_ones(recipe: str, tmp_path: Path) -> None:
    assert record.record(recipe, tmp_path) == pytest.approx(RECORDED[recipe], rel=1e-4)
