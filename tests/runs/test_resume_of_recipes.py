"""Every recipe that the package carries is stopped, goes on, and ends in the bits of the run that was left alone."""

from pathlib import Path
from typing import Any

import pytest

from fusain.runs import actions
from fusain.settings import recipes
from tests import record
from tests.runs.training import assert_equal_runs, kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn worlds and tiny bases, which all recipes of a family share."""
    return tmp_path_factory.mktemp("recipes")


def test_none_is_left_out() -> None:
    """One more recipe is one more test; that it is here is seen."""
    assert len(recipes.names()) == 16


@pytest.mark.parametrize("recipe", recipes.names())
def test_a_stopped_recipe_goes_on_to_the_same_bits(recipe: str, folder: Path, tmp_path: Path) -> None:
    """Weights, what the optimizer remembers, the average, and every loss; in a batch of two, with its own settings."""
    source, overrides = record.small(recipe, folder)
    few = {"train.batch_size": "2", "checkpoint.every_steps": "2", "runs_folder": str(tmp_path)}

    def train(name: str, stop_after: int = 0) -> actions.TrainResult:
        def stop(event: dict[str, Any]) -> None:
            if event["kind"] == "step" and event["step"] == stop_after:
                (tmp_path / name / "stop").touch()

        own = overrides | few | {"train.steps": "4"}
        return actions.train(source, name=name, overrides=list(own.items()), report=stop)

    whole = train("whole").folder
    assert train("stopped", stop_after=2).step == 2
    stopped = train("stopped").folder
    assert [row["step"] for row in kinds(stopped, "start")] == [0, 2]
    assert_equal_runs(whole, stopped)
