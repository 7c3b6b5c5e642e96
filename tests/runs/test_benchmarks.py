"""Benchmarks at their smallest size: they run and print their tables. What they measure is not judged here."""

import importlib.util
import re
from pathlib import Path

import pytest
from benchmarks import drawing, lora, predictions, trackers

from fusain.data.dataset import check_batch
from fusain.runs import assembly
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.worlds import sprites


@pytest.fixture(autouse=True)
def own_cache_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", "")  # put back afterwards: a benchmark sets its own


def rows(capsys: pytest.CaptureFixture[str], head: str) -> list[str]:
    title, line, *found = capsys.readouterr().out.splitlines()
    assert title == head
    assert line.count("|") == title.count("|")
    return found


def test_drawing(capsys: pytest.CaptureFixture[str]) -> None:
    drawing.main(["--count", "300"])
    (row,) = rows(capsys, drawing.HEAD)
    assert re.fullmatch(r"\| 300 \| \d+ \| [\d.]+ \| [\d.]+ ms \| 15 s \|", row), row


def test_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    predictions.main(["--small"])
    (row,) = rows(capsys, predictions.HEAD)
    verdict = r"([\d.]+) \| (ok|too far)"
    seconds, memory = rf"([\d.]+) s \| ([\d.]+) s \| {verdict}", rf"(\d+) MB \| (\d+) MB \| {verdict}"
    found = re.fullmatch(rf"\| unconditional \| 8 \| {seconds} \| {memory} \| \d+ MB \|", row)
    assert found, row
    assert min(float(number) for number in found.groups() if number not in ("ok", "too far")) > 0


@pytest.mark.parametrize(
    ("ratio", "word"), [(0.79, "too far"), (0.81, "ok"), (1.0, "ok"), (1.19, "ok"), (1.21, "too far"), (3.0, "too far")]
)
def test_what_is_near_enough(ratio: float, word: str) -> None:
    assert predictions.judged(ratio, 0.2) == [f"{ratio:.2f}", word]


def test_every_recipe_of_the_predictions_has_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes to find out otherwise: settings that are no more, images without what a recipe asks for."""
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sprites").mkdir()
    sprites.write_arrays(sprites.world(400), tmp_path / "sprites")
    for case in predictions.CASES:
        predictions.prepare(case, tmp_path)
        overrides = list(case.overrides(tmp_path).items())
        settings = assembly.resolved_engine(resolve(RunSettings, recipe=case.recipe, overrides=overrides).settings)
        dataset = assembly.prepare_data(settings, folder=None, report=None)
        check_batch(dataset, batch_size=settings.train.batch_size, accumulation=settings.train.accumulation)


def test_trackers(capsys: pytest.CaptureFixture[str]) -> None:
    """The one that never answers is asked once in all steps; a slow one holds up nobody."""
    trackers.main(["--small"])
    without, never, slow, *working = rows(capsys, trackers.HEAD)
    lost = r"[+-][\d.]+%"
    times = rf"[\d.]+ ms \| [\d.]+ ms \| {lost} \| {lost} to {lost} \| [+-][\d.]+ s \| [\d.]+ s \|"
    network = r"\| small \(bare step below 20 ms\)"
    assert re.fullmatch(rf"{network} \| never answers \| 1 \| {times}", never), never
    assert re.fullmatch(rf"{network} \| 0\.2 s for a row \| [1-9] \| {times}", slow), slow
    assert re.fullmatch(rf"{network} \| none \|  \| {times}", without), without
    names = ["TensorBoard", *(["W&B, offline"] if importlib.util.find_spec("wandb") else [])]
    for name, row in zip(names, working, strict=True):
        assert re.fullmatch(rf"{network} \| {name} \|  \| {times}", row), row


def test_lora(capsys: pytest.CaptureFixture[str]) -> None:
    lora.main(["--small"])
    found = rows(capsys, lora.HEAD)
    for name, row in zip(("lora.safetensors", "lora_kohya.safetensors"), found, strict=True):
        assert re.fullmatch(rf"\| {re.escape(name)} \| [\d.]+ MB \| [\d.]+ s \| [\d.]+ s \| [+-][\d.]+ s \|", row), row
