"""The miniature that the package carries: a real pipeline of the promised size, found by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fusain.cli.main import fusain
from fusain.errors import SettingsError
from fusain.models import bases
from fusain.models.bases.opening import lies_at
from fusain.worlds.mini.vocabulary import RARE_WORDS


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return lies_at("fusain:mini-sd")
    except SettingsError:
        pytest.skip("the package carries no miniature yet")


def test_it_is_small_and_safe(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}


def test_it_does_not_say_where_it_was_made(folder: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*folder.rglob("*.json"), folder / "README.md")]
    assert not any("_name_or_path" in text or str(Path.home()) in text for text in texts)


def test_its_path_is_told(folder: Path) -> None:
    found = CliRunner().invoke(fusain, ["models", "path", "fusain:mini-sd"])
    assert (found.exit_code, found.output) == (0, f"{folder}\n")


def test_plain_diffusers_loads_it_and_draws(folder: Path) -> None:
    from diffusers import DiffusionPipeline, StableDiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline) is StableDiffusionPipeline
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    image = pipeline("a face", num_inference_steps=2, generator=generator, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    assert image.std() > 0.05


def test_rare_words_are_one_token_each(folder: Path) -> None:
    tokenizer = bases.load_tokenizer(bases.open_base(str(folder)), None)
    assert [len(tokenizer.tokenize(word)) for word in RARE_WORDS] == [1] * 6


def test_its_card_tells_how_it_was_made_and_how_good_it_is(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "fusain world pretrain mini-sd" in card
    assert "| attributes, mean |" in card
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
