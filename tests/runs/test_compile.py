"""A compiled denoiser: compiled once, learning the same, with no trace in what is saved, giving way where it fails."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from fusain.errors import SettingsError
from fusain.models.bases import fresh, fresh_sd3
from fusain.runs import actions, assembly, planning, usual
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve, resolve_source
from fusain.worlds.caricatures import portraits, write_folder
from tests.runs.faults import SHORT, warnings
from tests.runs.test_recipes_on_the_miniature import SMALL
from tests.runs.training import as_overrides, assert_equal_runs, final_state, kinds, losses, train_here

ON: dict[str, Any] = {"engine.compile": "on"}
NO_DROPOUT = {"family.dropout": 0.0, "family.class_dropout": 0.0}


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    torch.compiler.set_default_backend(None)


@pytest.fixture
def smallest(tmp_path: Path, settings: Path) -> Path:
    """Of convolutions and norms alone: each kind of operation more takes the whole compiler half a minute."""
    lines = [line for line in settings.read_text().splitlines() if not line.startswith(("class_", "cross_"))]
    text = "\n".join(lines).replace('condition = "class"', 'condition = "none"').replace("[8, 16]", "[8]")
    (tmp_path / "smallest.toml").write_text(text)
    return tmp_path / "smallest.toml"


@pytest.fixture
def traced_only() -> None:
    """All but the last stage: what is traced and differentiated runs operation by operation."""
    torch.compiler.set_default_backend("aot_eager")


def graphs() -> int:
    """How often something was compiled, in one piece each time."""
    assert not counters["graph_break"]
    return int(counters["stats"]["unique_graphs"])


def assert_saved_alike(one: Path, other: Path) -> None:
    """The same names in checkpoint and weights."""
    assert final_state(one).keys() == final_state(other).keys()
    first, second = (
        {(path.relative_to(run), name) for path in (run / "weights").rglob("*.safetensors") for name in load_file(path)}
        for run in (one, other)
    )
    assert first == second
    assert len(first) > 0


def from_its_checkpoint(run: Path, step: int) -> Path:
    """A copy of a run as it was at that step, to be gone on with."""
    copy = Path(shutil.copytree(run, run.with_name("again")))
    for path in (copy / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    return copy


def test_it_is_compiled_once_and_a_stopped_run_goes_on_to_the_same_bits(smallest: Path, runs: Path) -> None:
    """By the whole compiler, with dropout, which is another one when it is compiled."""
    train_here(smallest, "plain", runs, SHORT)
    assert graphs() == 0
    train_here(smallest, "whole", runs, SHORT | ON | {"samples.every_steps": 6})
    assert graphs() == 1
    assert warnings(runs / "whole") == []
    assert_saved_alike(runs / "plain", runs / "whole")
    again = from_its_checkpoint(runs / "whole", 8)
    train_here(smallest, "again", runs, SHORT | ON | {"samples.every_steps": 6})
    assert_equal_runs(runs / "whole", again)
    train_here(smallest, "again", runs, SHORT | {"train.steps": 16, "samples.every_steps": 6})
    assert [row["text"] for row in kinds(again, "note")][-1] == (
        "Resumed with engine.compile = off where it was on: sums are rounded in another order and dropout drops "
        "others: no longer equal to the last bit."
    )


def test_without_a_compiler_it_goes_on_as_it_is_and_says_so_once(
    smallest: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    train_here(smallest, "plain", runs, SHORT)
    train_here(smallest, "run", runs, SHORT | ON)
    assert warnings(runs / "run") == [
        (
            "W-ENV-001",
            "The denoiser could not be compiled (InvalidCxxCompiler: No working C++ compiler found in "
            "torch._inductor.config.cpp.cxx: ('no-such-compiler',)): it goes on uncompiled, slower and rounded "
            "otherwise.",
        )
    ]
    assert_equal_runs(runs / "plain", runs / "run")


CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "sd, LoRA and text encoder, recomputed": (
        "lora",
        "sd",
        {
            "method.text_encoder": "true",
            "engine.gradient_checkpointing": "true",
            "engine.channels_last": "on",
            "method.dropout": "0.1",
        },
    ),
    "sd, base in 8 bits": ("lora", "sd", {"engine.base_bits": "8"}),
    "sd, a word": ("textual-inversion", "sd", {"data.captions.trigger_word": "<sks>"}),
    "sdxl, all weights": ("text-to-image", "sdxl", {"train.ema_decay": "0.5"}),
    "sd3, LoRA": ("lora", "sd3", {"engine.precision": "bf16"}),
}
FLAT = replace(fresh.TINY, unet_channels=(8,), unet_attends=(True,))
FLAT_XL = replace(
    fresh.TINY_XL, unet_channels=(8, 16), unet_attends=(False, True), unet_layers=1, unet_transformers=(1, 2)
)
"""With few levels: it takes long to trace them, and they are all alike."""
BASES = {
    "sd": lambda folder: fresh.write(FLAT, folder),
    "sdxl": lambda folder: fresh.write(FLAT_XL, folder),
    "sd3": lambda folder: fresh_sd3.write(folder, with_t5=False),
}


@pytest.mark.prove
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("traced_only")
def test_every_kind_learns_the_same_and_resumes(case: str, tmp_path: Path) -> None:
    recipe, kind, more = CASES[case]
    write_folder(portraits("Ada", 4), tmp_path / "images")
    BASES[kind](tmp_path / "base")
    own = {
        "family.kind": kind,
        "family.base": str(tmp_path / "base"),
        "family.size": "32",
        "runs_folder": str(tmp_path),
    }
    own |= {"data.path": str(tmp_path / "images"), "train.steps": "4", "checkpoint.every_steps": "2", **more}
    own |= {"family.t5": "off"} if kind == "sd3" else {}

    def run(name: str, **changes: str) -> Path:
        return actions.train(recipe, name=name, overrides=list((SMALL | own | changes).items())).folder

    plain, whole = run("plain"), run("whole", **ON)
    assert graphs() == 1
    rel = 2e-2 if "engine.precision" in more else 1e-4
    assert losses(whole) == pytest.approx(losses(plain), rel=rel)
    assert_saved_alike(plain, whole)
    again = from_its_checkpoint(whole, 2)
    run("again", **ON)
    assert_equal_runs(whole, again)


@pytest.mark.prove
@pytest.mark.usefixtures("traced_only")
def test_each_shape_of_buckets_is_compiled_once(tmp_path: Path) -> None:
    """And what is compiled for one does not hang on which came before: a run that is gone on with ends alike."""
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0)
    for number, (width, height) in enumerate([(64, 64), (64, 128), (128, 64)] * 4):
        pixels = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "images" / f"{number}.txt").write_text("noise")
    BASES["sd"](tmp_path / "base")
    own = {"family.kind": "sd", "family.base": str(tmp_path / "base"), "data.path": str(tmp_path / "images")}
    own |= {"runs_folder": str(tmp_path), "data.buckets": "true", "data.held_out": "none", "train.steps": "9"}
    own |= {"checkpoint.every_steps": "4"}

    def run(name: str, **changes: str) -> Path:
        return actions.train("text-to-image", name=name, overrides=list((SMALL | own | changes).items())).folder

    plain, whole = run("plain"), run("whole", **ON)
    assert graphs() == 3
    assert [code for code, _ in warnings(whole) if code == "W-ENV-002"] == ["W-ENV-002"]
    assert losses(whole) == pytest.approx(losses(plain), rel=1e-4)
    torch.compiler.reset()
    again = from_its_checkpoint(whole, 4)
    run("again", **ON)
    assert_equal_runs(whole, again)


@pytest.mark.prove
@pytest.mark.usefixtures("traced_only")
def test_several_shapes_a_freeze_and_several_processes(
    settings: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "sitecustomize.py").write_text(
        "import torch\ntorch.compiler.set_default_backend('aot_eager')\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    changes = SHORT | NO_DROPOUT | {"method.condition_warmup": 0.1, "train.batch_size": 5, "family.channels": [8]}
    train_here(settings, "one", runs, changes)
    train_here(settings, "two", runs, changes | ON | {"engine.processes": 2})
    assert graphs() == 2, "what learns has changed once"
    assert warnings(runs / "two") == []
    assert losses(runs / "two") == pytest.approx(losses(runs / "one"), rel=1e-4)


@pytest.mark.usefixtures("traced_only")
def test_auto_measures_once_and_keeps_its_choice(
    smallest: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    auto = SHORT | {"engine.compile": "auto"}
    train_here(smallest, "run", runs, auto)
    (path,) = (tmp_path / "cache" / "compiling").iterdir()
    assert set(json.loads(path.read_text())) == {"plain", "compiled", "compiling"}
    (first,) = [row["text"] for row in kinds(runs / "run", "note")]
    assert first.startswith("engine.compile = off for 12 steps: a step takes "), "so few steps never pay"
    assert first.endswith(" s.")
    assert json.loads((runs / "run" / "settings.json").read_text())["engine"]["compile"] == "off"

    path.write_text(json.dumps({"plain": 0.5, "compiled": 0.25, "compiling": 2.0}))
    train_here(smallest, "other", runs, auto)
    assert [row["text"] for row in kinds(runs / "other", "note")] == [
        "engine.compile = on for 12 steps: a step takes 250 ms compiled and 500 ms as it is, and compiling takes 2 s, "
        "as measured before."
    ]
    path.unlink()
    train_here(smallest, "other", runs, auto | {"train.steps": 14})
    assert not path.exists(), "a run keeps what was chosen when it began"
    assert json.loads((runs / "other" / "settings.json").read_text())["engine"]["compile"] == "on"
    found = planning.plan(smallest, overrides=as_overrides({"train.steps": 100, **auto}), measure=False)
    assert found.settings["engine"]["compile"] == "auto"


def test_it_is_refused_where_gradients_are_given_back_one_by_one(settings: Path) -> None:
    fused = {"train.fused_backward": True, "train.optimizer": "adamw", "engine.compile": "auto"}
    with pytest.raises(SettingsError) as caught:
        resolve_source(RunSettings, settings, as_overrides(fused))
    assert str(caught.value) == (
        'E-FUSE-006 train.fused_backward does not work with engine.compile = "auto".\n'
        "Where: train.fused_backward\n"
        "Why: A compiled backward pass hands over the gradients of all weights at once, and nothing would be saved.\n"
        'Do: Set engine.compile = "off", or leave train.fused_backward off.'
    )


def test_it_is_said_where_it_has_no_effect_and_where_there_are_many_shapes(tmp_path: Path) -> None:
    for number, sides in enumerate([(64, 64), (64, 128), (128, 64)]):
        Image.new("RGB", sides).save(tmp_path / f"{number}.png")
    text = f"data.path = '{tmp_path}'\ntrain.steps = 1\nengine.compile = 'on'\nmethod.kind = 'autoencoder'\n"
    found = resolve(RunSettings, text=text + "family.kind = 'sd'")
    told = "'engine.compile' has no effect in this run: the denoiser, which it is for, does not learn."
    assert [notice.message.what for notice in found.notices if "engine.compile" in str(notice)] == [told]

    own = {"data.path": str(tmp_path), "data.captions.missing": "allow", "data.held_out": "none", **ON}
    own |= {"family.base": "fusain:mini-sd", "family.size": 64, "train.learning_rate": 1e-3}
    settings = resolve_source(RunSettings, "text-to-image", as_overrides(own)).settings
    dataset = assembly.prepare_data(settings, folder=None, report=None)
    family = assembly.without_weights(settings, dataset.classes).family
    assert [str(notice) for notice in usual.worth_a_word(settings, dataset, family)] == [
        "W-ENV-002 Images come in 3 shapes, and the denoiser is compiled for each when it first comes. "
        '(engine.compile) Where that takes too long, set engine.compile = "off", or have fewer shapes: '
        "data.bucket_aspect."
    ]
