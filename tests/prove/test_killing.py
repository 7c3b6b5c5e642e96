"""The long loops: twenty kills over every recipe, and a kill at each point of the save protocol."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from fusain.training import checkpoint
from fusain.training.checkpoint import Checkpoints
from tests.runs.conftest import runs, settings, sprites  # noqa: F401 - the same fixtures
from tests.runs.test_resume import RECIPES, kill_and_resume
from tests.runs.training import assert_equal_runs, start_training, train_here

pytestmark = pytest.mark.prove


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_kill_changes_no_bit(settings: Path, runs: Path, recipe: str, seed: int) -> None:  # noqa: F811
    kill_and_resume(settings, runs, RECIPES[recipe], seed=seed)


def die_in_the_third_save(operation: int) -> None:
    """Count what the process does to files below `checkpoints/` from the third save on, and die at one of these."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            return
        if "step-00000015" in str(arguments[0]) or (event != "open" and "step-" in str(arguments[0]) and count):
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(watch)


def test_a_kill_at_each_point_of_a_save_leaves_whole_checkpoints(settings: Path, runs: Path) -> None:  # noqa: F811
    changes = {"checkpoint.keep": 2, "train.steps": 20}
    train_here(settings, "undisturbed", runs, changes)
    points = 0
    for operation in range(60):
        name = f"killed-{operation}"
        process = start_training(settings, name, runs, changes, prepare=die_in_the_third_save, arguments=(operation,))
        process.join(120)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, (runs / f"{name}.stderr").read_text()
        points += 1
        listed = Checkpoints(runs / name / "checkpoints", keep=2).listed()
        assert [checkpoint.read(path).step for path in listed][-2:] in ([5, 10], [10, 15], [15, 20])
        train_here(settings, name, runs, changes)
        assert_equal_runs(runs / "undisturbed", runs / name)
        assert not list((runs / name / "checkpoints").glob(".tmp-*")), "what a killed save left was not cleaned"
    assert points >= 12, "the save has more points than were tried"
