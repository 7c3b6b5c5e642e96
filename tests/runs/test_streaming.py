"""Training on a stream: a run that was broken off ends in the same bits as one that was left alone."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest

from fusain.models.bases import fresh
from fusain.runs import planning, publishing
from fusain.settings.described import load
from tests.runs.faults import SHORT, refused
from tests.runs.test_text_to_image import SETTINGS as TEXT
from tests.runs.training import (
    as_overrides,
    assert_equal_runs,
    kill,
    kinds,
    losses,
    start_training,
    train_here,
    wait_for,
    write_settings,
)

STREAM: dict[str, Any] = {"data.streaming": True, "data.stream_window": 16, "data.held_out": 8, "data.workers": 1}


def shards(sprites: Path, folder: Path) -> Path:
    """The pictures of the drawn world as three Parquet files with classes and captions, five rows a group."""
    paths = sorted(sprites.rglob("*.png"), key=lambda path: path.name)
    rows = datasets.Dataset.from_list(
        [
            {
                "image": {"bytes": path.read_bytes(), "path": None},
                "label": path.parent.name,
                "text": f"a {path.parent.name}",
            }
            for path in paths
        ]
    )
    rows = rows.cast_column("image", datasets.Image()).class_encode_column("label")
    folder.mkdir()
    for place in range(3):
        part = rows.shard(3, place, contiguous=True).flatten_indices()
        table = part.with_format("arrow")[:]
        table = table.replace_schema_metadata(part.features.arrow_schema.metadata)
        pyarrow.parquet.write_table(table, folder / f"train-{place:05d}-of-00003.parquet", row_group_size=5)
    return folder


@pytest.fixture(scope="module")
def stream(sprites: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return STREAM | {"data.path": str(shards(sprites, tmp_path_factory.mktemp("stream") / "set"))}


@pytest.fixture(scope="module")
def streamed(stream: dict[str, Any], sprites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an epoch and a bit that nobody disturbed."""
    folder = tmp_path_factory.mktemp("streamed")
    train_here(write_settings(folder, sprites), "run", folder, LONG | stream)
    return folder / "run"


LONG = SHORT | {"train.steps": 28}
"""112 draws of 92 images."""


def test_a_run_that_is_gone_on_with_equals_the_whole_one(
    streamed: Path, stream: dict[str, Any], settings: Path, runs: Path
) -> None:
    """Stopped within a window; and again in the second epoch, without the thread that reads ahead."""
    train_here(settings, "run", runs, LONG | stream | {"train.steps": 8})
    train_here(settings, "run", runs, LONG | stream | {"train.steps": 24, "data.workers": 0})
    train_here(settings, "run", runs, LONG | stream)
    assert_equal_runs(streamed, runs / "run")
    assert len(set(losses(streamed).values())) == 28


def test_a_kill_changes_no_bit(streamed: Path, stream: dict[str, Any], settings: Path, runs: Path) -> None:
    process = start_training(settings, "run", runs, LONG | stream)
    wait_for(runs / "run", lambda rows: sum(row["kind"] == "checkpoint" for row in rows) >= 2, process)
    assert kill(process) in (-signal.SIGKILL, 0)
    train_here(settings, "run", runs, LONG | stream)
    assert_equal_runs(streamed, runs / "run")


def test_two_processes_learn_from_a_stream_what_one_does(stream: dict[str, Any], settings: Path, runs: Path) -> None:
    """Parts of 3 and 2 images; stopped within the second window, and gone on with by two."""
    changes = SHORT | stream | {"train.batch_size": 5, "family.dropout": 0.0, "family.class_dropout": 0.0}
    two = {"engine.processes": 2}
    train_here(settings, "one", runs, changes)
    train_here(settings, "two", runs, changes | two | {"train.steps": 5})
    train_here(settings, "two", runs, changes | two)
    assert list(losses(runs / "two")) == list(range(1, 13))
    assert losses(runs / "two") == pytest.approx(losses(runs / "one"), rel=1e-5)


def test_the_same_images_on_disk_are_learnt_in_another_order(
    streamed: Path, stream: dict[str, Any], settings: Path, runs: Path
) -> None:
    """Equal numbers from both would say that nothing was streamed."""
    on_disk = {"data.path": stream["data.path"], "data.held_out": 8}
    train_here(settings, "run", runs, SHORT | on_disk)
    assert losses(runs / "run")[1] != losses(streamed)[1]
    assert (
        json.loads((runs / "run" / "data.lock.json").read_text())["classes"]
        == (json.loads((streamed / "data.lock.json").read_text())["classes"])
    )


def test_what_the_plan_says(stream: dict[str, Any], settings: Path, runs: Path) -> None:
    changes = SHORT | stream | {"runs_folder": str(runs)}
    plan = planning.plan(settings, overrides=as_overrides(changes), measure=False)
    assert (plan.images, plan.held_out, plan.data.draws_an_epoch, plan.stored_encodings) == (92, 8, 92, 0)
    assert round(plan.epochs, 3) == round(12 * 4 / 92, 3)
    assert any(notice.startswith("W-DATA-046 Of 100 images 92 are streamed and 8 held out") for notice in plan.notices)


def test_its_card_counts_what_was_streamed(streamed: Path) -> None:
    card = publishing.publish(streamed, dry_run=True, licence="mit").card.read_text()
    assert "28 steps on 92 images: 112 draws, 1.22 for each image" in card
    assert (
        "92 images were learnt from, 8 more were held out to measure on. They are not published. The identity" in card
    )


def test_the_windows_may_not_change(streamed: Path, stream: dict[str, Any], settings: Path, runs: Path) -> None:
    shutil.copytree(streamed, runs / "run")
    fault = refused(settings, runs, LONG | stream | {"data.stream_window": 20})
    assert fault.code == "E-RESUME-003"
    assert "data.stream_window: 16 -> 20" in str(fault)
    assert {"data.streaming", "data.stream_window"} <= {entry.key for entry in load().settings}


def test_a_fault_of_settings_is_told_with_the_others(stream: dict[str, Any], settings: Path, runs: Path) -> None:
    fault = refused(settings, runs, stream | {"data.repeats": 2, "data.balance": "equal"})
    assert "E-DATA-090 data.streaming does not go with data.repeats = 2." in str(fault)
    assert "E-DATA-090 data.streaming does not go with data.balance = equal." in str(fault)


def test_captions_of_a_stream_are_learnt_and_encoded_in_every_step(stream: dict[str, Any], tmp_path: Path) -> None:
    """Stable Diffusion, gone on with in the middle; nothing of a stream is kept on disk."""
    fresh.write(fresh.TINY, tmp_path / "base")
    settings = tmp_path / "text.toml"
    settings.write_text(TEXT.format(base=tmp_path / "base", data=stream["data.path"]))
    changes = stream | {"samples.every_steps": 0}
    train_here(settings, "whole", tmp_path, changes)
    train_here(settings, "run", tmp_path, changes | {"train.steps": 4})
    train_here(settings, "run", tmp_path, changes)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    assert kinds(tmp_path / "whole", "encoding") == []
