"""A run keeps what was planned for it and says at the end how it was, after stops and at other lengths too."""

import json
from pathlib import Path
from typing import Any

import pytest

from fusain.cli import main as command
from fusain.runs import outcome, planning
from fusain.runs.folder import RunFolder, read_json
from tests.runs.faults import SHORT
from tests.runs.training import as_overrides, kinds, train_here


@pytest.fixture(autouse=True)
def no_plans_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))


def plan(settings: Path, runs: Path, changes: dict[str, Any] | None = None, **more: Any) -> planning.RunPlan:
    overrides = as_overrides({"runs_folder": str(runs), **SHORT, **(changes or {})})
    return planning.plan(settings, overrides=overrides, **more)


def test_what_was_planned_is_kept_with_the_run_and_held_against_what_it_took(settings: Path, runs: Path) -> None:
    planned = plan(settings, runs, {"train.steps": 100, "samples.every_steps": 0})
    result = train_here(settings, "run", runs, SHORT | {"samples.every_steps": 6})
    kept = read_json(runs / "run" / "foreseen.json")
    assert planned.seconds_range is not None
    assert kept["seconds_per_step"] == planned.seconds_per_step
    assert kept["seconds_per_step_range"] == pytest.approx([end / 100 for end in planned.seconds_range])
    assert kept["memory"] == planned.memory_peak
    told = result.as_json()["outcome"]
    assert told == outcome.of(RunFolder(runs / "run")).as_json()
    assert (told["steps"], told["foreseen_by"], told["memory_of"]) == (12, "the plan", "process")
    assert told["seconds_foreseen"] == pytest.approx(12 * (planned.seconds_per_step or 0))
    assert told["seconds"] == pytest.approx(sum(row["seconds"] for row in kinds(runs / "run", "step")), abs=1e-3)
    assert told["memory_ratio"] == kinds(runs / "run", "took")[0]["memory"] / (planned.memory_peak or 0)


def test_a_run_that_is_gone_on_with_keeps_its_plan_and_counts_all_its_steps(settings: Path, runs: Path) -> None:
    first = plan(settings, runs)
    train_here(settings, "run", runs, SHORT | {"train.steps": 8})
    plan(settings, runs)
    result = train_here(settings, "run", runs, SHORT)
    assert read_json(runs / "run" / "foreseen.json")["seconds_per_step"] == first.seconds_per_step
    assert result.outcome.steps == 12
    assert [row["holder"] for row in kinds(runs / "run", "took")] == ["process", "process"]
    assert result.outcome.memory == max(row["memory"] for row in kinds(runs / "run", "took"))


@pytest.mark.parametrize("changes", [{"train.batch_size": 8}, {"family.size": 16}, {"engine.threads": 2}])
def test_a_plan_of_other_settings_is_not_of_this_run(settings: Path, runs: Path, changes: dict[str, Any]) -> None:
    plan(settings, runs, changes)
    result = train_here(settings, "run", runs, SHORT)
    assert not (runs / "run" / "foreseen.json").exists()
    assert result.as_json()["outcome"]["foreseen_by"] == "its first 5 steps"
    assert result.outcome.memory_foreseen is None


def test_a_plan_that_measured_nothing_is_not_kept(settings: Path, runs: Path, tmp_path: Path) -> None:
    plan(settings, runs, measure=False)
    assert not (tmp_path / "cache" / "plans").exists()


def test_a_plan_goes_ahead_where_the_cache_cannot_be_written(settings: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "plans").write_text("in the way")
    assert plan(settings, runs).seconds is not None
    train_here(settings, "run", runs, SHORT)
    assert not (runs / "run" / "foreseen.json").exists()


def test_the_command_says_it_at_the_end_and_runs_show_says_it_again(
    settings: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(settings, runs)
    words = [f"--{key}={value}" for key, value in as_overrides({"runs_folder": str(runs), **SHORT})]
    with pytest.raises(SystemExit) as left:
        command.main(["train", str(settings), "--name", "run", *words])
    assert left.value.code == 0
    lines = [f"{title}: {text}" for title, text in outcome.of(RunFolder(runs / "run")).lines()]
    assert len(lines) == 2
    assert all("foreseen by the plan" in line for line in lines)
    heard = capsys.readouterr()
    assert heard.out == f"{runs / 'run'}\n"
    assert heard.err.splitlines()[-2:] == [f"{line}." for line in lines]
    with pytest.raises(SystemExit):
        command.main(["runs", "show", str(runs / "run"), "--format", "json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"] == outcome.of(RunFolder(runs / "run")).as_json()
    with pytest.raises(SystemExit):
        command.main(["runs", "show", str(runs / "run")])
    assert [line[0].lower() + line[1:] for line in lines] == capsys.readouterr().out.splitlines()[4:6]
