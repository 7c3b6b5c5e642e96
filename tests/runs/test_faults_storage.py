"""Full disks and places that cannot be written (F5-F7, B11): nothing half-written, told before or in time."""

import errno
import json
import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from tests.runs import faults
from tests.runs.faults import SHORT, full_while_saving, may_mount, no_open, refused, steps_saved, warnings
from tests.runs.training import (
    PROCESSES,
    assert_equal_runs,
    kinds,
    losses,
    train_here,
)

FULL = "No space left on device"
TENSORS_FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("trainable.safetensors", TENSORS_FULL),
        ("optimizer.safetensors", TENSORS_FULL),
        ("ema.safetensors", TENSORS_FULL),
        ("state.json", FULL),
        ("MANIFEST.json", FULL),
    ],
)
def test_a_disk_that_is_full_once_costs_one_checkpoint(
    settings: Path, runs: Path, undisturbed: Path, file: str, why: str
) -> None:
    with full_while_saving(8, file):
        train_here(settings, "run", runs, SHORT)
    told = f"The checkpoint could not be written ({why}); training goes on, older checkpoints are untouched."
    assert warnings(runs / "run") == [("W-STORE-001", told)]
    assert steps_saved(runs / "run") == [4, 12]
    assert_equal_runs(undisturbed, runs / "run")


def test_the_second_failure_in_a_row_stops_the_run(settings: Path, runs: Path) -> None:
    with full_while_saving(4, "state.json", how_often=2):
        fault = refused(settings, runs, {"checkpoint.every_steps": 2})
    assert fault.exit_code == 8
    assert str(fault) == (
        "E-STORE-003 The checkpoint of step 6 could not be written: No space left on device.\n"
        f"Where: {runs / 'run' / 'checkpoints'}\n"
        "Why: Training on without a place to save to would lose the work. Older checkpoints are untouched.\n"
        "Do: Make room, then give the same command again."
    )
    assert steps_saved(runs / "run") == [2]
    (failed,) = kinds(runs / "run", "failed")
    assert (failed["step"], failed["code"]) == (6, "E-STORE-003")
    assert train_here(settings, "run", runs, SHORT).step == 12


def test_a_failure_of_the_last_checkpoint_is_no_success(settings: Path, runs: Path) -> None:
    with full_while_saving(12, "state.json"):
        fault = refused(settings, runs)
    assert fault.code == "E-STORE-003"
    assert steps_saved(runs / "run") == [4, 8]


