"""A LoRA beside a base in fewer bits: it learns as before, and what is saved belongs to the whole base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fusain.errors import FusainError
from fusain.models.packed import Packing
from fusain.runs import actions, assembly
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve, resolve_source
from fusain.worlds.caricatures import world, write_folder
from tests.runs.training import as_overrides, assert_equal_runs, final_state, losses, train_here

SETTINGS = """
[family]
kind = "sd"
base = "fusain:mini-sd"
size = 64

[method]
kind = "lora"
rank = 2
targets = "all"
file_dtype = "fp32"

[data]
path = "{data}"
held_out = 4

[train]
steps = 4
batch_size = 2
held_out_every_steps = 4
ema_decay = 0.0

[checkpoint]
every_steps = 2

[samples]
every_steps = 0
steps = 2

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, and a run at all bits."""
    folder = tmp_path_factory.mktemp("bits")
    write_folder(world(16, seed=4), folder / "faces")
    (folder / "lora.toml").write_text(SETTINGS.format(data=folder / "faces"))
    train_here(folder / "lora.toml", "whole", folder)
    return folder


FORMS: dict[str, tuple[dict[str, Any], float]] = {
    "16": ({"engine.base_bits": 16}, 1e-3),
    "8, recomputed": ({"engine.base_bits": 8, "engine.gradient_checkpointing": True}, 0.02),
    "4, dora": ({"engine.base_bits": 4, "method.dora": True}, 0.2),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_learns_nearly_as_beside_the_whole_base(form: str, place: Path, tmp_path: Path) -> None:
    """The losses are near, the file has the same layers in the same shapes, and what learns is in fp32."""
    changes, near = FORMS[form]
    train_here(place / "lora.toml", "run", tmp_path, changes)
    assert losses(tmp_path / "run") == pytest.approx(losses(place / "whole"), rel=near)
    learnt = [one for name, one in final_state(tmp_path / "run").items() if name.startswith("trainable/")]
    assert {one.dtype for one in learnt} == {torch.float32}
    if "method.dora" not in changes:
        saved, plain = (load_file(run / "weights" / "lora.safetensors") for run in (tmp_path / "run", place / "whole"))
        assert {name: one.shape for name, one in saved.items()} == {name: one.shape for name, one in plain.items()}


def test_a_stopped_run_goes_on_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    eight = {"engine.base_bits": 8}
    train_here(place / "lora.toml", "whole", tmp_path, eight)
    train_here(place / "lora.toml", "run", tmp_path, eight | {"train.steps": 2})
    train_here(place / "lora.toml", "run", tmp_path, eight)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_what_is_drawn_and_merged_with_is_the_original(place: Path, tmp_path: Path) -> None:
    """A LoRA goes into the whole base, of which nothing was packed; at strength 0 that is the base to the last bit."""
    train_here(place / "lora.toml", "run", tmp_path, {"engine.base_bits": 8})
    base = actions.open_run("whole", strength=0.0, runs_folder=place).learner.family.network
    own, merged = (
        actions.open_run("run", strength=strength, runs_folder=tmp_path).learner.family.network
        for strength in (0.0, 1.0)
    )
    assert not any(isinstance(module, Packing) for module in merged.modules())
    original = dict(base.named_parameters())
    assert all(torch.equal(one, original[name]) for name, one in own.named_parameters())
    assert any(not torch.equal(one, original[name]) for name, one in merged.named_parameters())


def test_the_denoiser_takes_so_much_less_room(place: Path) -> None:
    sizes = {}
    for bits in (32, 16, 8, 4):
        overrides = as_overrides({"engine.base_bits": bits})
        settings = resolve_source(RunSettings, place / "lora.toml", overrides).settings
        network = assembly.build_trainee(settings, ()).family.network
        unet, text = network.get_submodule("unet"), network.get_submodule("text_encoder")
        assert not any(isinstance(module, Packing) for module in text.modules()), "captions are read as ever"
        kept = (*unet.parameters(), *unet.buffers())
        sizes[bits] = sum(one.numel() * one.element_size() for one in kept)
    shares = {bits: round(size / sizes[32], 2) for bits, size in sizes.items()}
    assert shares[16] < 0.53
    assert shares[8] < 0.30
    assert shares[4] < 0.20


def test_a_method_that_changes_the_base_is_refused() -> None:
    text = '[method]\nkind = "full"\n[data]\npath = "images"\n[train]\nsteps = 9\n[engine]\nbase_bits = 8\n'
    with pytest.raises(FusainError) as caught:
        resolve(RunSettings, text=text)
    assert str(caught.value) == (
        "E-CFG-050 Method 'full' changes the base, which cannot be in 8 bits then.\nWhere: engine.base_bits\n"
        "Why: Steps are far smaller than what so few bits can tell apart.\n"
        'Do: Leave engine.base_bits at 32, or train a LoRA: method.kind = "lora".'
    )
