"""Several processes learn what one does, stop, fail and resume as one, and only the first writes."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fusain.data.cores import usable_cores
from fusain.errors import DataError, EnvironmentFault, FusainError, SettingsError
from fusain.models.bases import fresh, fresh_sd3
from fusain.runs import actions, assembly, planning
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve, resolve_source
from fusain.training import engine as engines
from fusain.training.engine import EngineSettings
from fusain.worlds.caricatures import portraits, write_folder
from tests.runs.faults import SHORT, refused, steps_saved
from tests.runs.test_faults_stops import children
from tests.runs.test_recipes_on_the_miniature import SMALL
from tests.runs.training import (
    as_overrides,
    assert_equal_runs,
    kill,
    kinds,
    losses,
    start_training,
    train_here,
    wait_for,
)

TWO = {"engine.processes": 2}
NO_DROPOUT = {"family.dropout": 0.0, "family.class_dropout": 0.0}


def test_two_processes_learn_what_one_does(settings: Path, runs: Path) -> None:
    """Parts of 3 and 2 images, gradients of two batches added up, and a part that is frozen on the way."""
    changes = NO_DROPOUT | {"train.steps": 50, "train.batch_size": 5, "train.accumulation": 2}
    changes |= {"method.condition_warmup": 2.0, "checkpoint.every_steps": 25, "samples.every_steps": 50}
    for name, more in (("one", {}), ("two", TWO)):
        train_here(settings, name, runs, changes | more)
    one, two = losses(runs / "one"), losses(runs / "two")
    assert list(two) == list(range(1, 51))
    assert two == pytest.approx(one, rel=1e-5)
    for kind in ("note", "held_out", "checkpoint", "samples", "done"):
        first, second = ([row["step"] for row in kinds(runs / name, kind)] for name in ("one", "two"))
        assert first == second
    (frozen,) = kinds(runs / "two", "note")
    assert frozen["text"].startswith("the network that reads the condition is frozen from step ")
    held_out = [[row["loss"] for row in kinds(runs / name, "held_out")] for name in ("one", "two")]
    assert held_out[1] == pytest.approx(held_out[0], rel=1e-5)
    assert steps_saved(runs / "two") == [25, 50]
    assert not torch.distributed.is_initialized()
    assert (runs / "two" / "weights" / "fusain.json").exists()


def after_resume(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    places = [place for place, row in enumerate(rows) if row["kind"] == "resumed"]
    return rows[places[-1] :] if places else []


def is_gone(process: int) -> bool:
    """Ended, whether or not somebody has asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_whichever_process_is_stopped_all_end_and_the_run_resumes(settings: Path, runs: Path) -> None:
    """The first by SIGKILL, and then another one by SIGTERM."""
    process = start_training(settings, "run", runs, SHORT | TWO | {"train.steps": 5000})
    wait_for(runs / "run", lambda rows: any(row["kind"] == "checkpoint" for row in rows), process, seconds=300)
    (other,) = children(process.pid)
    kill(process)
    until = time.monotonic() + 300
    while not is_gone(other):
        assert time.monotonic() < until, "the other one lives on"
        time.sleep(0.05)

    process = start_training(settings, "run", runs, SHORT | TWO | {"train.steps": 5000})
    wait_for(runs / "run", lambda rows: any(row["kind"] == "step" for row in after_resume(rows)), process, seconds=300)
    (other,) = children(process.pid)
    os.kill(other, signal.SIGTERM)
    process.join(300)
    assert process.exitcode == 143, (runs / "run.stderr").read_text()
    assert not Path(f"/proc/{other}").exists()
    (stopped,) = kinds(runs / "run", "stopped")
    assert (stopped["reason"], stopped["step"]) == ("terminated", steps_saved(runs / "run")[-1])

    shutil.copytree(runs / "run", runs / "alone")
    longer = SHORT | {"train.steps": stopped["step"] + 4}
    train_here(settings, "run", runs, longer | TWO)
    train_here(settings, "undisturbed", runs, longer | TWO)
    assert_equal_runs(runs / "undisturbed", runs / "run")

    train_here(settings, "alone", runs, longer)
    assert losses(runs / "alone") != losses(runs / "run")
    assert kinds(runs / "alone", "note")[-1]["text"] == (
        "Resumed with engine.processes = 1 where it was 2: images keep their order, noise and time, but sums are "
        "rounded in another order and dropout drops others: no longer equal to the last bit."
    )


