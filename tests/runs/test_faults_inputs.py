"""Runs that cannot be, and those worth a word before they start (B5-B7, B10, B24, B25, B44): the whole texts."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fusain.cli import main as command
from fusain.errors import FusainError
from tests.runs.faults import SHORT, refused
from tests.runs.training import assert_equal_runs, kinds, train_here


def fusain(*words: str) -> tuple[int, str]:
    """The exit code of a command and what it says on stderr."""
    import contextlib

    heard = io.StringIO()
    with pytest.raises(SystemExit) as caught, contextlib.redirect_stderr(heard):
        command.main(words)
    return int(caught.value.code or 0), heard.getvalue()


def test_a_run_that_stands_is_not_begun_anew_when_told_never_to(settings: Path, runs: Path, run: Path) -> None:
    words = ("train", str(settings), "--name", "run", "--runs_folder", str(runs))
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert fusain(*words, "--resume", "never") == (2, (
        "E-RUN-006 The folder already holds run 'run' (step 8).\n"
        f"Where: {run}\n"
        "Do: Go on with it (--resume auto), choose another --name, or put it away: fusain runs rm run\n"
    ))  # fmt: skip
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    assert kinds(run, "done")


def test_a_run_that_must_go_on_and_is_not_there(settings: Path, runs: Path) -> None:
    words = ("train", str(settings), "--name", "new", "--runs_folder", str(runs), "--resume", "must")
    assert fusain(*words) == (2, (
        "E-RUN-007 Run 'new' has no checkpoint to go on from.\n"
        f"Where: {runs / 'new'}\n"
        "Do: Start it with --resume auto.\n"
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        (
            ("--device", "cuda"),
            5,
            f"E-ENV-002 No device 'cuda' is usable; this PyTorch was built with {torch.version.cuda or 'no CUDA'}.\n"
            "Where: engine.device\n"
            "Do: Use --device cpu, or install a PyTorch build and a driver for the GPU.\n",
        ),
        (
            ("--device", "mps"),
            5,
            "E-ENV-003 No Apple GPU (mps) is usable here.\nWhere: engine.device\nDo: Use --device cpu.\n",
        ),
        (
            ("--engine.precision", "fp16"),
            5,
            "E-ENV-004 fp16 does not train on a CPU.\n"
            "Where: engine.precision\n"
            "Why: CPUs have no fast fp16 arithmetic, and its overflows need the scaler of a GPU.\n"
            "Do: Use --engine.precision auto, which takes bf16 where the hardware has it, or fp32.\n",
        ),
        (
            ("--train.learning_rate", "10"),
            3,
            "E-CFG-005 'train.learning_rate' is 10, which is out of range: "
            "it must be a number (above 0 and at most 1).\n"
            "Where: --train.learning_rate\n"
            "Do: Typical values are 1e-06 to 0.01.\n",
        ),
        (
            ("--train.batch_size", "80", "--train.accumulation", "2"),
            4,
            "E-DATA-031 Too few images for one step: 80 a batch x 2 accumulated = 160, "
            "but an epoch has 95 images x 1 repeats = 95.\n"
            "Where: train.batch_size\n"
            "Why: A step would use an image twice.\n"
            "Do: Choose one: train.batch_size = 47; data.repeats = 2; or add 65 images.\n",
        ),
    ],
    ids=["cuda B44", "mps B44", "fp16 B44", "rate B5", "batch B25"],
)
def test_what_cannot_run_is_said_before_training(
    settings: Path, runs: Path, words: tuple[str, ...], exit_code: int, text: str
) -> None:
    if ("cuda" in words and torch.cuda.is_available()) or ("mps" in words and torch.backends.mps.is_available()):
        pytest.skip("this machine has that device")
    assert fusain("train", str(settings), "--name", "run", "--runs_folder", str(runs), *words) == (exit_code, text)
    assert not list((runs / "run").glob("checkpoints/*"))


def without_gpu(*words: str) -> tuple[int, str]:
    """The same of a command in a process of its own that sees no GPU, wherever there is one."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "fusain", *words], capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, done.stderr


@pytest.fixture
def on_gpu(run: Path) -> Path:
    """A run of eight steps that began on a GPU."""
    settings = json.loads((run / "settings.json").read_text())
    settings["engine"]["device"] = "cuda"
    (run / "settings.json").write_text(json.dumps(settings))
    return run


def test_f21_a_gpu_that_is_gone(settings: Path, runs: Path, on_gpu: Path) -> None:
    """Said before a run begins; and one that began there goes on elsewhere only where the user says so."""
    shutil.copytree(on_gpu, runs / "kept")
    words = ("train", str(settings), "--runs_folder", str(runs), "--train.held_out_every_steps", "6")
    assert without_gpu(*words, "--name", "new", "--device", "cuda") == (5, (
        f"E-ENV-002 No device 'cuda' is usable; this PyTorch was built with {torch.version.cuda or 'no CUDA'}.\n"
        "Where: engine.device\n"
        "Do: Use --device cpu, or install a PyTorch build and a driver for the GPU.\n"
    ))  # fmt: skip
    assert not (runs / "new").exists()
    code, told = fusain(*words, "--name", "run", "--device", "cpu")
    assert (code, told.splitlines()) == (3, [
        "E-RESUME-003 This run was started with other settings: engine.device: cuda -> cpu.",
        f"Where: {on_gpu / 'settings.json'}",
        "Why: With them the result would not be that of one undisturbed run.",
        "Do: Take the old values, use another --name, or allow it: --allow-change engine.device",
    ])  # fmt: skip
    for path in sorted((on_gpu / "checkpoints").rglob("*.safetensors")):
        assert path.read_bytes() == (runs / "kept" / path.relative_to(on_gpu)).read_bytes()


