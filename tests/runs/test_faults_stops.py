"""Signals, clocks, dead workers and second processes (F3, F4, F15, F31, F32): nothing is lost, no bit is changed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fusain.training import checkpoint
from fusain.training.checkpoint import Checkpoints
from tests.runs import faults
from tests.runs.faults import SHORT, ignore_and_interrupt, signal_at
from tests.runs.training import assert_equal_runs, kill, kinds, start_training, train_here, wait_for

FILES: dict[str, Any] = {"data.memory_gb": 0, "data.workers": 1}


PLACES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "in a step": (("step", 3), {}),
    "waiting for a slow source": (("data", 3), {"data.memory_gb": 0}),
    "waiting for a worker": (("data", 3), FILES),
    "sampling": (("sampling", 2), {"samples.every_steps": 3}),
    "saving": (("saving", 3), {}),
    "in the first batch": (("data", 1), {"data.memory_gb": 0}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_sigterm_anywhere_ends_with_a_checkpoint_and_no_bit_lost(
    settings: Path, runs: Path, undisturbed: Path, place: str
) -> None:
    arguments, changes = PLACES[place]
    process = start_training(settings, "stopped", runs, SHORT | changes, prepare=signal_at, arguments=arguments)
    process.join(300)
    assert process.exitcode == 143, (runs / "stopped.stderr").read_text()
    (stopped,) = kinds(runs / "stopped", "stopped")
    assert (stopped["reason"], stopped["step"]) == ("terminated", kinds(runs / "stopped", "checkpoint")[-1]["step"])
    assert stopped["step"] < 12
    train_here(settings, "stopped", runs, SHORT | changes)
    assert_equal_runs(undisturbed, runs / "stopped")


def test_a_sigterm_after_the_last_batch_finds_a_finished_run(settings: Path, runs: Path, undisturbed: Path) -> None:
    process = start_training(settings, "late", runs, SHORT, prepare=signal_at, arguments=("step", 12))
    process.join(300)
    assert process.exitcode == 0, (runs / "late.stderr").read_text()
    assert (runs / "late" / "weights" / "fusain.json").exists()
    assert_equal_runs(undisturbed, runs / "late")


def test_a_sigterm_while_the_images_are_looked_at_leaves_nothing_half_made(
    settings: Path, runs: Path, undisturbed: Path
) -> None:
    """There is nothing to save yet: the process ends as any other does, which a shell shows as 143 too."""
    changes = SHORT | {"data.max_pixels": 1_234_567}  # not in the cache
    process = start_training(settings, "early", runs, changes, prepare=signal_at, arguments=("looking", 1))
    process.join(300)
    assert process.exitcode == -signal.SIGTERM
    train_here(settings, "early", runs, changes)
    assert_equal_runs(undisturbed, runs / "early")


@pytest.mark.parametrize(("place", "number"), [("step", 6), ("saving", 8)])
def test_a_second_ctrl_c_ends_at_once_and_harms_no_checkpoint(
    settings: Path, runs: Path, undisturbed: Path, place: str, number: int
) -> None:
    arguments = (place, number, 2, signal.SIGINT)
    process = start_training(settings, "stopped", runs, SHORT, prepare=signal_at, arguments=arguments)
    process.join(300)
    assert process.exitcode == 130, (runs / "stopped.stderr").read_text()
    assert kinds(runs / "stopped", "stopped") == []
    folder = Checkpoints(runs / "stopped" / "checkpoints", keep=3)
    assert [checkpoint.read(path).step for path in folder.listed()] == [4]
    assert [path.name for path in folder.folder.iterdir()] == ["step-00000004"]
    train_here(settings, "stopped", runs, SHORT)
    assert_equal_runs(undisturbed, runs / "stopped")


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_killed_worker_is_replaced_and_no_bit_changes(settings: Path, runs: Path, undisturbed: Path) -> None:
    changes = SHORT | FILES
    process = start_training(settings, "run", runs, changes, prepare=slow_reading)
    wait_for(runs / "run", lambda rows: any(row["kind"] == "held_out" for row in rows), process)
    workers = []
    while not workers:
        workers = children(process.pid)
    os.kill(workers[0], signal.SIGKILL)
    process.join(300)
    assert process.exitcode == 0, (runs / "run.stderr").read_text()
    (warning,) = [row for row in kinds(runs / "run", "warning") if row["code"] == "W-DATA-009"]
    # PyTorch is told by the signal or by the silence, whichever it hears of first, and has words for each.
    torchs = (f"(pid(s) {workers[0]}) exited unexpectedly", f"(pid {workers[0]}) is killed by signal: Killed.")
    assert warning["text"] in [
        f"A worker failed and is replaced (DataLoader worker {words}; attempt 1 of 3)." for words in torchs
    ]
    assert_equal_runs(undisturbed, runs / "run")


def slow_reading() -> None:
    """A tenth of a second a batch, so that there is a worker to kill."""
    from fusain.data.loader import Making

    Making.__getitem__ = faults.wrapped(Making.__getitem__, lambda count: time.sleep(0.1))  # type: ignore[method-assign]


def test_a_clock_that_jumps_back_orders_no_checkpoint(
    settings: Path, runs: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here(settings, "run", runs, SHORT | {"train.steps": 8})
    hour = 3600
    for path in (runs / "run" / "checkpoints").rglob("*"):
        os.utime(path, (time.time() + hour, time.time() + hour))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 2 * hour)
    train_here(settings, "run", runs, SHORT | {"checkpoint.keep": 1})
    assert kinds(runs / "run", "resumed")[0]["step"] == 8
    assert [path.name for path in (runs / "run" / "checkpoints").iterdir()] == ["step-00000012"]
    assert_equal_runs(undisturbed, runs / "run")


def test_a_second_process_on_a_run_is_refused(settings: Path, runs: Path, undisturbed: Path) -> None:
    first = start_training(settings, "run", runs, SHORT | {"data.memory_gb": 0}, prepare=slow_reading)
    wait_for(runs / "run", lambda rows: any(row["kind"] == "start" for row in rows), first)
    second = start_training(settings, "run", runs, SHORT)
    second.join(300)
    assert second.exitcode == 8
    assert (runs / "run.stderr").read_text() == (
        f"E-RUN-004 Run 'run' is being trained by process {first.pid} on this machine.\n"
        f"Where: {runs / 'run' / 'lock.json'}\n"
        "Do: Wait for it, stop it, or use another --name.\n"
    )
    first.join(300)
    assert first.exitcode == 0
    assert_equal_runs(undisturbed, runs / "run")


def test_the_lock_of_a_killed_process_is_taken_over(settings: Path, runs: Path, undisturbed: Path) -> None:
    process = start_training(settings, "run", runs, SHORT)
    wait_for(runs / "run", lambda rows: any(row["kind"] == "start" for row in rows), process)
    kill(process)
    train_here(settings, "run", runs, SHORT)
    notes = [row["text"] for row in kinds(runs / "run", "note")]
    assert f"The lock of process {process.pid}, which is gone, is taken over." in notes
    assert_equal_runs(undisturbed, runs / "run")


def test_a_signal_that_is_ignored_stays_so(settings: Path, runs: Path, undisturbed: Path) -> None:
    """Shells have jobs in the background ignore Ctrl-C, so that it reaches only what runs in front."""
    process = start_training(settings, "behind", runs, SHORT, prepare=ignore_and_interrupt, arguments=("step", 6))
    process.join(300)
    assert process.exitcode == 0
    assert_equal_runs(undisturbed, runs / "behind")
