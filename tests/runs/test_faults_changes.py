"""Runs that are gone on with after something changed (F33): what is harmless passes, all else needs the user's word."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fusain.runs import assembly
from fusain.training import checkpoint
from tests.runs.faults import EIGHT, SHORT, refused
from tests.runs.training import assert_equal_runs, final_state, kinds, losses, train_here


def notes(run: Path) -> list[str]:
    return [row["text"] for row in kinds(run, "note")]


@pytest.mark.parametrize(
    "changes",
    [
        {"samples.every_steps": 2, "samples.steps": 3},
        {"checkpoint.keep": 1, "checkpoint.every_steps": 3},
        {"track.tensorboard": True},
    ],
    ids=["samples", "checkpoints", "trackers"],
)
def test_a_harmless_change_needs_no_word_and_changes_no_bit(
    settings: Path, runs: Path, run: Path, undisturbed: Path, changes: dict[str, Any]
) -> None:
    if "track.tensorboard" in changes:
        pytest.importorskip("tensorboard")
    train_here(settings, "run", runs, SHORT | changes)
    assert_equal_runs(undisturbed, run)


def test_a_setting_that_did_not_exist_when_the_run_began_was_at_its_default(
    settings: Path, runs: Path, run: Path, undisturbed: Path
) -> None:
    stored = json.loads((run / "settings.json").read_text())
    del stored["method"]["loss"]["time_bias"]
    (run / "settings.json").write_text(json.dumps(stored))
    assert refused(settings, runs, {"method.loss.time_bias": 1.0}).code == "E-RESUME-003"
    train_here(settings, "run", runs, SHORT)
    assert_equal_runs(undisturbed, run)


def test_fewer_workers_change_no_bit(settings: Path, runs: Path, undisturbed: Path) -> None:
    files = {"data.memory_gb": 0}
    train_here(settings, "run", runs, EIGHT | files | {"data.workers": 2})
    train_here(settings, "run", runs, SHORT | files)
    assert_equal_runs(undisturbed, runs / "run")


def test_what_changes_the_result_needs_the_users_word(settings: Path, runs: Path, run: Path) -> None:
    before = (run / "settings.json").read_text()
    changes = {"train.learning_rate": 0.01, "train.optimizer": "lion"}
    fault = refused(settings, runs, changes)
    assert (fault.exit_code, str(fault)) == (3, (
        "E-RESUME-003 This run was started with other settings: "
        "train.learning_rate: 0.001 -> 0.01; train.optimizer: adamw -> lion.\n"
        f"Where: {run / 'settings.json'}\n"
        "Why: With them the result would not be that of one undisturbed run.\n"
        "Do: Take the old values, use another --name, or allow it: "
        "--allow-change train.learning_rate --allow-change train.optimizer"
    ))  # fmt: skip
    assert refused(settings, runs, changes, allow_change=["train.optimizer"]).code == "E-RESUME-003"
    assert (run / "settings.json").read_text() == before
    train_here(settings, "run", runs, SHORT | changes, allow_change=list(changes))
    assert notes(run)[-3:] == [
        "train.learning_rate goes from 0.001 to 0.01, as allowed.",
        "train.optimizer goes from adamw to lion, as allowed.",
        "lion starts without a memory: the run was at another optimizer.",
    ]
    assert sorted(losses(run)) == list(range(1, 13))
    assert {row["rate"] for row in kinds(run, "step")[8:]} == {0.01}


@pytest.mark.parametrize(
    "changes",
    [{"train.weight_decay": 1.0}, {"train.ema_decay": 0}, {"train.clip_norm": 0.01}, {"train.optimizer": "adam"}],
    ids=["weight decay", "average", "clipping", "optimizer"],
)
def test_a_change_that_was_allowed_has_its_effect(
    settings: Path, runs: Path, run: Path, undisturbed: Path, changes: dict[str, Any]
) -> None:
    train_here(settings, "run", runs, SHORT | changes, allow_change=list(changes))
    allowed, undisturbed = final_state(run), final_state(undisturbed)
    assert any(name not in allowed or not torch.equal(tensor, allowed[name]) for name, tensor in undisturbed.items()), (
        "the new value was passed over in silence"
    )
    newest = checkpoint.read(max((run / "checkpoints").iterdir()))
    assert newest.state["optimizer"]["param_groups"][0]["weight_decay"] == changes.get("train.weight_decay", 0.01)


def test_an_average_may_begin_later(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, EIGHT | {"train.ema_decay": 0})
    train_here(settings, "run", runs, SHORT | {"train.ema_decay": 0.9}, allow_change=["train.ema_decay"])
    state = final_state(runs / "run")
    apart = [(state[name] - state[name.replace("ema", "trainable")]).abs().max() for name in state if "ema/" in name]
    assert 0 < max(apart) < 0.05, "it began at the weights of step 8, not at those of a fresh network"


def test_another_network_cannot_go_on(settings: Path, runs: Path, run: Path) -> None:
    fault = refused(settings, runs, {"family.channels": [8, 24]}, allow_change=["family.channels"])
    assert (fault.exit_code, fault.code) == (8, "E-MODEL-002")
    assert str(fault).endswith(
        f"Where: {run / 'checkpoints' / 'step-00000008'}\n"
        "Do: Use the weights with the settings that they were trained with."
    )
    assert json.loads((run / "settings.json").read_text())["family"]["channels"] == [8, 16]


def test_other_versions_are_said(settings: Path, runs: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = assembly.versions()
    monkeypatch.setattr(assembly, "versions", lambda train: now | {"torch": "9.9"})
    train_here(settings, "run", runs, SHORT)
    assert f"torch is 9.9, the run was at {now['torch']}: no longer equal to the last bit." in notes(run)


def test_other_images_cannot_go_on(settings: Path, runs: Path, tmp_path: Path, sprites: Path) -> None:
    data = Path(shutil.copytree(sprites, tmp_path / "moved"))
    train_here(settings, "run", runs, EIGHT)
    train_here(settings, "run", runs, SHORT | {"train.steps": 9, "data.path": str(data)})  # moved only: no matter
    first = next(path for path in sorted(data.rglob("*.png")))
    name = str(first.relative_to(data))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(first)
    fault = refused(settings, runs, {"data.path": str(data)})
    assert (fault.exit_code, str(fault)) == (4, (
        f"E-DATA-021 The images are not those that the run was started with: 1 changed ('{name}').\n"
        f"Where: {data}\n"
        "Why: A run that goes on with other images is neither the old one nor a new one.\n"
        "Do: Put the files back as they were, or start a new run."
    ))  # fmt: skip
