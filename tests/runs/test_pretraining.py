"""A miniature made from nothing, at the smallest size: every part for real, found again, and a base in the end."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from fusain.models.bases import fresh
from fusain.runs import pretraining
from fusain.worlds import face_reader
from fusain.worlds.caricatures import ATTRIBUTES
from fusain.worlds.mini.miniature import MINI_SD, Miniature
from fusain.worlds.mini.vocabulary import RARE_WORDS
from fusain.worlds.mini.words import Lesson

FEW = """
steps = 3
batch_size = 4
[engine]
device = "cpu"
precision = "fp32"
threads = 1
[samples]
every_steps = 0
"""


def smallest(folder: Path) -> Miniature:
    dropout = "condition_dropout = 0.1"
    for name, method in (("autoencoder", "rescale = true"), ("hearing", dropout), ("drawing", dropout)):
        kind = "autoencoder" if name == "autoencoder" else "full"
        lines = ["[family]", 'kind = "sd"', "size = 64", "[method]", f'kind = "{kind}"', method]
        (folder / f"{name}.toml").write_text("\n".join([*lines, "[data]", "held_out = 4", "[train]", FEW]))
    return replace(
        MINI_SD,
        sizes=replace(fresh.TINY, image=64),
        drawings=40,
        autoencoder=folder / "autoencoder.toml",
        text_to_image=(folder / "hearing.toml", folder / "drawing.toml"),
        judge=face_reader.plan(drawings=60, steps=3),
        lesson=Lesson(steps=3, captions=4),
        judged=5,
        steps=2,
    )


def test_a_miniature_is_made_and_found_again(tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    miniature = smallest(tmp_path)
    made = pretraining.pretrain(miniature, tmp_path / "mini")
    assert made.folder is not None
    assert made.quality is not None
    assert set(made.quality.attributes) <= set(ATTRIBUTES)
    assert 0 <= made.quality.worst <= made.quality.mean <= 1
    assert 0 < made.quality.face_psnr < 30
    pipeline = DiffusionPipeline.from_pretrained(made.folder)
    assert all(len(pipeline.tokenizer.tokenize(word)) == 1 for word in RARE_WORDS)
    assert pipeline.vae.config.scaling_factor != 0.18215
    card = (made.folder / "README.md").read_text()
    assert "the characters Ada" in card
    assert f"| attributes, mean | {made.quality.mean:.3f} | at least 0.90 |" in card
    assert "- **autoencoder**: method autoencoder, steps 3, batch_size 4" in card
    stored = load_file(made.folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert {parameter.dtype for parameter in pipeline.unet.parameters()} == {torch.float32}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mini").glob("*/*.png")}
    assert len(before) == 80
    again = pretraining.pretrain(miniature, tmp_path / "mini")
    assert again.quality is not None
    assert again.quality.attributes == made.quality.attributes
    assert {path: path.stat().st_mtime_ns for path in before} == before
