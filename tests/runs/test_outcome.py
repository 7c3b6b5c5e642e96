"""A run keeps what was planned for it and says at the end how it was, after stops and at other lengths too."""

import json
from pathlib import Path
from typing import Any

import pytest

from fusain.cli import main as command
from fusain.cli.progress import Pace
from fusain.runs import assembly, outcome, planning
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
    """At another length, with other distances between samples."""
    planned = plan(settings, runs, {"train.steps": 100, "samples.every_steps": 50})
    result = train_here(settings, "run", runs, SHORT | {"samples.every_steps": 6})
    kept = read_json(runs / "run" / "foreseen.json")
    assert planned.course is not None
    assert {part: times for part, (times, _) in planned.course.items()} == {
        "step": 100,
        "held_out": 18,
        "samples": 2,
        "checkpoint": 25,
    }
    assert all(seconds > 0 for _, seconds in planned.course.values())
    assert kept["seconds_each"]["step"] == planned.seconds_per_step
    assert kept["memory"] == planned.memory_peak
    told = result.as_json()["outcome"]
    assert told == outcome.of(RunFolder(runs / "run")).as_json()
    assert (told["steps"], told["memory_of"]) == (12, "process")
    assert {part: facts.get("times") for part, facts in told["parts"].items()} == {
        "step": 12,
        "held_out": 3,
        "samples": 2,
        "checkpoint": 3,
        "rest": None,
    }
    each, times = kept["seconds_each"], {"step": 12, "held_out": 3, "samples": 2, "checkpoint": 3}
    whole = sum(times[part] * seconds for part, seconds in each.items()) + sum(kept["seconds_at_first"].values())
    assert told["seconds_foreseen"] == pytest.approx(whole)
    assert told["seconds_compared"] == told["seconds"]
    steps = sum(row["seconds"] for row in kinds(runs / "run", "step"))
    assert told["parts"]["step"]["seconds"] == pytest.approx(steps, abs=1e-3)
    assert told["seconds"] == pytest.approx(lasted(runs / "run"), abs=0.1)
    assert told["memory_ratio"] == kinds(runs / "run", "took")[0]["memory"] / (planned.memory_peak or 0)


def lasted(run: Path) -> float:
    """From the start of the loop to its end, by the clock."""
    (start,), (done,) = kinds(run, "start"), kinds(run, "done")
    return float(done["time"] - start["time"])


@pytest.mark.parametrize("changes", [{"samples.steps": 3}, {"samples.count": 2}])
def test_samples_that_are_drawn_in_another_way_are_not_foreseen(
    settings: Path, runs: Path, changes: dict[str, Any]
) -> None:
    plan(settings, runs, {"samples.every_steps": 6})
    result = train_here(settings, "run", runs, SHORT | {"samples.every_steps": 6, **changes})
    assert set(read_json(runs / "run" / "foreseen.json")["seconds_each"]) == {"step", "held_out", "checkpoint"}
    assert result.outcome.not_foreseen == ["samples"]
    assert result.outcome.seconds_compared < result.outcome.seconds


def test_samples_that_cannot_be_drawn_are_told_and_not_foreseen(
    settings: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no sampler at hand")

    monkeypatch.setattr(assembly, "draw_into", failing)
    planned = plan(settings, runs, {"samples.every_steps": 6})
    told = "W-SAMPLE-001 No samples were drawn (RuntimeError: no sampler at hand); training goes on. (samples)"
    assert told in planned.notices
    assert planned.course is not None
    assert set(planned.course) == {"step", "held_out", "checkpoint"}


def test_a_plan_leaves_nothing_where_the_runs_will_be(settings: Path, runs: Path) -> None:
    before = sorted(runs.iterdir())
    plan(settings, runs, {"samples.every_steps": 6})
    assert sorted(runs.iterdir()) == before


def test_the_time_that_is_left_knows_of_samples_before_the_first_ones(settings: Path, runs: Path) -> None:
    plan(settings, runs, {"samples.every_steps": 6})
    heard: list[dict[str, Any]] = []
    train_here(settings, "run", runs, SHORT | {"samples.every_steps": 6}, report=heard.append)
    pace = Pace()
    for event in heard:
        if event["kind"] == "held_out" and event["step"] == 0:
            break
        pace.take(event)
    assert pace.to_come == {"step": 12, "held_out": 3, "samples": 2, "checkpoint": 3}
    assert pace.foreseen == read_json(runs / "run" / "foreseen.json")["seconds_each"]


def test_a_run_that_is_gone_on_with_keeps_its_plan_and_counts_all_its_steps(settings: Path, runs: Path) -> None:
    first = plan(settings, runs)
    train_here(settings, "run", runs, SHORT | {"train.steps": 8})
    plan(settings, runs)
    result = train_here(settings, "run", runs, SHORT)
    assert read_json(runs / "run" / "foreseen.json")["seconds_each"]["step"] == first.seconds_per_step
    assert result.outcome.steps == 12
    assert [row["holder"] for row in kinds(runs / "run", "took")] == ["process", "process"]
    assert result.outcome.memory == max(row["memory"] for row in kinds(runs / "run", "took"))


@pytest.mark.parametrize("changes", [{"train.batch_size": 8}, {"family.size": 16}, {"engine.threads": 2}])
def test_a_plan_of_other_settings_is_not_of_this_run(settings: Path, runs: Path, changes: dict[str, Any]) -> None:
    plan(settings, runs, changes)
    result = train_here(settings, "run", runs, SHORT)
    assert not (runs / "run" / "foreseen.json").exists()
    assert result.outcome.foreseen is None


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
    assert all("foreseen" in line for line in lines)
    heard, report = capsys.readouterr(), runs / "run" / "report.html"
    assert heard.out == f"{runs / 'run'}\n"
    assert heard.err.splitlines()[-len(lines) - 1 :] == [*(f"{line}." for line in lines), f"Report: {report}"]
    with pytest.raises(SystemExit):
        command.main(["runs", "show", str(runs / "run"), "--format", "json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"] == outcome.of(RunFolder(runs / "run")).as_json()
    assert shown["report"] == str(report)
    with pytest.raises(SystemExit):
        command.main(["runs", "show", str(runs / "run")])
    words = [line[0].lower() + line[1:] for line in lines]
    assert [f"report: {report}", *words] == capsys.readouterr().out.splitlines()[4 : 5 + len(lines)]
