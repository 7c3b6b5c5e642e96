"""Checkpoints that cannot be read, moved, kept or deleted (F7-F12, F34, F35): none is lost, nothing is begun anew."""

import errno
import json
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from fusain.errors import StorageError
from fusain.runs.actions import generate
from fusain.training import checkpoint
from tests.runs.faults import EIGHT, SHORT, no_open, refused, replaced, steps_saved, warnings
from tests.runs.training import assert_equal_runs, kinds, losses, start_training, train_here


def test_a_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(
    settings: Path, runs: Path, undisturbed: Path
) -> None:
    train_here(settings, "run", runs, EIGHT)
    newest = runs / "run" / "checkpoints" / "step-00000008"
    broken = {newest / "ema.safetensors"}
    fault = OSError(errno.EIO, os.strerror(errno.EIO))

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "resumed":
            broken.clear()

    with no_open(lambda path: fault, lambda path, mode: path in broken and mode == "rb"):
        with pytest.raises(StorageError) as caught:
            checkpoint.read(newest)
        train_here(settings, "run", runs, SHORT, report=listen)
    assert str(caught.value) == (
        "E-CKPT-003 Checkpoint step-00000008 cannot be read: ema.safetensors: Input/output error.\n"
        f"Where: {newest / 'ema.safetensors'}\n"
        "Do: Nothing: the newest checkpoint that is whole is used. Check the disk."
    )
    (note,) = [row["text"] for row in kinds(runs / "run", "note") if "step-00000008" in row["text"]]
    assert note == f"{caught.value.message.what} The checkpoint before it is used."
    assert kinds(runs / "run", "resumed")[0]["step"] == 4
    assert steps_saved(runs / "run") == [4, 8, 12]
    assert_equal_runs(undisturbed, runs / "run")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    settings: Path, runs: Path, run: Path, undisturbed: Path
) -> None:
    weights = run / "checkpoints" / "step-00000008" / "trainable.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    train_here(settings, "run", runs, SHORT)
    (note,) = [row["text"] for row in kinds(run, "note") if "step-00000008" in row["text"]]
    assert note == (
        "Checkpoint step-00000008 is damaged: trainable.safetensors is not what was saved. "
        "The checkpoint before it is used."
    )
    assert kinds(run, "resumed")[0]["step"] == 4
    assert_equal_runs(undisturbed, run)


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
    why = os.strerror(number)
    told = f"The checkpoint could not be written ({why}); training goes on, older checkpoints are untouched."
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
def test_damaged_checkpoints_only_are_no_reason_to_begin_anew(
    settings: Path, runs: Path, finished: Path, file: str
) -> None:
    folder = finished / "checkpoints"
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


def test_checkpoints_that_are_gone_are_no_reason_to_begin_anew(settings: Path, runs: Path, finished: Path) -> None:
    folder = finished / "checkpoints"
    shutil.rmtree(folder)
    fault = refused(settings, runs)
    assert (fault.exit_code, str(fault)) == (8, (
        "E-RESUME-002 The checkpoints that this run saved are gone.\n"
        f"Where: {folder}\n"
        "Why: Starting over would throw away what was trained, so that is not done in silence.\n"
        "Do: Put them back, or start anew under another --name."
    ))  # fmt: skip
    assert kinds(runs / "run", "done")


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
    process.join(300)
    assert process.exitcode == 0, (runs / "often.stderr").read_text()
    memory = [int(line) for line in measured.read_text().splitlines()]
    assert len(memory) == 40
    assert memory[-1] - memory[9] < 8_000, "kilobytes that thirty checkpoints left behind"
    assert steps_saved(runs / "often") == [38, 39, 40]
    train_here(settings, "seldom", runs, changes | {"checkpoint.every_steps": 40})
    assert_equal_runs(runs / "seldom", runs / "often")


def die_once_published() -> None:
    """SIGKILL at the moment at which the checkpoint of step 8 is in its place."""
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        real(source, target)
        if target.name == "step-00000008":
            os.kill(os.getpid(), signal.SIGKILL)

    os.rename = rename  # type: ignore[assignment]


def test_no_row_of_a_saved_step_is_lost(settings: Path, runs: Path, undisturbed: Path) -> None:
    process = start_training(settings, "run", runs, SHORT, prepare=die_once_published)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(losses(runs / "run")) == list(range(1, 9))
    train_here(settings, "run", runs, SHORT)
    assert kinds(runs / "run", "resumed")[0]["step"] == 8
    assert_equal_runs(undisturbed, runs / "run")


def test_b38_a_run_that_a_newer_fusain_went_on_with_is_refused(settings: Path, runs: Path, finished: Path) -> None:
    """Before anything is asked of its settings, which may be new too; nothing of it is changed."""
    newest = finished / "checkpoints" / "step-00000012"
    manifest = json.loads((newest / checkpoint.MANIFEST).read_text())
    (newest / checkpoint.MANIFEST).write_text(json.dumps(manifest | {"format": 2}))
    stored = json.loads((finished / "settings.json").read_text())
    stored["train"]["curvature"] = 3
    (finished / "settings.json").write_text(json.dumps(stored))
    wanted = (
        "E-CKPT-004 Checkpoint step-00000012 has format 2; this Fusain reads up to format 1.\n"
        f"Where: {newest}\n"
        "Why: The run was trained by a newer Fusain.\n"
        "Do: Update Fusain."
    )
    before = contents(finished / "checkpoints")
    fault = refused(settings, runs, {"train.steps": 20})
    assert (fault.exit_code, str(fault)) == (8, wanted)
    assert contents(finished / "checkpoints") == before
    with pytest.raises(StorageError) as caught:
        generate(finished, checkpoint="latest", count=1)
    assert str(caught.value) == (
        "E-RUN-013 Run 'run' was trained by another Fusain: this one cannot read 'train.curvature' of its settings.\n"
        f"Where: {finished / 'settings.json'}\n"
        "Do: Update Fusain."
    )
    del stored["train"]["curvature"]
    (finished / "settings.json").write_text(json.dumps(stored))
    with pytest.raises(StorageError) as caught:
        generate(finished, checkpoint="latest", count=1)
    assert str(caught.value) == wanted


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
