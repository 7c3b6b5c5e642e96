"""A run that ends copies its weights where the user's own settings want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from fusain.models import adapters
from fusain.models.bases import fresh
from fusain.worlds.caricatures import world, write_folder
from tests.runs.test_sdxl import LORA, SETTINGS, WORD
from tests.runs.training import train_here


def test_the_end_of_a_run_copies_its_weights(tmp_path, settings, runs, monkeypatch):
    (tmp_path / "settings.toml").write_text(f'weights_folder = "{tmp_path / "finished"}"\n')
    monkeypatch.setenv("FUSAIN_CONFIG", str(tmp_path))
    heard: list[dict] = []
    result = train_here(settings, "first", runs, {"train.steps": 2}, report=heard.append)
    assert result.step == 2
    copied = tmp_path / "finished" / "first"
    assert f"The weights were copied to {copied}." in [event["text"] for event in heard if event["kind"] == "note"]
    files = sorted(path.relative_to(copied) for path in copied.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(result.folder / "weights") for path in (result.folder / "weights").rglob("*") if path.is_file()
    )
    weights = next(path for path in copied.rglob("*.safetensors"))
    assert load_file(weights)


QUICK = {"train.steps": 1, "samples.every_steps": 0, "data.held_out": "none"}
FILES = ("lora.safetensors", "lora_kohya.safetensors")


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of runs on the smallest XL."""
    folder = tmp_path_factory.mktemp("copied")
    fresh.write(fresh.TINY_XL, folder / "base")
    write_folder(world(8, seed=4), folder / "faces")
    text = SETTINGS.format(base=folder / "base", data=folder / "faces")
    (folder / "xl.toml").write_text(text.replace("condition_dropout = 0.2\n", ""))
    return folder / "xl.toml"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user interface looks for LoRAs, with something of the user's in it."""
    (tmp_path / "settings.toml").write_text(f'weights_folder = "{tmp_path / "loras"}"\n')
    monkeypatch.setenv("FUSAIN_CONFIG", str(tmp_path))
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "ada").write_text("not of a run")
    return tmp_path / "loras"


def stems(folder: Path) -> list[str]:
    """By which A1111 and Forge tell LoRAs, wherever they lie."""
    return sorted(path.stem for path in folder.rglob("*.safetensors"))


def test_loras_of_xl_land_under_names_that_tell_them_apart(xl: Path, mine: Path, tmp_path: Path) -> None:
    """Of two runs of one name, and of the first once more; each file is the one of its run, and none is another's."""
    copies = {"ada-2": tmp_path / "one", "ada-3": tmp_path / "two"}
    for seed, folder in enumerate(copies.values()):
        train_here(xl, "ada", folder, {**LORA, **QUICK, "train.seed": seed})
    heard: list[dict[str, Any]] = []
    train_here(xl, "ada", tmp_path / "one", {**LORA, **QUICK, "train.seed": 0}, report=heard.append)
    assert f"The weights lie already in {mine / 'ada-2'}." in [row["text"] for row in heard if row["kind"] == "note"]
    assert stems(mine) == sorted(f"{name}-{Path(file).stem}" for name in copies for file in FILES)
    assert sorted(path.name for path in mine.iterdir()) == ["ada", "ada-2", "ada-3"]
    assert (mine / "ada").read_text() == "not of a run"
    for name, folder in copies.items():
        for file in FILES:
            there = mine / name / f"{name}-{file}"
            assert there.read_bytes() == (folder / "ada" / "weights" / file).read_bytes()
            assert set(adapters.read(there).parts) == {"unet", "text_encoder", "text_encoder_2"}


def test_a_word_is_called_by_its_run(xl: Path, mine: Path, tmp_path: Path) -> None:
    train_here(xl, "ada", tmp_path, {**WORD, **QUICK, "data.captions.trigger_word": "<ada>"})
    assert stems(mine) == ["ada-2-learned_embeds"]
    assert load_file(mine / "ada-2" / "ada-2-learned_embeds.safetensors").keys() == {"clip_l", "clip_g"}
