"""Full and failing disks, damaged checkpoints (F5-F12, F34, F35, B11): nothing half-written, nothing begun anew."""

import errno
import json
import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from fusain.errors import FusainError, StorageError
from fusain.training import checkpoint
from fusain.training.checkpoint import Checkpoints
from tests.runs import faults
from tests.runs.faults import SHORT, full_while_saving, may_mount, no_open, replaced
from tests.runs.training import (
    PROCESSES,
    assert_equal_runs,
    kinds,
    losses,
    start_training,
    train_here,
)

FULL = "No space left on device"
TENSORS_FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


def warnings(run: Path) -> list[tuple[str, str]]:
    """Those that are no matter of the data."""
    found = [(row["code"], row["text"]) for row in kinds(run, "warning")]
    return [(code, text) for code, text in found if not code.startswith("W-DATA")]


def steps_saved(run: Path) -> list[int]:
    """Each checkpoint, verified; nothing else may lie beside them."""
    folder = run / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        path.name for path in Checkpoints(folder, keep=9).listed()
    ]
    return [checkpoint.read(path).step for path in sorted(folder.iterdir())]


def refused(settings: Path, runs: Path, changes: dict[str, Any] | None = None, **more: Any) -> FusainError:
    with pytest.raises(FusainError) as caught:
        train_here(settings, "run", runs, SHORT | (changes or {}), **more)
    return caught.value


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
            with (folder / "filling").open("wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass
        if event["kind"] == "step" and event["step"] == 9:
            (folder / "filling").unlink()

    train_here(settings, "run", runs, SHORT, report=full_is_no_fault(fill))
    shutil.copytree(folder, runs / "checkpoints")


def full_is_no_fault(fill: Any) -> Any:
    def report(event: dict[str, Any]) -> None:
        try:
            fill(event)
        except OSError as fault:
            assert fault.errno == errno.ENOSPC

    return report


@pytest.mark.skipif(not may_mount(), reason="this system lets no test mount a small disk (unshare -Urm)")
def test_a_real_full_disk(settings: Path, runs: Path, undisturbed: Path) -> None:
    process = PROCESSES.Process(target=train_on_a_small_disk, args=(settings, runs))
    process.start()
    process.join(60)
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
    process.join(60)
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


def test_what_is_saved_already_needs_no_room_again(settings: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_here(settings, "run", runs, SHORT)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**7, 9 * 10**6, 10**6))
    assert train_here(settings, "run", runs, SHORT | {"train.steps": 13}).step == 13


def test_a_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(
    settings: Path, runs: Path, undisturbed: Path
) -> None:
    train_here(settings, "run", runs, SHORT | {"train.steps": 8})
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    newest = runs / "run" / "checkpoints" / "step-00000008"
    with no_open(lambda path: broken, lambda path, mode: path == newest / "ema.safetensors" and mode == "rb"):
        with pytest.raises(StorageError) as caught:
            checkpoint.read(newest)
        assert str(caught.value) == (
            "E-CKPT-003 Checkpoint step-00000008 cannot be read: ema.safetensors: Input/output error.\n"
            f"Where: {newest / 'ema.safetensors'}\n"
            "Do: Nothing: the newest checkpoint that is whole is used. Check the disk."
        )
        found = Checkpoints(newest.parent, keep=3).newest(note=lambda text: None)
    assert found is not None
    assert found.step == 4
    (newest / "ema.safetensors").write_bytes(b"")
    train_here(settings, "run", runs, SHORT)
    (note,) = [row["text"] for row in kinds(runs / "run", "note") if "step-00000008" in row["text"]]
    assert note == (
        "Checkpoint step-00000008 is damaged: ema.safetensors is not what was saved. The checkpoint before it is used."
    )
    assert kinds(runs / "run", "resumed")[0]["step"] == 4
    assert steps_saved(runs / "run") == [4, 8, 12]
    assert_equal_runs(undisturbed, runs / "run")


@pytest.mark.parametrize(
    ("call", "number"), [("rename", errno.EXDEV), ("fsync", errno.EIO)], ids=["rename F10", "fsync F11"]
)
def test_what_is_not_on_the_disk_for_certain_is_not_listed(
    settings: Path, runs: Path, undisturbed: Path, call: str, number: int
) -> None:
    real, listed = getattr(os, call), []

    def fail(*arguments: Any) -> Any:
        is_ours = call == "fsync" or "step-" in str(arguments[1])
        count = sum(listed)
        listed.append(is_ours)
        # Of the second save the last fsync, that of the folder around; an EXDEV is not tried again.
        if is_ours and count == {"rename": 1, "fsync": 13}[call]:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    with replaced(os, call, fail):
        train_here(settings, "run", runs, SHORT)
    told = f"The checkpoint could not be written ({os.strerror(number)}); training goes on, older checkpoints are untouched."
    assert warnings(runs / "run") == [("W-STORE-001", told)]
    assert steps_saved(runs / "run") == [4, 12]
    assert_equal_runs(undisturbed, runs / "run")