def train_on_a_small_disk(settings: Path, runs: Path) -> None:
    """A real disk of eight megabytes below `checkpoints/`, filled up at step 6 and emptied at step 9."""
    folder = runs / "run" / "checkpoints"
    folder.mkdir(parents=True)
    faults.small_disk(folder, 8_000_000)

    def fill(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 6:
            room = shutil.disk_usage(folder).free
            (folder / "filling").write_bytes(bytes(room))
        if event["kind"] == "step" and event["step"] == 9:
            (folder / "filling").unlink()

    train_here(settings, "run", runs, SHORT, report=fill)
    shutil.copytree(folder, runs / "checkpoints")


@pytest.mark.skipif(not may_mount(), reason="this system lets no test mount a small disk (unshare -Urm)")
def test_a_real_full_disk(settings: Path, runs: Path, undisturbed: Path) -> None:
    process = PROCESSES.Process(target=train_on_a_small_disk, args=(settings, runs))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    ((code, text),) = warnings(runs / "run")
    assert (code, FULL in text) == ("W-STORE-001", True)
    shutil.copytree(runs / "checkpoints", runs / "run" / "checkpoints", dirs_exist_ok=True)
    assert steps_saved(runs / "run") == [4, 12]
    assert_equal_runs(undisturbed, runs / "run")


def test_events_wait_for_room_and_none_is_lost(settings: Path, runs: Path, undisturbed: Path) -> None:
    full = {"now": False}
    told: list[tuple[str, str]] = []

    def listen(event: dict[str, Any]) -> None:
        full["now"] = 4 <= event.get("step", 0 if event["kind"] != "warning" else 4) < 9
        if event["kind"] == "warning" and event["code"].startswith("W-S"):
            told.append((event["code"], event["text"]))

    with no_open(faults.full_disk, lambda path, mode: full["now"] and path.name == "events.jsonl"):
        train_here(settings, "run", runs, SHORT, report=listen)
    assert told == [("W-STORE-002", f"Events cannot be written ({FULL}); they wait in memory.")]
    assert sorted(losses(runs / "run")) == list(range(1, 13))
    assert_equal_runs(undisturbed, runs / "run")


def test_half_a_row_is_taken_back(tmp_path: Path) -> None:
    """A real limit on the size of files, in a process of its own: the write stops in the middle of a row."""
    process = PROCESSES.Process(target=write_events_to_a_limit, args=(tmp_path,))
    process.start()
    process.join(300)
    assert process.exitcode == 0


def write_events_to_a_limit(folder: Path) -> None:
    from fusain.training import events

    log = events.EventLog(folder / "events.jsonl")
    log("note", text="first")
    resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "events.jsonl").stat().st_size + 70, resource.RLIM_INFINITY))
    for number in range(3):
        log("note", text=f"while there is no room {number}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert len((folder / "events.jsonl").read_text().splitlines()) == 1
    log("note", text="last")
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    words = ["first", *(f"while there is no room {number}" for number in range(3)), "last"]
    assert [row["text"] for row in rows if row["kind"] == "note"] == words
    assert [row["code"] for row in rows if row["kind"] == "warning"] == ["W-STORE-002"]


def test_a_sample_that_finds_no_room_costs_the_sample(settings: Path, runs: Path, undisturbed: Path) -> None:
    with no_open(faults.full_disk, lambda path, mode: path.parent.name == "step-00000006" and mode != "r"):
        train_here(settings, "run", runs, SHORT | {"samples.every_steps": 6})
    assert warnings(runs / "run") == [("W-SAMPLE-001", f"No samples were drawn ({told_full(runs)}); training goes on.")]
    assert [row["step"] for row in kinds(runs / "run", "samples")] == [12]
    assert_equal_runs(undisturbed, runs / "run")


def told_full(runs: Path) -> str:
    (image, *_) = sorted((runs / "run" / "samples" / "step-00000012").iterdir())
    return f"[Errno 28] {FULL}: '{runs / 'run' / 'samples' / 'step-00000006' / image.name}'"


def test_a_place_that_cannot_be_written_is_said_before_training(settings: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    fault = refused(settings, tmp_path / "file")
    assert (fault.exit_code, str(fault)) == (8, (
        "E-STORE-004 The folder cannot be written: Not a directory.\n"
        f"Where: {tmp_path / 'file' / 'run'}\n"
        "Do: Choose another place (--runs_folder DIR) or change its permissions."
    ))  # fmt: skip
    for number in (errno.EROFS, errno.EDQUOT):
        no_room = OSError(number, os.strerror(number))
        with no_open(lambda path, error=no_room: error, lambda path, mode: "w" in mode):  # type: ignore[misc]
            fault = refused(settings, runs)
        assert fault.message.what == f"The folder cannot be written: {os.strerror(number)}."
        assert list((runs / "run").iterdir()) == []


def test_a_disk_that_fails_in_the_first_files_is_no_bug(settings: Path, runs: Path) -> None:
    for name in (".settings.json.tmp", ".data.lock.json.tmp"):
        with no_open(faults.full_disk, lambda path, mode, name=name: path.name == name):  # type: ignore[misc]
            fault = refused(settings, runs)
        assert fault.code == "E-STORE-004"
        assert fault.where == str(runs / "run" / name[1:].removesuffix(".tmp"))
    assert train_here(settings, "run", runs, SHORT).step == 12


def test_too_little_disk_is_said_before_training(settings: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 5_000, 5_000))
    fault = refused(settings, runs)
    assert (fault.exit_code, str(fault)) == (8, (
        "E-STORE-005 The run would write 4.34 MB, but only 5 KB are free.\n"
        f"Where: {runs}\n"
        "Do: Make room, use another --runs_folder, or keep fewer checkpoints (--checkpoint.keep, now 3)."
    ))  # fmt: skip
    assert kinds(runs / "run", "start") == []


def test_what_is_saved_already_needs_no_room_again(
    settings: Path, runs: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**7, 9 * 10**6, 10**6))
    assert train_here(settings, "run", runs, SHORT | {"train.steps": 13}).step == 13


def test_final_weights_that_find_no_room_are_written_by_the_next_call(settings: Path, runs: Path) -> None:
    with no_open(faults.full_disk, lambda path, mode: path.name == ".fusain.json.tmp"):
        fault = refused(settings, runs)
    assert (fault.exit_code, str(fault)) == (8, (
        f"E-STORE-007 The weights could not be written: The folder cannot be written: {FULL}.\n"
        f"Where: {runs / 'run' / 'weights'}\n"
        "Do: Make room, then give the same command again: it only writes them. "
        "The last checkpoint holds all that was learnt."
    ))  # fmt: skip
    assert not (runs / "run" / ".weights.tmp").exists()
    train_here(settings, "run", runs, SHORT)
    assert (runs / "run" / "weights" / "fusain.json").exists()


def test_what_a_kill_left_of_the_final_weights_is_no_obstacle(settings: Path, runs: Path, finished: Path) -> None:
    for name in (".weights.old", ".weights.tmp"):
        shutil.copytree(finished / "weights", finished / name)
    train_here(settings, "run", runs, SHORT | {"train.steps": 13})
    assert json.loads((finished / "weights" / "fusain.json").read_text())["step"] == 13
    assert not list(finished.glob(".weights*"))