def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """What the other process does before its step 7; Python runs `sitecustomize` when it starts."""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from fusain.training.trainer import Trainer\n"
        "real = Trainer._gradients\n"
        "def gradients(trainer, micro):\n"
        "    if trainer.step == 6:\n"
        f"        {action}\n"
        "    return real(trainer, micro)\n"
        "Trainer._gradients = gradients\n"
    )
    monkeypatch.syspath_prepend(folder / "elsewhere")


def test_a_fault_of_one_process_is_the_fault_of_the_run(
    settings: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, monkeypatch, "micro[0].pixels_BCHW[1] = float('nan')")
    fault = refused(settings, runs, TWO)
    told = json.loads((runs / "run" / "diagnosis.json").read_text())
    assert (fault.code, fault.where, fault.exit_code) == ("E-TRAIN-001", "step 7", 7)
    assert fault.message.what == (
        f"The loss is nan: the training stopped before it touched the weights. Images in it: {told['suspects'][0]}."
    )
    assert (told["suspects"], told["draws"]) == ([told["images"][3]], [24, 25, 26, 27])
    assert [row["code"] for row in kinds(runs / "run", "failed")] == ["E-TRAIN-001"]
    assert steps_saved(runs / "run") == [4]
    assert not torch.distributed.is_initialized()