def test_an_old_checkpoint_that_is_locked_stops_nothing(settings: Path, runs: Path, undisturbed: Path) -> None:
    """F12: both doors through which files are deleted fail for the first one, once."""
    locked = runs / "run" / "checkpoints" / "step-00000004"
    tries: list[object] = []

    def guard(real: Any) -> Any:
        def delete(path: Any, *arguments: Any, **named: Any) -> Any:
            if len(tries) < 12 and ("step-00000004" in str(path) or named.get("dir_fd") is not None):
                tries.append(path)
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            return real(path, *arguments, **named)

        return delete

    with replaced(os, "unlink", guard(os.unlink)), replaced(os, "rmdir", guard(os.rmdir)):
        train_here(settings, "run", runs, SHORT | {"checkpoint.keep": 1, "train.steps": 8})
    assert tries
    assert locked.exists()
    train_here(settings, "run", runs, SHORT | {"checkpoint.keep": 1})
    assert steps_saved(runs / "run") == [12]
    assert_equal_runs(undisturbed, runs / "run")


@pytest.mark.parametrize("file", ["state.json", "MANIFEST.json"])
def test_damaged_checkpoints_only_are_no_reason_to_begin_anew(settings: Path, runs: Path, file: str) -> None:
    train_here(settings, "run", runs, SHORT)
    folder = runs / "run" / "checkpoints"
    for path in folder.glob(f"*/{file}"):
        path.unlink()
    fault = refused(settings, runs)
    assert (fault.exit_code, str(fault)) == (8, (
        f"E-RESUME-001 None of the 3 checkpoints is whole. Checkpoint step-00000012 is damaged: {file} is missing.\n"
        f"Where: {folder}\n"
        "Why: Starting over would throw away what was trained, so that is not done in silence.\n"
        "Do: Put a good copy back, or start anew under another --name."
    ))  # fmt: skip
    assert len(list(folder.iterdir())) == 3


def test_checkpoints_that_are_gone_are_no_reason_to_begin_anew(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT)
    folder = runs / "run" / "checkpoints"
    shutil.rmtree(folder)
    fault = refused(settings, runs)
    assert (fault.exit_code, str(fault)) == (8, (
        "E-RESUME-002 The checkpoints that this run saved are gone.\n"
        f"Where: {folder}\n"
        "Why: Starting over would throw away what was trained, so that is not done in silence.\n"
        "Do: Put them back, or start anew under another --name."
    ))  # fmt: skip
    assert kinds(runs / "run", "done")


def test_final_weights_that_find_no_room_are_written_by_the_next_call(settings: Path, runs: Path) -> None:
    with no_open(faults.full_disk, lambda path, mode: path.name == ".fusain.json.tmp"):
        fault = refused(settings, runs)
    assert (fault.exit_code, str(fault)) == (8, (
        f"E-STORE-006 The final weights could not be written: The folder cannot be written: {FULL}.\n"
        f"Where: {runs / 'run' / 'weights'}\n"
        "Do: Make room, then give the same command again: it only writes them. "
        "The last checkpoint holds all that was learnt."
    ))  # fmt: skip
    assert not (runs / "run" / ".weights.tmp").exists()
    train_here(settings, "run", runs, SHORT)
    assert (runs / "run" / "weights" / "fusain.json").exists()


def test_what_a_kill_left_of_the_final_weights_is_no_obstacle(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT)
    for name in (".weights.old", ".weights.tmp"):
        shutil.copytree(runs / "run" / "weights", runs / "run" / name)
    train_here(settings, "run", runs, SHORT | {"train.steps": 13})
    assert json.loads((runs / "run" / "weights" / "fusain.json").read_text())["step"] == 13
    assert not list((runs / "run").glob(".weights*"))


def memory_to_a_file(path: Path) -> None:
    """Write down at each checkpoint the most memory that this process ever held."""
    from fusain.training.events import EventLog

    real = EventLog.__call__

    def call(log: EventLog, kind: str, **facts: Any) -> None:
        if kind == "checkpoint":
            with path.open("a") as file:
                file.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")
        real(log, kind, **facts)

    EventLog.__call__ = call  # type: ignore[method-assign]


def test_a_checkpoint_every_step_needs_no_more_memory(settings: Path, runs: Path, undisturbed: Path) -> None:
    measured = runs / "memory"
    changes = SHORT | {"checkpoint.every_steps": 1, "train.steps": 40}
    process = start_training(settings, "often", runs, changes, prepare=memory_to_a_file, arguments=(measured,))
    process.join(120)
    assert process.exitcode == 0, (runs / "often.stderr").read_text()
    memory = [int(line) for line in measured.read_text().splitlines()]
    assert len(memory) == 40
    assert memory[-1] - memory[9] < 8_000, "kilobytes that thirty checkpoints left behind"
    assert steps_saved(runs / "often") == [38, 39, 40]
    train_here(settings, "seldom", runs, changes | {"checkpoint.every_steps": 40})
    assert_equal_runs(runs / "seldom", runs / "often")
