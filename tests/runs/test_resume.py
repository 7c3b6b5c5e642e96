"""A run that was stopped, killed or extended ends in the same bits as one that was left alone."""

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.runs import training
from tests.runs.training import assert_equal_runs, kill, kinds, start_training, train_here, wait_for, write_settings

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout and average": {"family.dropout": 0.3, "train.ema_decay": 0.99},
    "accumulation": {"train.accumulation": 2},
    "bf16": {"engine.precision": "bf16"},
    "workers": {"data.workers": 2, "data.memory_gb": 0, "data.crop": "random", "data.flip": True},
    "freeze at an epoch": {"method.condition_warmup": 0.5},
    "freeze by itself": {"method.condition_warmup": "auto", "train.held_out_every_steps": 2},
    "adam": {"train.optimizer": "adam"},
    "lion": {"train.optimizer": "lion", "train.learning_rate": 1e-4},
    "muon": {"train.optimizer": "muon"},
    "adafactor": {"train.optimizer": "adafactor"},
    "came": {"train.optimizer": "came"},
    "prodigy": {"train.optimizer": "prodigy", "train.learning_rate": 1.0, "train.schedule": "rex"},
    "schedule-free": {"train.optimizer": "schedule_free_adamw", "train.warmup_steps": 3},
    "8 bit": {"train.optimizer": "adamw_8bit", "train.schedule": "warmup_stable_decay"},
    "balanced": {"data.balance": "complement", "method.condition_dropout": 0.5},
}


PLAIN: dict[str, Any] = {"data.memory_gb": 0, "family.dropout": 0.2}


@pytest.fixture(scope="module")
def whole(sprites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty steps that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train_here(write_settings(folder, sprites), "run", folder)
    return folder / "run"


@pytest.fixture(scope="module")
def plain(sprites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on images that are read when they are drawn, with dropout."""
    folder = tmp_path_factory.mktemp("plain")
    train_here(write_settings(folder, sprites), "run", folder, PLAIN)
    return folder / "run"


def has_checkpoint(count: int) -> Any:
    return lambda rows: sum(row["kind"] == "checkpoint" for row in rows) >= count


def kill_and_resume(settings: Path, runs: Path, changes: dict[str, Any], *, seed: int) -> None:
    """SIGKILL at a random moment after the first checkpoint, then the same command again."""
    train_here(settings, "undisturbed", runs, changes)
    chance = random.Random(seed)
    process = start_training(settings, "killed", runs, changes)
    wait_for(runs / "killed", has_checkpoint(chance.randint(1, 4)), process)
    process.join(chance.uniform(0, 0.05))
    assert kill(process) in (-signal.SIGKILL, 0)
    train_here(settings, "killed", runs, changes)
    assert any(row["step"] > 0 for row in kinds(runs / "killed", "start")), "the kill came before any checkpoint"
    assert_equal_runs(runs / "undisturbed", runs / "killed")


@pytest.mark.parametrize("recipe", ["dropout and average", "workers", "freeze at an epoch"])
def test_a_kill_changes_no_bit(settings: Path, runs: Path, recipe: str) -> None:
    kill_and_resume(settings, runs, RECIPES[recipe], seed=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_at_a_step_with_a_checkpoint(
    settings: Path, runs: Path, whole: Path, number: signal.Signals
) -> None:
    process = start_training(settings, "stopped", runs)
    wait_for(runs / "stopped", lambda rows: any(row["kind"] == "step" for row in rows), process)
    assert kill(process, number) == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    (stopped,) = kinds(runs / "stopped", "stopped")
    assert kinds(runs / "stopped", "checkpoint")[-1]["step"] == stopped["step"] < 30
    train_here(settings, "stopped", runs)
    assert_equal_runs(whole, runs / "stopped")


def test_a_stop_file_stops_as_the_page_does(settings: Path, runs: Path) -> None:
    process = start_training(settings, "asked", runs)
    wait_for(runs / "asked", lambda rows: any(row["kind"] == "step" for row in rows), process)
    (runs / "asked" / "stop").touch()
    process.join(300)
    assert process.exitcode == 75
    assert kinds(runs / "asked", "stopped")[0]["reason"] == "asked"


@pytest.mark.parametrize(
    "changes",
    [{"data.workers": 1}, {"data.workers": 2}, {"samples.every_steps": 3}, {"checkpoint.every_steps": 7}],
    ids=["one worker", "two workers", "samples often", "other checkpoints"],
)
def test_what_does_not_belong_to_the_result_changes_no_bit(
    settings: Path, runs: Path, plain: Path, changes: dict[str, Any]
) -> None:
    train_here(settings, "other", runs, PLAIN | changes)
    assert_equal_runs(plain, runs / "other")


def test_accumulation_sees_the_draws_of_the_large_batch(settings: Path, runs: Path) -> None:
    train_here(settings, "whole", runs, {"train.batch_size": 8, "family.dropout": 0, "family.class_dropout": 0})
    parts = {"train.batch_size": 4, "train.accumulation": 2, "family.dropout": 0, "family.class_dropout": 0}
    train_here(settings, "parts", runs, parts)
    whole, split = training.losses(runs / "whole"), training.losses(runs / "parts")
    assert whole.keys() == split.keys()
    for step, loss in whole.items():
        assert split[step] == pytest.approx(loss, rel=1e-3)


def test_a_longer_run_extends_a_finished_one(settings: Path, runs: Path, whole: Path) -> None:
    assert train_here(settings, "extended", runs, {"train.steps": 20}).step == 20
    assert train_here(settings, "extended", runs, {"train.steps": 30}).step == 30
    assert_equal_runs(whole, runs / "extended")


def test_rows_of_undone_steps_are_marked(settings: Path, runs: Path) -> None:
    process = start_training(settings, "killed", runs, {"checkpoint.every_steps": 10})
    wait_for(runs / "killed", lambda rows: any(row.get("step", 0) >= 13 for row in rows), process)
    kill(process)
    train_here(settings, "killed", runs, {"checkpoint.every_steps": 10})
    undone = [row for row in kinds(runs / "killed", "step") if row.get("superseded")]
    assert {row["step"] for row in undone} >= {11, 12}
    assert sorted(training.losses(runs / "killed")) == list(range(1, 31))


def test_another_thread_count_is_said(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, {"train.steps": 5, "engine.threads": 1})
    train_here(settings, "run", runs, {"train.steps": 8, "engine.threads": 2})
    notes = [row["text"] for row in kinds(runs / "run", "note")]
    assert "Resumed with 2 threads where it was 1: no longer equal to the last bit." in notes
