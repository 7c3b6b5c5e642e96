"""Checkpoints: what is listed is whole, what is damaged is named, what fails leaves the others alone (F5, F8-F12)."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.errors import StorageError
from fusain.training.checkpoint import MANIFEST, Checkpoints, read


def save(checkpoints: Checkpoints, step: int) -> None:
    weights = {"w": torch.full((4,), float(step))}
    checkpoints.save(step, {"trainable": weights, "optimizer": weights}, {"note": "test"})


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (10, 20, 30):
        save(checkpoints, step)
    return checkpoints


def newest_step(checkpoints: Checkpoints, notes: list[str]) -> int:
    newest = checkpoints.newest(note=notes.append)
    assert newest is not None
    return newest.step


def test_newest_is_read_back_and_old_ones_go(checkpoints: Checkpoints) -> None:
    newest = checkpoints.newest(note=lambda text: None)
    assert newest is not None
    assert (newest.step, newest.state["note"]) == (30, "test")
    assert torch.equal(newest.tensors("trainable")["w"], torch.full((4,), 30.0))
    assert [path.name for path in checkpoints.listed()] == ["step-00000020", "step-00000030"]


@pytest.mark.parametrize("name", ["trainable.safetensors", "optimizer.safetensors", "state.json", MANIFEST])
def test_a_flipped_bit_is_found_and_named(checkpoints: Checkpoints, name: str) -> None:
    path = checkpoints.folder / "step-00000030" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if name != MANIFEST else 0] ^= 1
    path.write_bytes(content)
    notes: list[str] = []
    assert newest_step(checkpoints, notes) == 20
    assert notes == [
        f"Checkpoint step-00000030 is damaged: {name} is not what was saved. The checkpoint before it is used."
    ]


def test_a_truncated_and_a_missing_file_are_rejected_and_an_extra_one_is_not(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder / "step-00000030"
    (folder / "notes.txt").write_text("mine")
    notes: list[str] = []
    assert newest_step(checkpoints, notes) == 30
    assert notes == ["Checkpoint step-00000030 holds files that it was not saved with: notes.txt. They are ignored."]
    weights = folder / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StorageError) as caught:
        read(folder)
    assert str(caught.value) == (
        "E-CKPT-001 Checkpoint step-00000030 is damaged: trainable.safetensors is not what was saved.\n"
        f"Where: {weights}\n"
        "Why: Its SHA-256 or its length differs from the manifest.\n"
        "Do: Nothing: the newest checkpoint that is whole is used."
    )
    weights.unlink()
    with pytest.raises(StorageError) as caught:
        read(folder)
    assert str(caught.value) == (
        "E-CKPT-002 Checkpoint step-00000030 is damaged: trainable.safetensors is missing.\n"
        f"Where: {weights}\n"
        "Do: Nothing: the newest checkpoint that is whole is used."
    )


def test_damaged_ones_only_are_an_error_and_no_start_over(checkpoints: Checkpoints) -> None:
    for folder in checkpoints.listed():
        (folder / "state.json").write_text("{}")
    with pytest.raises(StorageError) as caught:
        checkpoints.newest(note=lambda text: None)
    assert str(caught.value) == (
        "E-RESUME-001 None of the 2 checkpoints is whole. "
        "Checkpoint step-00000030 is damaged: state.json is not what was saved.\n"
        f"Where: {checkpoints.folder}\n"
        "Why: Starting over would throw away what was trained, so that is not done in silence.\n"
        "Do: Put a good copy back, or start anew under another --name."
    )
    assert caught.value.exit_code == 8


def test_one_of_a_newer_format_is_refused_and_none_before_it_is_used(checkpoints: Checkpoints) -> None:
    path = checkpoints.folder / "step-00000030" / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({"format": 2, "parts": manifest["files"]}))
    for refused in (
        lambda: newest_step(checkpoints, []),
        lambda: read(path.parent),
        checkpoints.refuse_newer,
    ):
        with pytest.raises(StorageError) as caught:
            refused()
        assert str(caught.value) == (
            "E-CKPT-004 Checkpoint step-00000030 has format 2; this Fusain reads up to format 1.\n"
            f"Where: {path.parent}\n"
            "Why: The run was trained by a newer Fusain.\n"
            "Do: Update Fusain."
        )
    for odd in ({}, {"format": None}, {"format": "new"}):
        path.write_text(json.dumps({**odd, "files": manifest["files"]}))
        assert newest_step(checkpoints, []) == 20, "it is damaged"
        checkpoints.refuse_newer()


def test_a_folder_without_a_manifest_is_no_checkpoint(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "step-00000040").mkdir()
    (checkpoints.folder / ".tmp-step-00000050-abc").mkdir()
    assert newest_step(checkpoints, []) == 30
    checkpoints.clean()
    assert not (checkpoints.folder / ".tmp-step-00000050-abc").exists()


def fail(number: int, times: int, real: Any) -> Any:
    """`real`, which fails the first `times` times."""
    calls = iter(range(1_000_000))

    def call(*arguments: Any, **named: Any) -> Any:
        if next(calls) < times:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    return call


def test_a_rename_is_tried_three_times(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", fail(errno.EACCES, 2, os.rename))
    save(checkpoints, 40)
    assert newest_step(checkpoints, []) == 40


@pytest.mark.parametrize(("call", "number"), [("rename", errno.EXDEV), ("fsync", errno.EIO)])
def test_a_save_that_fails_is_not_published(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(os, call, fail(number, 1, getattr(os, call)))
    with pytest.raises(OSError, match=os.strerror(number)):
        save(checkpoints, 40)
    assert [path.name for path in checkpoints.folder.iterdir() if path.name.startswith(".")] == []
    assert newest_step(checkpoints, []) == 30


def test_an_old_one_that_cannot_be_deleted_is_tried_again(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", fail(errno.EBUSY, 1000, os.rmdir))
        patched.setattr(os, "unlink", fail(errno.EBUSY, 1000, os.unlink))
        save(checkpoints, 40)
    assert newest_step(checkpoints, []) == 40
    save(checkpoints, 50)
    assert [path.name for path in checkpoints.listed()] == ["step-00000040", "step-00000050"]


def test_the_manifest_knows_every_file(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder / "step-00000030"
    manifest = json.loads((folder / MANIFEST).read_text())
    assert sorted(manifest["files"]) == ["optimizer.safetensors", "state.json", "trainable.safetensors"]