def test_processes_that_see_different_data_do_not_train(
    settings: Path, runs: Path, sprites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault of another process comes over word by word."""
    folder = shutil.copytree(sprites, tmp_path / "own")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "sitecustomize.py").write_text(
        "import pathlib\n"
        "from fusain.runs import assembly\n"
        "real = assembly.prepare_data\n"
        "def prepare_data(*given, **named):\n"
        f"    next(pathlib.Path({str(folder)!r}).rglob('*.png')).unlink()\n"
        "    return real(*given, **named)\n"
        "assembly.prepare_data = prepare_data\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    own = {"data.path": str(folder), **TWO}

    def seen() -> str:
        own_settings = resolve_source(RunSettings, settings, as_overrides(own)).settings
        return assembly.prepare_data(own_settings, folder=None, report=None).id

    wanted, fault = seen(), refused(settings, runs, own)
    assert str(fault) == (
        "E-RUN-011 The processes of this run see different data.\n"
        f"Where: {folder}\n"
        f"Why: Process 2 found data {seen()}, the first one {wanted}.\n"
        "Do: Change no images while a run starts; then give the same command again."
    )
    assert type(fault) is DataError
    assert not (runs / "run" / "checkpoints").exists()


def test_a_process_that_is_killed_ends_the_run(
    settings: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    assert str(refused(settings, runs, TWO)) == (
        "E-RUN-010 Process 2 of 2 ended without a word (signal 9).\n"
        "Where: engine.processes\n"
        "Why: The others cannot go on without its part of each batch. Systems end processes when memory runs out.\n"
        "Do: Give the same command again, which goes on from the last checkpoint; with fewer processes "
        "(--engine.processes) there is more memory for each."
    )
    assert steps_saved(runs / "run") == [4]


LEARNS = {"method.text_encoder": "true"}
OF_MANY = {"method.text_encoder_steps": "1", "family.clip_skip": "1", "engine.channels_last": "on"}
OF_SHAPES = {"data.buckets": "true"}
OF_CLASS = {"data.subject.class_word": "face", "data.class_images.count": "4", "data.class_images.weight": "0.5"}
OTHERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "sd, buckets": ("text-to-image", "sd", LEARNS | OF_MANY | OF_SHAPES),
    "sd, a word": ("textual-inversion", "sd", {"data.captions.trigger_word": "<sks>"}),
    "sdxl, DreamBooth by a LoRA, base in 8 bits": (
        "dreambooth-lora",
        "sdxl",
        LEARNS | OF_CLASS | {"engine.base_bits": "8"},
    ),
    "sd3": ("text-to-image", "sd3", LEARNS),
    "sd, DreamBooth with masks": ("dreambooth", "sd", OF_CLASS | {"data.masks.use": "files"}),
    "sd, its autoencoder": ("caricature", "sd", {"method.kind": "autoencoder", "track.wandb": "off"}),
    "pixel, unsteered": ("unconditional", "pixel", {"family.channels": "[8, 16]", "train.held_out_every_steps": "3"}),
}
"""Recipes, families, and what is set otherwise."""
BASES = {
    "sd": partial(fresh.write, fresh.TINY),
    "sdxl": partial(fresh.write, fresh.TINY_XL),
    "sd3": partial(fresh_sd3.write, with_t5=True),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_recipes_learn_the_same_in_two_processes(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    recipe, kind, changes = OTHERS[case]
    write_folder(portraits("Ada", 4), tmp_path / "images", with_masks="data.masks.use" in changes)
    if OF_SHAPES.items() <= changes.items():
        for number in (0, 3):
            with Image.open(path := tmp_path / "images" / f"{number:05d}.png") as image:
                image.crop((0, 0, 40, 64)).save(path)
    own = {"family.kind": kind, "family.size": "32", **changes}
    if kind in BASES:
        BASES[kind](folder=tmp_path / "base")
        own["family.base"] = str(tmp_path / "base")
    own |= {"data.path": str(tmp_path / "images"), "runs_folder": str(tmp_path)}
    found = []
    for count in ("1", "2"):
        more = {"engine.processes": count, "train.steps": "3"}
        run = actions.train(recipe, name=f"of-{count}", overrides=list((SMALL | own | more).items())).folder
        found.append(losses(run))
    assert list(found[1]) == [1, 2, 3]
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def faults_of(**engine: Any) -> FusainError:
    text = "[data]\npath = 'x'\n[train]\nsteps = 1\nbatch_size = 4\n[engine]\n"
    text += "\n".join(f"{name} = {value!r}" for name, value in engine.items())
    with pytest.raises(SettingsError) as caught:
        resolve(RunSettings, text=text)
    return caught.value


def test_more_processes_than_images_a_batch() -> None:
    assert str(faults_of(processes=5)) == (
        "E-CFG-034 5 processes cannot share a batch of 4: each takes at least one image.\n"
        "Where: engine.processes\n"
        "Do: Set train.batch_size to 5 or more, or engine.processes to 4 or less."
    )


def test_less_than_one_process() -> None:
    fault = faults_of(processes=0)
    assert (fault.code, fault.where) == ("E-CFG-017", "settings line 7")
    assert "engine.processes" in fault.message.what


def test_several_processes_on_one_named_gpu() -> None:
    assert str(faults_of(processes=2, device="cuda:1")) == (
        'E-CFG-035 engine.processes = 2 does not work with engine.device = "cuda:1".\n'
        "Where: engine.processes\n"
        "Why: Each process takes a GPU of its own, by its number, or all share the CPU.\n"
        "Do: Set engine.device to cuda, cpu or auto, or engine.processes to 1."
    )


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(EnvironmentFault) as caught:
        engines.resolve(EngineSettings(device="cuda", processes=3, precision="fp32"))
    assert str(caught.value) == (
        "E-ENV-009 engine.processes = 3, but this machine has 2 GPUs that PyTorch can use.\n"
        "Where: engine.processes\n"
        "Why: Each process needs a GPU of its own.\n"
        "Do: Set engine.processes to 2 or less, or train on the CPU: --device cpu."
    )


def test_the_plan_is_of_one_process(settings: Path) -> None:
    """Of the one with most images, and with the copies in which gradients are summed up."""
    one, two = (
        planning.plan(settings, overrides=as_overrides(changes), measure=False)
        for changes in ({"train.batch_size": 3}, TWO | {"train.batch_size": 5})
    )
    assert two.memory_foreseen == replace(one.memory_foreseen, gradients=2 * one.memory_foreseen.gradients)
    assert dict(two.lines())["processes"] == (
        "2: memory and time are for each, time without their exchange of gradients"
    )
    assert "processes" not in dict(one.lines())


def test_threads_are_shared_out() -> None:
    cores = usable_cores()
    found = [engines.resolve(EngineSettings(device="cpu", processes=count)).threads for count in (1, 2, 999)]
    assert found == [cores, max(1, cores // 2), 1]
