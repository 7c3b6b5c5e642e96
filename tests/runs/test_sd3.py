"""Stable Diffusion 3 at its smallest real size: the same pixels from every door, LoRA, resume, and every recipe."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fusain.errors import FusainError
from fusain.models import adapters
from fusain.models.bases import fresh_sd3
from fusain.runs import actions, planning, publishing
from fusain.runs.settings import RunSettings
from fusain.settings import recipes
from fusain.settings.read import resolve_source
from fusain.worlds.caricatures import portraits, world, write_folder
from tests.record import OF_RECIPES
from tests.runs.training import as_overrides, assert_equal_runs, flat, kinds, losses, train_here

SETTINGS = """
[family]
kind = "sd3"
base = "{base}"
size = 32

[data]
path = "{data}"
held_out = 4

[train]
steps = 4
batch_size = 4
learning_rate = 1e-2
held_out_every_steps = 2
ema_decay = 0.5

[checkpoint]
every_steps = 2

[samples]
every_steps = 4
steps = 3
count = 1
guidance = 3.0
prompts = ["a red hat", "green skin"]
negative = "glasses"

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""
PROMPTS = ["a red hat", "green skin"]
LORA = {"method.kind": "lora", "method.rank": 4, "method.text_encoder": True, "method.targets": "all"}
WITHOUT_T5 = {"text_encoder_3": None, "tokenizer_3": None}
NO_KOHYA = (
    "W-LORA-023 No 'lora_kohya.safetensors' will be written: kohya's style has no name for {layers} of {layers} "
    "layers, the first is 'transformer.pos_embed.proj'. (family.base) They are in blocks that Stable Diffusion XL does "
    "not have, or in a transformer, whose names are not written. diffusers and ComfyUI load the other file."
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, captioned faces and settings."""
    folder = tmp_path_factory.mktemp("sd3")
    fresh_sd3.write(folder / "base", with_t5=True)
    write_folder(world(16, seed=4), folder / "faces")
    (folder / "sd3.toml").write_text(SETTINGS.format(base=folder / "base", data=folder / "faces"))
    return folder


def drawn(run: Path, target: Path) -> list[np.ndarray]:
    return flat(actions.generate(run, prompts=PROMPTS, negative="glasses", count=1, output=target).images)


def by_diffusers(weights: Path, change: Any = None, **parts: Any) -> list[np.ndarray]:
    """The same images without Fusain; `change` is told the pipeline before."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(weights, **parts)
    pipeline.set_progress_bar_config(disable=True)
    if change is not None:
        change(pipeline)
    options = {"num_inference_steps": 3, "guidance_scale": 3.0, "height": 32, "width": 32, "negative_prompt": "glasses"}
    return [
        np.asarray(pipeline(prompt, generator=torch.Generator().manual_seed(0), **options).images[0])
        for prompt in PROMPTS
    ]


def apart(these: list[np.ndarray], those: list[np.ndarray]) -> int:
    """The largest difference of any two numbers."""
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(these, those, strict=True))


def sampled(run: Path) -> list[np.ndarray]:
    return flat(sorted((run / "samples" / "step-00000004").glob("0*.png")))


@pytest.mark.parametrize("t5", ["on", "off"])
def test_all_weights_learn_and_every_door_draws_the_same(place: Path, tmp_path: Path, t5: str) -> None:
    changes = {"method.text_encoder": True, "family.t5": t5, "family.shift": 2.0}
    train_here(place / "sd3.toml", "run", tmp_path, changes)
    run, parts = tmp_path / "run", WITHOUT_T5 if t5 == "off" else {}
    assert apart(sampled(run), drawn(run, tmp_path / "drawn")) == 0
    assert apart(sampled(run), by_diffusers(run / "weights", **parts)) <= 1
    assert apart(sampled(run), by_diffusers(place / "base", **parts)) > 8, "what learns nothing proves nothing"
    for part, stays in {"transformer": ("pos_embed.pos_embed",), "text_encoder": (), "text_encoder_2": ()}.items():
        name = "diffusion_pytorch_model" if part == "transformer" else "model"
        before, after = (
            load_file(folder / part / f"{name}.safetensors") for folder in (place / "base", run / "weights")
        )
        assert before.keys() == after.keys()
        unmoved = [name for name in after if torch.equal(before[name], after[name])]
        assert unmoved == [name for name in after if name.startswith(stays or "-")]
    assert (run / "weights" / "text_encoder_3").exists() == (t5 == "on")
    images = actions.generate(run, prompts=PROMPTS, count=1, output=tmp_path / "latest", checkpoint="latest").images
    assert len(images) == 2


