"""The whole demo at a small size, every door of its folder, and what it says when it cannot go on."""

from __future__ import annotations

import json
import shutil

import pytest

from fusain.errors import DataError, StorageError, UsageError
from fusain.runs import actions, demo, demo_character
from fusain.worlds.sprites import CLASSES

IMAGES, STEPS = 300, 3
FEW = {
    "engine.threads": "1",
    "train.steps": "2",
    "train.batch_size": "4",
    "data.class_images.count": "1",
    "data.class_images.steps": "2",
    "samples.steps": "2",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One demo of a few seconds, with the events that it told."""
    folder, told = tmp_path_factory.mktemp("demo with spaces") / "démo", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        shrink(patch)
        yield run(folder, told.append), folder, told


def shrink(patch):
    patch.setattr(demo, "DRAWN", 20)
    patch.setattr(demo, "READER_IMAGES", 40)
    patch.setattr(demo, "READER_STEPS", 4)
    patch.setattr(demo_character, "DRAWN", 2)


def run(folder, report=None, **changes):
    """One thread: with more, every step waits for whatever else the machine is doing."""
    smaller = [("engine.threads", "1"), ("family.channels", "[8, 8, 8]"), ("samples.count", "1")]
    own = {"images": IMAGES, "steps": STEPS, "overrides": smaller, "of_character": FEW}
    return demo.demo(folder, report=report, **own | changes)


def test_it_leaves_a_report_and_numbers(small):
    result, folder, _ = small
    assert result.run == folder / "runs" / "demo"
    assert result.report == result.run / "report.html"
    assert result.sheet == folder / "sprites-sheet.png"
    assert result.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert result.sheet.stat().st_size > 1_000
    metrics = json.loads((result.run / "metrics.json").read_text())["metrics"]
    assert metrics["class_accuracy"]["value"] == result.class_accuracy
    assert set(result.per_class) == set(CLASSES)
    assert 0 < result.diversity < 2


def test_it_says_what_was_found_in_the_files_of_the_lora(small):
    found = small[0].as_json()["character"]["outcome"]["read_back"]
    assert found["layers"] == found["learnt"] > 0
    row = f"{found['learnt']:,} of {found['learnt']:,} layers in lora.safetensors and lora_kohya.safetensors match"
    report = small[0].report.read_text(encoding="utf-8")
    assert "The character: read back" in report
    assert row in report


def test_its_json_form(small):
    found = json.loads(json.dumps(small[0].as_json()))
    assert {"report", "run", "class_accuracy", "per_class", "diversity", "copies", "seconds"} <= set(found)
    assert (found["images"], found["steps"], found["stopped"]) == (20, STEPS, None)


def test_its_lines_name_numbers_and_places(small):
    text = "\n".join(small[0].lines())
    for words in ("Class accuracy", "side-facing", "Diversity", "Near-copies", str(small[0].report)):
        assert words in text


def test_it_shows_what_is_in_the_data(small):
    notes = "\n".join(event["text"] for event in small[2] if event["kind"] == "note")
    for words in ("side-facing", "'human/cut-off.png' is cut off", "'food/empty.png' is empty", "HTML", "set aside"):
        assert words in notes
    report = small[0].report.read_text(encoding="utf-8")
    assert "Put aside: 3" in report
    assert "food/empty.png" in report


def test_the_report_shows_the_run(small):
    report = small[0].report.read_text(encoding="utf-8")
    assert report.count("<img") > 100
    assert 'class="main"' in report
    took = ("What it took", f"for {STEPS} steps and all between them", "of the whole process at the peak")
    for words in (f"step {STEPS}", "train.steps", "guidance", "What the run “demo” learnt", *took):
        assert words in report
    assert "foreseen" not in report, "a demo plans nothing"


def test_a_second_demo_has_a_run_of_its_own_and_equal_numbers(small, monkeypatch):
    first, folder, _ = small
    sprite = next((folder / "sprites" / "spell").glob("[0-9]*.png"))
    before = sprite.stat().st_mtime_ns
    second = run(folder)
    assert second.run.name == "demo-2"
    assert sprite.stat().st_mtime_ns == before
    assert (second.run / "metrics.json").read_text() == (first.run / "metrics.json").read_text()


def test_a_demo_that_was_stopped_goes_on(small, tmp_path, monkeypatch):
    def stop(event):
        if event["kind"] == "step" and event["step"] == 1:
            (tmp_path / "runs" / "demo" / "stop").touch()

    stopped = run(tmp_path, stop)
    assert (stopped.stopped, stopped.steps, stopped.report) == ("asked", 1, None)
    assert "goes on" in stopped.lines()[0]
    assert stopped.as_json()["class_accuracy"] is None
    again = run(tmp_path)
    assert again.run == stopped.run
    assert (again.steps, again.stopped) == (STEPS, None)
    assert (again.run / "metrics.json").read_text() == (small[0].run / "metrics.json").read_text()


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "sprites").mkdir()
    (tmp_path / "sprites" / "mine.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="E-DEMO-001"):
        run(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["sprites", "mine.png"]


def test_sprites_of_another_size_are_left_alone(small):
    with pytest.raises(UsageError, match=f"E-DEMO-002.* with {IMAGES} images, not 400"):
        run(small[1], images=400)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="E-STORE-004"):
        run(tmp_path / "taken")


def test_a_drawing_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_add_broken_files", fail)
    with pytest.raises(StorageError, match="No space left"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_are_refused_by_the_data(tmp_path):
    with pytest.raises(DataError):
        run(tmp_path, images=10)


def test_a_character_is_taught_and_shown_beside_the_base(small):
    result, folder, _ = small
    assert result.taught is not None
    assert result.taught.run == folder / "runs" / "demo-character"
    assert result.taught.steps == 2
    assert sorted(path.name for path in (folder / "ada").glob("*.png"))[-2:] == ["00007-masklabel.png", "00007.png"]
    assert (result.taught.run / "weights" / "lora.safetensors").is_file()
    assert result.as_json()["character"]["sheet"] == str(folder / "character-sheet.png")
    report = result.report.read_text(encoding="utf-8")
    for words in ("A character that it learnt", "The 8 drawings", "The base, asked for", "After 2 steps"):
        assert words in report
    assert "Character" in "\n".join(result.lines())


def test_the_character_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    shrink(monkeypatch)

    def stop(event):
        if event["kind"] == "step" and (tmp_path / "runs" / "demo-character" / "settings.json").exists():
            (tmp_path / "runs" / "demo-character" / "stop").touch()

    stopped = run(tmp_path, stop)
    assert (stopped.stopped, stopped.report) == ("asked", None)
    again = run(tmp_path)
    assert again.run == stopped.run
    assert again.taught is not None
    assert again.taught.steps == 2


def test_a_folder_of_others_is_no_character(small, tmp_path, monkeypatch):
    shrink(monkeypatch)
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "mine.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="E-DEMO-001"):
        run(tmp_path)
    assert (tmp_path / "ada" / "mine.png").read_bytes() == b"mine"


def test_drawings_without_their_masks_are_not_of_this_demo(small, tmp_path, monkeypatch):
    shrink(monkeypatch)
    shutil.copytree(small[1] / "ada", tmp_path / "ada")
    (tmp_path / "ada" / "00003-masklabel.png").unlink()
    with pytest.raises(UsageError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        f"E-DEMO-001 '{tmp_path / 'ada'}' is not a folder of images that a demo drew.\n"
        f"Where: {tmp_path / 'ada'}\n"
        "Why: The demo deletes nothing and mixes its images with no others.\n"
        "Do: Choose another folder: fusain demo my_demo"
    )


def test_the_run_can_be_opened_and_drawn_from(small):
    opened = actions.open_run(small[0].run)
    assert set(opened.learner.family.facts.classes) == set(CLASSES)
