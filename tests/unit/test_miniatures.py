"""The miniatures that the package carries: real pipelines of the promised size, found by their names."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fusain.cli.main import fusain
from fusain.models import bases
from fusain.models.bases.opening import lies_at
from fusain.worlds.caricatures import ATTRIBUTES
from fusain.worlds.mini.miniature import MINI_SD, MINI_SDXL, MINIATURES, Miniature
from fusain.worlds.mini.vocabulary import RARE_WORDS

PIPELINES = {"mini-sd": "StableDiffusionPipeline", "mini-sdxl": "StableDiffusionXLPipeline"}


@pytest.fixture(scope="module", params=MINIATURES.values(), ids=MINIATURES)
def miniature(request: pytest.FixtureRequest) -> Miniature:
    found: Miniature = request.param
    return found


@pytest.fixture(scope="module")
def folder(miniature: Miniature) -> Path:
    return lies_at(f"fusain:{miniature.name}")


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_they_are_small_and_safe(folder: Path) -> None:
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".safetensors", ".json", ".txt", ".md"}
    sizes = {name: size(lies_at(f"fusain:{name}")) for name in MINIATURES}
    assert sizes["mini-sd"] <= 20_000_000
    assert sum(sizes.values()) <= 40_000_000


def test_what_can_be_shared_is_shared() -> None:
    one, other = (lies_at(f"fusain:{miniature.name}") for miniature in (MINI_SD, MINI_SDXL))
    shared = ["vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"]
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in shared)


def test_it_does_not_say_where_it_was_made(folder: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*folder.rglob("*.json"), folder / "README.md")]
    assert not any("_name_or_path" in text or str(Path.home()) in text for text in texts)


def test_its_path_is_told(miniature: Miniature, folder: Path) -> None:
    found = CliRunner().invoke(fusain, ["models", "path", f"fusain:{miniature.name}"])
    assert (found.exit_code, found.output) == (0, f"{folder}\n")


def test_plain_diffusers_loads_it_and_draws(miniature: Miniature, folder: Path) -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline).__name__ == PIPELINES[miniature.name]
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    image = pipeline("a face", num_inference_steps=2, generator=generator, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    assert image.std() > 0.05


def test_rare_words_are_one_token_each(folder: Path) -> None:
    tokenizer = bases.load_tokenizer(bases.open_base(str(folder)), None)
    assert [len(tokenizer.tokenize(word)) for word in RARE_WORDS] == [1] * 6


def test_its_card_tells_how_it_was_made_and_how_good_it_is(miniature: Miniature, folder: Path) -> None:
    """The recipes that the package carries, the seed, the identity of the images, and what was measured."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    made = f"`fusain world pretrain {miniature.name}`, seed {miniature.seed}: from {miniature.drawings:,} faces"
    assert made in card
    assert (f"those of `{miniature.shared}`" in card) is bool(miniature.shared)
    first = {"autoencoder": miniature.autoencoder} if miniature.autoencoder else {}
    for name, path in {**first, **miniature.text_to_image}.items():
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        train = settings["train"]
        told = ", ".join(
            f"{key} {train[key]}" for key in ("steps", "batch_size", "optimizer", "learning_rate", "schedule")
        )
        line = rf"- \*\*{name}\*\*: method {settings['method']['kind']}, {told}; images `[0-9a-f]{{64}}`"
        assert re.search(rf"^{line}$", card, re.MULTILINE), line
    shares = dict(re.findall(r"^\| (\w+) \| ([01]\.\d{3}) \|$", card, re.MULTILINE))
    assert list(shares) == list(ATTRIBUTES)
    bars, numbers = miniature.bars, [float(share) for share in shares.values()]
    assert min(numbers) >= bars.worst
    assert sum(numbers) / len(numbers) >= bars.mean
    measured = dict(re.findall(r"^\| ([\w, ]+) \| ([\d.]+)(?: dB| s)? \| at (?:least|most) ", card, re.MULTILINE))
    assert float(measured["attributes, mean"]) == pytest.approx(sum(numbers) / len(numbers), abs=1e-3)
    assert float(measured["attributes, worst"]) == min(numbers)
    assert float(measured["faces given back"]) >= bars.face_psnr
    assert float(measured["reading lost by that"]) <= bars.reading_lost
    assert float(measured["four images"]) <= bars.seconds_for_four
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == PIPELINES[miniature.name]