def test_stored_encodings_change_no_loss_and_no_encoder_takes_memory(place: Path, tmp_path: Path) -> None:
    short = {"samples.every_steps": 0, "data.flip": True, "method.condition_dropout": 0.3}
    train_here(place / "sd3.toml", "stored", tmp_path, short)
    train_here(place / "sd3.toml", "each", tmp_path, short | {"data.cache": "none"})
    np.testing.assert_allclose(
        list(losses(tmp_path / "stored").values()), list(losses(tmp_path / "each").values()), rtol=2e-5
    )
    foreseen = planning.plan(place / "sd3.toml", overrides=[("data.flip", "true")], measure=False).stored_encodings
    assert foreseen == 16 * 2 * 4 * (32 * 8 * 8) + 16 * 4 * (77 * 40 + 256 * 48 + 32)


@pytest.mark.parametrize("method", [{"method.text_encoder": True}, LORA], ids=["full", "lora"])
def test_it_learns_in_half_precision(place: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    for precision in ("fp32", "bf16"):
        changes = {"engine.precision": precision, "train.learning_rate": 1e-4, **method}
        train_here(place / "sd3.toml", precision, tmp_path, changes)
    half, full = (list(losses(tmp_path / precision).values()) for precision in ("bf16", "fp32"))
    np.testing.assert_allclose(half, full, rtol=2e-2)
    assert half != full
    assert apart(sampled(tmp_path / "bf16"), sampled(tmp_path / "fp32")) <= 16


def test_a_lora_is_drawn_alike_by_fusain_and_by_diffusers(place: Path, tmp_path: Path) -> None:
    train_here(place / "sd3.toml", "run", tmp_path, LORA)
    run = tmp_path / "run"
    assert apart(sampled(run), drawn(run, tmp_path / "drawn")) <= 1
    assert apart(sampled(run), by_diffusers(place / "base")) > 8, "a LoRA that does nothing proves nothing"
    own = by_diffusers(place / "base", lambda pipeline: pipeline.load_lora_weights(run / "weights"))
    assert apart(sampled(run), own) <= 1
    assert [path.name for path in (run / "weights").glob("*.safetensors")] == ["lora.safetensors"]
    found = adapters.read(run / "weights" / "lora.safetensors")
    assert set(found.parts) == {"transformer", "text_encoder", "text_encoder_2"}
    assert found.metadata["modelspec.architecture"] == "stable-diffusion-3/lora"
    assert found.metadata["modelspec.prediction_type"] == "flow"
    (told,) = [event["text"] for event in kinds(run, "warning") if event["code"] == "W-LORA-023"]
    assert told == NO_KOHYA.format(layers=len(found.layers))
    keys = load_file(run / "weights" / "lora.safetensors")
    assert "transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight" in keys
    assert "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_B.weight" in keys


TARGETS = {
    "attention": {"attn": ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")},
    "attention+feed_forward": {"ff": ("net.0.proj", "net.2"), "ff_context": ("net.0.proj", "net.2")},
}


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", sorted(TARGETS))
def test_plain_names_mean_its_layers(place: Path, tmp_path: Path, targets: str, dora: bool) -> None:
    changes = {"method.kind": "lora", "method.rank": 2, "method.targets": targets, "method.dora": dora}
    train_here(place / "sd3.toml", "run", tmp_path, changes)
    run = tmp_path / "run"
    wanted = TARGETS["attention"] | TARGETS[targets]
    names = {
        f"transformer.transformer_blocks.{block}.{part}.{path}"
        for block in (0, 1)
        for part, paths in wanted.items()
        for path in paths
        if block == 0 or not (path == "to_add_out" or part == "ff_context")  # the last block gives no text back
    }
    names |= {f"transformer.transformer_blocks.0.attn2.{path}" for path in ("to_q", "to_k", "to_v", "to_out.0")}
    assert set(adapters.read(run / "weights" / "lora.safetensors").layers) == names
    own = by_diffusers(place / "base", lambda pipeline: pipeline.load_lora_weights(run / "weights"))
    assert apart(sampled(run), own) <= 1


def test_a_lora_of_it_cannot_be_written_for_kohya_and_says_so(place: Path, tmp_path: Path) -> None:
    layer = "transformer.transformer_blocks.0.attn.to_q"
    made = adapters.Adapter({layer: adapters.LowRank(torch.ones(1, 32), torch.ones(32, 1), 1.0)})
    assert adapters.styles_for(made) == ("diffusers",)
    with pytest.raises(FusainError) as caught:
        adapters.write(made, tmp_path / "lora.safetensors", "kohya")
    assert str(caught.value) == (
        "E-LORA-021 Kohya's style has no name for this layer: it is in none of the blocks that Stable Diffusion XL "
        f"has, or in a transformer, whose names are not written.\nWhere: {layer}\n"
        "Do: Write it in diffusers' style: --to diffusers."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {**LORA, "method.dropout": 0.3, "data.crop": "random", "data.flip": True},
        {"method.text_encoder": True, "engine.gradient_checkpointing": True, "data.buckets": True},
        {"family.t5": "off", "family.times": "uniform", "method.loss.min_snr_gamma": 5.0},
    ],
    ids=["lora, random crops", "all weights, buckets", "stored encodings"],
)
def test_resume_is_exact(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {"samples.every_steps": 0, **changes}
    train_here(place / "sd3.toml", "whole", tmp_path, changes)
    train_here(place / "sd3.toml", "parts", tmp_path, {**changes, "train.steps": 2})
    train_here(place / "sd3.toml", "parts", tmp_path, changes)
    assert kinds(tmp_path / "parts", "resumed")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def refused(place: Path, tmp_path: Path, changes: dict[str, Any]) -> str:
    with pytest.raises(FusainError) as caught:
        train_here(place / "sd3.toml", "run", tmp_path, changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "kinds"),
    [
        ("prediction", "v", ("pixel", "sd", "sdxl")),
        ("zero_terminal_snr", "on", ("pixel", "sd", "sdxl")),
        ("clip_skip", 1, ("sd", "sdxl")),
    ],
)
def test_settings_of_other_families_are_refused(place: Path, name: str, value: object, kinds: tuple[str, ...]) -> None:
    with pytest.raises(FusainError) as caught:
        resolve_source(RunSettings, place / "sd3.toml", as_overrides({f"family.{name}": value}))
    belongs = " or ".join(f"family.kind = '{kind}'" for kind in kinds)
    assert str(caught.value) == (
        f"E-CFG-009 'family.{name}' has no place in this run: it belongs to {belongs}.\n"
        f"Where: --family.{name}\nDo: Remove it, or choose that kind."
    )


def test_samplers_that_follow_no_line_are_refused_before_it_trains(place: Path, tmp_path: Path) -> None:
    assert refused(place, tmp_path, {"samples.sampler": "dpm++-2m"}) == (
        "E-GEN-012 Sampler 'dpm++-2m' does not fit this model: it cannot draw from a model that matches a flow.\n"
        "Where: samples.sampler\nDo: Use one of: ddim, euler, heun."
    )
    assert refused(place, tmp_path, {"samples.eta": 0.5}) == (
        "E-GEN-014 This model draws along straight lines, to which no fresh noise is added, and an eta of 0.5 was "
        "asked for.\nWhere: samples.eta\nDo: Leave it at 0."
    )


@pytest.mark.parametrize("t5", ["on", "off"])
@pytest.mark.parametrize("method", [{}, {"method.kind": "lora", "method.rank": 4}], ids=["full", "lora"])
def test_the_code_on_its_card_draws_what_was_sampled(
    place: Path, tmp_path: Path, t5: str, method: dict[str, Any]
) -> None:
    changes = {"family.t5": t5, "family.shift": 2.0, "samples.sampler": "heun", **method}
    run = train_here(place / "sd3.toml", "run", tmp_path, changes).folder
    published = publishing.publish(run, dry_run=True, licence="mit")
    (code,) = re.findall(r"```python\n(.*?)```", published.card.read_text(), re.DOTALL)
    code = code.replace('"OWNER/NAME"', f'"{run / "weights"}"').replace('"BASE"', f'"{place / "base"}"')
    exec(compile(code.replace("image.png", str(tmp_path / "image.png")), "card", "exec"), {})
    assert apart([np.asarray(Image.open(tmp_path / "image.png"))], [sampled(run)[0]]) <= 1


@pytest.mark.parametrize("vectors", [1, 2])
def test_a_word_is_put_in_by_hand_as_its_card_says(place: Path, tmp_path: Path, vectors: int) -> None:
    """diffusers' pipeline loads none, and T5 reads the word as it is written."""
    word = {"method.kind": "textual_inversion", "method.token": "<ada>", "method.start_word": "a"}
    own = {"method.vectors": vectors, "data.captions.trigger_word": "<ada>", "samples.prompts": ["a hat of <ada>, red"]}
    run = train_here(place / "sd3.toml", "run", tmp_path, word | own).folder
    file = run / "weights" / "learned_embeds.safetensors"
    assert {name: tuple(rows.shape) for name, rows in load_file(file).items()} == {
        "clip_l": (vectors, 16),
        "clip_g": (vectors, 24),
    }
    published = publishing.publish(run, dry_run=True, licence="mit")
    (code,) = re.findall(r"```python\n(.*?)```", published.card.read_text(), re.DOTALL)
    code = re.sub(r"hf_hub_download\(.*?\)", f'"{file}"', code).replace('"BASE"', f'"{place / "base"}"')
    exec(compile(code.replace("image.png", str(tmp_path / "image.png")), "card", "exec"), {})
    assert apart([np.asarray(Image.open(tmp_path / "image.png"))], sampled(run)) <= 1


FOR_LATENTS = [name for name in recipes.names() if recipes.load(name).values["family"]["kind"] == "sd"]
SMALL = {
    "family.kind": "sd3",
    "family.size": "32",
    "train.steps": "2",
    "train.batch_size": "2",
    "train.accumulation": "1",
    "samples.every_steps": "0",
    "samples.steps": "2",
    "engine.device": "cpu",
    "engine.precision": "fp32",
    "engine.threads": "1",
}


@pytest.mark.parametrize("recipe", FOR_LATENTS)
def test_the_recipes_of_stable_diffusion_run_on_it(recipe: str, place: Path, tmp_path: Path) -> None:
    """With another kind of family and another base, and without a line of theirs changed."""
    write_folder(portraits("Ada", 4), tmp_path / "images")
    own = {"family.base": str(place / "base"), "data.path": str(tmp_path / "images"), "runs_folder": str(tmp_path)}
    own |= OF_RECIPES.get(recipe, {})
    run = actions.train(recipe, name="run", overrides=list((SMALL | own).items())).folder
    assert len(losses(run)) == 2
    assert json.loads((run / "settings.json").read_text())["family"]["kind"] == "sd3"
    prompt = "a <sks>" if recipe == "textual-inversion" else "a flat drawing of a person"
    (path,) = actions.generate(run, prompts=prompt, count=1, runs_folder=tmp_path).images
    with Image.open(path) as image:
        assert image.size == (32, 32)