def test_a_run_that_lost_its_gpu_goes_on_where_the_user_allows_it(settings: Path, runs: Path, on_gpu: Path) -> None:
    result = train_here(settings, "run", runs, SHORT, allow_change=["engine.device"])
    assert result.step == 12
    assert "engine.device goes from cuda to cpu, as allowed." in [row["text"] for row in kinds(on_gpu, "note")]


def test_two_lengths_in_one_file_are_a_fault(settings: Path, runs: Path) -> None:
    settings.write_text(settings.read_text().replace("steps = 30", "steps = 30\nepochs = 2"))
    assert fusain("train", str(settings), "--name", "run", "--runs_folder", str(runs)) == (3, (
        "E-CFG-020 'train.steps' and 'train.epochs' are both set, but each stands in place of the other.\n"
        f"Where: {settings} line 17, {settings} line 18\n"
        "Do: Remove one of them.\n"
    ))  # fmt: skip


def test_a_run_without_a_checkpoint_before_its_end_is_said(settings: Path, runs: Path) -> None:
    changes = {"train.steps": 2, "checkpoint.every_steps": 5, "samples.every_steps": 2, "train.learning_rate": 1e-12}
    train_here(settings, "run", runs, changes)
    said = [row["text"] for row in kinds(runs / "run", "warning") if row["code"].startswith("W-CFG")]
    assert said == [
        "W-CFG-004 No checkpoint is written before the end: 'checkpoint.every_steps' is 5, and the run has 2 steps. "
        "(checkpoint.every_steps)",
        "W-CFG-004 No sample is drawn before the end: 'samples.every_steps' is 2, and the run has 2 steps. "
        "(samples.every_steps)",
        "W-CFG-001 'train.learning_rate' is 1e-12, 1e+06× below the usual 1e-06 to 0.01. (--train.learning_rate)",
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_a_handful_of_images_trains_with_a_warning(settings: Path, runs: Path, tmp_path: Path, count: int) -> None:
    (tmp_path / "few").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "few" / f"{number}.png")
    changes = {"data.path": str(tmp_path / "few"), "family.condition": "none", "train.batch_size": 1, "train.steps": 3}
    assert train_here(settings, "run", runs, changes).step == 3
    assert [row["text"] for row in kinds(runs / "run", "warning") if row["code"].startswith("W-DATA")] == [
        f"Only {count} images to learn from: they will be learnt by heart.",
        f"Nothing is held out, for {count} images are too few (it takes 64): there is no held-out loss.",
    ]


def test_classes_that_are_not_there(settings: Path, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(8):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "flat" / f"{number}.png")
    fault = refused(settings, runs, {"data.path": str(tmp_path / "flat")})
    assert (fault.exit_code, str(fault)) == (3, (
        "E-CFG-030 The model is to be steered by class, but the images have no classes.\n"
        "Where: family.condition\n"
        'Do: Use a folder per class or labels, or set family.condition = "none".'
    ))  # fmt: skip


def test_a_damaged_file_of_the_run_is_named(settings: Path, runs: Path, run: Path) -> None:
    (run / "settings.json").write_text("{")
    fault = refused(settings, runs, {})
    assert (fault.exit_code, str(fault)) == (8, (
        "E-RUN-003 settings.json of this run cannot be read: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1).\n"
        f"Where: {run / 'settings.json'}\n"
        "Do: Put the file back from a copy, or start anew under another --name."
    ))  # fmt: skip


def test_names_of_runs(settings: Path, runs: Path) -> None:
    with pytest.raises(FusainError) as caught:
        train_here(settings, "../outside", runs)
    assert (caught.value.exit_code, str(caught.value)) == (2, (
        "E-RUN-001 '../outside' cannot be the name of a run.\n"
        "Where: --name\n"
        "Do: Use up to 64 letters, digits, dots, dashes and underscores, beginning with a letter or a digit."
    ))  # fmt: skip


def test_a_tracker_that_fails_is_left_out(settings: Path, runs: Path, undisturbed: Path) -> None:
    heard = []

    def tracker(event: dict[str, Any]) -> None:
        heard.append(event["kind"])
        if event["kind"] == "step":
            raise ConnectionError("no route to host")

    train_here(settings, "run", runs, SHORT, report=tracker)
    assert heard.count("step") == 1
    (warning,) = [row for row in kinds(runs / "run", "warning") if row["code"] == "W-TRACK-001"]
    assert warning["text"] == "function failed (no route to host) and is left out from here on."
    assert_equal_runs(undisturbed, runs / "run")
