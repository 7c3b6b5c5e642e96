"""Each training ends with a report of its run, in one file; what goes wrong with it costs no run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusain.evaluation import report as reports
from fusain.generation import gallery
from fusain.generation.generator import Drawn, Wanted
from fusain.messages.quantities import precise, size
from fusain.runs import outcome, planning, run_report
from fusain.runs.folder import RunFolder
from tests.runs.faults import SHORT, full_disk, warnings
from tests.runs.training import as_overrides, kinds, train_here

DRAWING = SHORT | {"samples.every_steps": 6}


@pytest.fixture(autouse=True)
def no_plans_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))


def text_of(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_a_run_that_was_planned_is_held_against_its_plan(settings: Path, runs: Path) -> None:
    planned = planning.plan(settings, overrides=as_overrides({"runs_folder": str(runs), **DRAWING}))
    result = train_here(settings, "run", runs, DRAWING)
    assert result.report == runs / "run" / "report.html"
    assert result.as_json()["report"] == str(result.report)
    found, text = outcome.of(RunFolder(runs / "run")), text_of(runs / "run")
    assert planned.memory_peak is not None
    assert found.memory is not None
    real = (f"{precise(found.seconds)} for 12 steps", f"{size(found.memory)} of the whole process")
    plan = (f"{precise(found.seconds_foreseen or 0)} foreseen by the plan", f"{size(planned.memory_peak)} foreseen by")
    for words in (*real, *plan, "How it learnt", "How they came to be", "train.steps", "Trained for 12 steps"):
        assert words in text
    drawn = list((runs / "run" / "samples").glob("step-*/[0-9]*.png"))
    last = list((runs / "run" / "samples" / "step-00000012").glob("[0-9]*.png"))
    assert text.count("<img") == len(drawn) + len(last)


def test_a_run_without_a_plan_says_nothing_of_one(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT)
    text = text_of(runs / "run")
    assert "for 12 steps" in text
    assert "foreseen" not in text
    assert "Nobody chose them" not in text, "nothing was drawn"


def test_a_run_that_was_stopped_has_none_before_its_end(settings: Path, runs: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 5:
            (runs / "run" / "stop").touch()

    stopped = train_here(settings, "run", runs, SHORT, report=stop)
    assert (stopped.stopped, stopped.report) == ("asked", None)
    assert not (runs / "run" / "report.html").exists()
    assert train_here(settings, "run", runs, SHORT).report == runs / "run" / "report.html"
    assert "Trained for 12 steps" in text_of(runs / "run")


def test_one_that_stands_already_stays_until_more_is_learnt(settings: Path, runs: Path) -> None:
    """It may hold what nobody would measure again."""
    train_here(settings, "run", runs, SHORT)
    (runs / "run" / "report.html").write_text("judged")
    assert train_here(settings, "run", runs, SHORT).report == runs / "run" / "report.html"
    assert text_of(runs / "run") == "judged"
    train_here(settings, "run", runs, SHORT | {"train.steps": 14})
    assert "Trained for 14 steps" in text_of(runs / "run")


def test_warnings_are_in_it(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT | {"samples.eta": 0.5, "samples.sampler": "unipc"})
    (row,) = (one for one in kinds(runs / "run", "warning") if "samples.eta" in one["text"])
    assert "What it warned of" in text_of(runs / "run")
    assert row["code"] in text_of(runs / "run")


@pytest.mark.parametrize("fault", [full_disk(), ValueError("no such colour")])
def test_a_fault_costs_the_report_and_not_the_run(
    settings: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(reports, "write", failing)
        result = train_here(settings, "run", runs, SHORT)
    assert (result.step, result.stopped, result.report) == (12, None, None)
    report = runs / "run" / "report.html"
    words = "[Errno 28] No space left on device" if isinstance(fault, OSError) else "ValueError: no such colour"
    assert warnings(runs / "run")[-1] == (
        "W-STORE-004",
        f"W-STORE-004 The report could not be written: {words}. ({report}) "
        "The run is whole. Remove what is in the way, and give the same command again.",
    )
    assert train_here(settings, "run", runs, SHORT).report == report
    assert report.exists()


def test_a_run_that_set_no_images_aside_says_what_its_curve_cannot(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT | {"data.held_out": "none"})
    told = text_of(runs / "run")
    assert "No images were set aside, so this curve also falls for a model that learns by heart." in told
    assert "set aside before it began" not in told


def test_of_many_samples_a_few_are_shown(tmp_path: Path) -> None:
    """Steps that are evenly apart, the first and the last among them, and a few images of some classes."""
    run = RunFolder(tmp_path)
    for step in range(10, 310, 10):
        folder = run.samples / f"step-{step:08d}"
        folder.mkdir(parents=True)
        for number in range(70):
            name = f"class {number // 5:02d}"
            path = folder / f"{number:05d}-{gallery.slug(name)}.png"
            if step == 10:
                gallery.write_png(Drawn(Wanted(number, {name: 1.0}), np.zeros((4, 4, 3), np.uint8)), path, {})
            else:
                shutil.copyfile(run.samples / "step-00000010" / path.name, path)
    (run.samples / "step-00000010" / "sheet.png").write_bytes(b"no image")
    (run.samples / "step-00000400").mkdir()
    stages = run_report._stages(run)
    assert [stage.step for stage in stages] == [10, 50, 90, 130, 180, 220, 260, 300]
    assert [list(stage.rows) for stage in stages] == [[f"class {number:02d}" for number in range(12)]] * 8
    assert {len(row) for stage in stages for row in stage.rows.values()} == {4}
