"""Stable Diffusion XL at its smallest real size: every method, the same pixels from every door, and every recipe."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fusain.errors import NonFiniteError, UsageError
from fusain.models import adapters
from fusain.models.bases import fresh
from fusain.runs import actions, assembly, planning, publishing
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.settings import recipes
from fusain.settings.read import resolve_source
from fusain.training.events import EventLog
from fusain.worlds.caricatures import portraits, world, write_folder
from tests.record import OF_RECIPES
from tests.runs.training import assert_equal_runs, flat, kinds, losses, train_here

SETTINGS = """
[family]
kind = "sdxl"
base = "{base}"
size = 32

[method]
condition_dropout = 0.2

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
WORD = {"method.kind": "textual_inversion", "method.token": "<ada>", "method.vectors": 2, "method.start_word": "a"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, captioned faces and settings."""
    folder = tmp_path_factory.mktemp("xl")
    fresh.write(fresh.TINY_XL, folder / "base")
    write_folder(world(16, seed=4), folder / "faces")
    (folder / "xl.toml").write_text(SETTINGS.format(base=folder / "base", data=folder / "faces"))
    return folder


SIDES = [(64, 96), (100, 64), (48, 48), (40, 80), (64, 64), (96, 96)]


def drawn(run: Path, target: Path, prompts: list[str] = PROMPTS) -> list[np.ndarray]:
    return flat(actions.generate(run, prompts=prompts, negative="glasses", count=1, output=target).images)


def by_diffusers(weights: Path, change: Any = None, prompts: list[str] = PROMPTS) -> list[np.ndarray]:
    """The same images without Fusain; `change` is told the pipeline before."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(weights)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    if change is not None:
        change(pipeline)
    options = {"num_inference_steps": 3, "guidance_scale": 3.0, "height": 32, "width": 32, "negative_prompt": "glasses"}
    return [
        np.asarray(pipeline(prompt, generator=torch.Generator().manual_seed(0), **options).images[0])
        for prompt in prompts
    ]


def apart(these: list[np.ndarray], those: list[np.ndarray]) -> int:
    """The largest difference of any two numbers."""
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(these, those, strict=True))


def sampled(run: Path) -> list[np.ndarray]:
    return flat(sorted((run / "samples" / "step-00000004").glob("0*.png")))


def changed(place: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """Settings of a method that has no share of hidden captions of its own."""
    path = folder / "own.toml"
    path.write_text((place / "xl.toml").read_text().replace("condition_dropout = 0.2\n", ""))
    return path


def test_all_weights_learn_and_every_door_draws_the_same(place: Path, tmp_path: Path) -> None:
    train_here(place / "xl.toml", "run", tmp_path, {"method.text_encoder": True})
    run = tmp_path / "run"
    assert apart(sampled(run), drawn(run, tmp_path / "drawn")) == 0
    assert apart(sampled(run), by_diffusers(run / "weights")) <= 1
    for part, stays in {
        "text_encoder": ("text_model.encoder.layers.1.", "text_model.final_"),
        "text_encoder_2": (),
    }.items():
        before, after = (load_file(folder / part / "model.safetensors") for folder in (place / "base", run / "weights"))
        assert before.keys() == after.keys()
        unmoved = [name for name in after if torch.equal(before[name], after[name])]
        assert unmoved == [name for name in after if name.startswith(stays or "-")], "the last states are not read"


def test_stored_encodings_change_no_loss_and_no_encoder_takes_memory(place: Path, tmp_path: Path) -> None:
    short = {"samples.every_steps": 0, "data.flip": True}
    train_here(place / "xl.toml", "stored", tmp_path, short)
    train_here(place / "xl.toml", "each", tmp_path, short | {"data.cache": "none"})
    np.testing.assert_allclose(
        list(losses(tmp_path / "stored").values()), list(losses(tmp_path / "each").values()), rtol=2e-5
    )
    overrides = [("data.flip", "true")]
    foreseen = planning.plan(place / "xl.toml", overrides=overrides, measure=False).stored_encodings
    assert foreseen == 16 * 2 * 4 * (8 * 8 * 8) + 16 * 4 * (77 * 40 + 20), "both forms of each image, and each caption"
    family = trainer(place, tmp_path, short).parts.family
    assert family.autoencoder is None
    assert family.text_encoders() == {}
    assert all(name.startswith("unet.") for name, _ in family.network.named_parameters())


def trainer(place: Path, tmp_path: Path, changes: dict[str, Any]) -> Any:
    overrides = [("runs_folder", str(tmp_path)), *((key, json.dumps(value)) for key, value in changes.items())]
    settings = assembly.resolved_engine(resolve_source(RunSettings, place / "xl.toml", overrides).settings)
    folder = RunFolder.named(tmp_path, "bare")
    folder.create()
    log = EventLog(folder.events, ())
    return assembly.build_trainer(settings, folder, assembly.prepare_data(settings, folder=folder, report=log), log)


@pytest.mark.parametrize("crop", ["center", "random"])
def test_the_sizes_and_crops_of_the_data_reach_the_unet(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    """From files of several shapes, cropped and mirrored: what the loader cut is what the UNet is told."""
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "images"
    images.mkdir()
    sizes = {f"{number}.png": size for number, size in enumerate(SIDES * 2)}
    for number, size in enumerate(sizes.values()):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)).save(
            images / f"{number}.png"
        )
        (images / f"{number}.txt").write_text("a thing")
    changes = {"data.path": str(images), "data.crop": crop, "data.flip": True, "data.held_out": "none"}
    parts = trainer(place, tmp_path, changes).parts
    batches = parts.batches(0)
    seen = []
    for _ in range(6):
        batch = next(batches)
        told = parts.family.encode_condition(batch, None).framings_B6
        assert torch.equal(told[:, :4], batch.framings_B4.float())
        assert told[:, 4:].tolist() == [[32.0, 32.0]] * 4
        assert told[:, :2].tolist() == [list(map(float, sizes[name])) for name in parts.names(batch.items)]
        seen += [(height, width, top, left) for height, width, top, left in told[:, :4].tolist()]
    offsets = {(top, left) for height, width, top, left in seen if (height, width) == (64, 96)}
    assert offsets == {(0.0, 8.0)} if crop == "center" else len(offsets) > 1


def test_a_lora_is_drawn_alike_by_fusain_and_by_diffusers_in_both_styles(place: Path, tmp_path: Path) -> None:
    train_here(place / "xl.toml", "run", tmp_path, LORA)
    run, files = tmp_path / "run", ("lora.safetensors", "lora_kohya.safetensors")
    assert apart(sampled(run), drawn(run, tmp_path / "drawn")) <= 1
    for name in files:
        own = by_diffusers(
            place / "base", lambda pipeline, name=name: pipeline.load_lora_weights(run / "weights", weight_name=name)
        )
        assert apart(sampled(run), own) <= 1
        found = adapters.read(run / "weights" / name)
        assert set(found.parts) == {"unet", "text_encoder", "text_encoder_2"}
        assert found.metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert apart(sampled(run), by_diffusers(place / "base")) > 8, "a LoRA that does nothing proves nothing"
    keys = load_file(run / "weights" / files[1])
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight" in keys
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in keys
    assert "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in keys


def teach(pipeline: Any, file: Path) -> None:
    """As diffusers is told a word: each encoder its part."""
    words = load_file(file)
    for key, number in (("clip_l", ""), ("clip_g", "_2")):
        pipeline.load_textual_inversion(
            words[key],
            token="<ada>",
            text_encoder=getattr(pipeline, f"text_encoder{number}"),
            tokenizer=getattr(pipeline, f"tokenizer{number}"),
        )


def test_a_word_is_learnt_for_both_encoders_and_read_by_diffusers(place: Path, tmp_path: Path) -> None:
    prompts = ["a <ada>", "a hat of <ada>, red"]
    data = tmp_path / "faces"
    data.mkdir()
    for path in sorted((place / "faces").glob("*.png"))[:8]:
        shutil.copyfile(path, data / path.name)
    own = {"data.path": str(data), "data.held_out": 2, "samples.prompts": prompts, "method.condition_dropout": 0.0}
    train_here(place / "xl.toml", "run", tmp_path, WORD | own | {"data.captions.missing": "allow"})
    run = tmp_path / "run"
    stored = load_file(run / "weights" / "learned_embeds.safetensors")
    assert {name: tuple(rows.shape) for name, rows in stored.items()} == {"clip_l": (2, 16), "clip_g": (2, 24)}
    assert apart(sampled(run), drawn(run, tmp_path / "drawn", prompts)) == 0
    theirs = by_diffusers(
        place / "base", lambda pipeline: teach(pipeline, run / "weights/learned_embeds.safetensors"), prompts
    )
    assert apart(sampled(run), theirs) <= 1
    published = publishing.publish(run, dry_run=True, licence="mit")
    (code,) = re.findall(r"```python\n(.*?)```", published.card.read_text(), re.DOTALL)
    code = re.sub(r"hf_hub_download\(.*?\)", f'"{run / "weights" / "learned_embeds.safetensors"}"', code)
    code = code.replace('"BASE"', f'"{place / "base"}"').replace("image.png", str(tmp_path / "image.png"))
    exec(compile(code, "card", "exec"), {})
    assert apart([np.asarray(Image.open(tmp_path / "image.png"))], [sampled(run)[0]]) <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {**LORA, "method.dropout": 0.3, "data.crop": "random", "data.flip": True},
        {"method.text_encoder": True, "engine.gradient_checkpointing": True, "data.buckets": True},
    ],
    ids=["lora, random crops", "all weights, buckets"],
)
def test_resume_is_exact(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {"samples.every_steps": 0, **changes}
    train_here(place / "xl.toml", "whole", tmp_path, changes)
    train_here(place / "xl.toml", "parts", tmp_path, {**changes, "train.steps": 2})
    train_here(place / "xl.toml", "parts", tmp_path, changes)
    assert kinds(tmp_path / "parts", "resumed")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.fixture
def overflowing(place: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A base whose autoencoder overflows with white images, as those in half precision do, and images of which one is.

    The squares of its bright numbers have no place in fp32, those of nearly grey ones have.
    """
    base = Path(shutil.copytree(place / "base", tmp_path / "base"))
    path = base / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["encoder.conv_in.weight"].fill_(1e19)
    save_file(tensors, path)
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.new("RGB", (48, 40), "white" if number == 5 else (128, 128, 128)).save(
            tmp_path / "images" / f"{number}.png"
        )
        (tmp_path / "images" / f"{number}.txt").write_text("a wall")
    return base, tmp_path / "images"


def not_finite(place: Path, tmp_path: Path, overflowing: tuple[Path, Path], changes: dict[str, Any]) -> NonFiniteError:
    base, images = overflowing
    own = {"family.base": str(base), "data.path": str(images), "data.held_out": "none", "samples.every_steps": 0}
    with pytest.raises(NonFiniteError) as caught:
        train_here(place / "xl.toml", "run", tmp_path, own | changes)
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))
    return caught.value


def test_latents_that_are_not_finite_stop_with_the_image_named(
    place: Path, tmp_path: Path, overflowing: tuple[Path, Path]
) -> None:
    assert str(not_finite(place, tmp_path, overflowing, {})) == (
        "E-TRAIN-010 The autoencoder makes numbers of '5.png' that are not finite (NaN or infinite); nothing is "
        f"learnt from such latents.\nWhere: {tmp_path / 'images'}\n"
        "Why: A broken autoencoder does so with every image, and one that overflows in half precision with bright "
        "ones.\nDo: Look at the image; if it is whole, give another autoencoder: family.vae."
    )


def test_latents_that_are_not_stored_and_not_finite_stop_with_the_image_named(
    place: Path, tmp_path: Path, overflowing: tuple[Path, Path]
) -> None:
    """Where each draw is cropped anew, every step encodes its images; one epoch has them all."""
    fault = not_finite(place, tmp_path, overflowing, {"data.crop": "random"})
    assert fault.where in ("step 1", "step 2")
    assert str(fault) == (
        "E-TRAIN-001 The loss is nan: the training stopped before it touched the weights. Images in it: 5.png.\n"
        f"Where: {fault.where}\n"
        "Why: A learning rate that is too high, an overflow in half precision, or a broken image makes such numbers.\n"
        "Do: Look at the images; try --train.learning_rate at a tenth, or --engine.precision fp32. The last checkpoint "
        "is good, and diagnosis.json says more."
    )


def test_another_autoencoder_takes_the_place_of_that_of_the_base(place: Path, tmp_path: Path) -> None:
    """A folder of one, of which all weights are saved with it."""
    fresh.write(fresh.TINY_XL, tmp_path / "other", seed=7)
    train_here(place / "xl.toml", "run", tmp_path, {"family.vae": str(tmp_path / "other" / "vae")})
    run, file = tmp_path / "run", "vae/diffusion_pytorch_model.safetensors"
    saved, given, replaced = (
        load_file(folder / file) for folder in (run / "weights", tmp_path / "other", place / "base")
    )
    assert all(torch.equal(saved[name], given[name]) for name in given)
    assert not torch.equal(given["decoder.conv_out.weight"], replaced["decoder.conv_out.weight"])
    assert apart(sampled(run), drawn(run, tmp_path / "drawn")) == 0
    assert apart(sampled(run), by_diffusers(run / "weights")) <= 1


def test_a_lora_learns_and_draws_with_another_autoencoder(place: Path, tmp_path: Path) -> None:
    """That of another whole model, whose folder is named."""
    from diffusers import AutoencoderKL

    fresh.write(fresh.TINY_XL, tmp_path / "other", seed=7)
    train_here(place / "xl.toml", "run", tmp_path, {**LORA, "family.vae": str(tmp_path / "other")})
    run = tmp_path / "run"
    assert apart(sampled(run), drawn(run, tmp_path / "drawn")) <= 1

    def change(pipeline: Any) -> None:
        pipeline.vae = AutoencoderKL.from_pretrained(tmp_path / "other" / "vae")
        pipeline.load_lora_weights(run / "weights", weight_name="lora.safetensors")

    assert apart(sampled(run), by_diffusers(place / "base", change)) <= 1


def test_its_recipe_cuts_skips_words_and_saves_as_it_is_asked_to(place: Path, tmp_path: Path) -> None:
    """Larger images are cut, smaller ones listed, captions beside the images have a fallback, each epoch is saved."""
    images = tmp_path / "images"
    images.mkdir()
    for number, size in enumerate([(64, 96), (100, 64), (20, 48), (40, 80), (64, 64), (31, 31)]):
        pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    (images / "0.txt").write_text("a thing, sleeping")
    own = {
        "family.base": str(place / "base"),
        "family.size": 32,
        "data.path": str(images),
        "data.captions.trigger_word": "sks",
        "data.held_out": "none",
        "method.text_encoder": True,
        "train.epochs": 3,
        "samples.every_steps": 0,
        "engine.device": "cpu",
        "engine.precision": "fp32",
        "engine.threads": 1,
    }
    run = train_here(Path("sdxl-lora"), "run", tmp_path, own).folder
    lock = json.loads((run / "data.lock.json").read_text())
    assert lock["quarantined"] == [["2.png", "E-DATA-033"], ["5.png", "E-DATA-033"]]
    (told,) = [event["text"] for event in kinds(run, "warning") if event["code"] == "W-DATA-045"]
    assert told == "2 images are smaller than 32 x 32 and are put aside (data.small = \"skip\"): '2.png', '5.png'."
    assert [path.name for path in sorted((run / "checkpoints").glob("step-*"))] == [
        "step-00000004",
        "step-00000008",
        "step-00000012",
    ]
    settings = RunSettings.model_validate_json((run / "settings.json").read_text())
    dataset = assembly.prepare_data(settings, folder=RunFolder(run), report=None)
    assert dataset.said(np.arange(4)) == ("sks, a thing, sleeping", *["sks, a picture"] * 3)
    found = adapters.read(run / "weights" / "lora_kohya.safetensors")
    assert set(found.parts) == {"unet", "text_encoder", "text_encoder_2"}
    assert found.metadata["ss_network_dim"] == found.metadata["ss_network_alpha"] == "16"
    allowed = train_here(Path("sdxl-lora"), "all", tmp_path, own | {"data.small": "enlarge", "train.epochs": 1}).folder
    assert len(losses(allowed)) == 6
    drawn = actions.generate(run, prompts=["sks"], count=1, runs_folder=tmp_path, checkpoint="4")
    assert len(drawn.images) == 1


FOR_LATENTS = [name for name in recipes.names() if recipes.load(name).values["family"]["kind"] == "sd"]
SMALL = {
    "family.kind": "sdxl",
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
    prompt = "a <sks>" if recipe == "textual-inversion" else "a flat drawing of a person"
    (path,) = actions.generate(run, prompts=prompt, count=1, runs_folder=tmp_path).images
    with Image.open(path) as image:
        assert image.size == (32, 32)


def test_images_are_drawn_as_if_they_had_been_small_or_cut(place: Path, tmp_path: Path) -> None:
    run = train_here(place / "xl.toml", "run", tmp_path, {"train.steps": 1, "samples.every_steps": 0}).folder

    def facts_and_pixels(name: str, **wish: Any) -> tuple[dict[str, Any], np.ndarray]:
        drawn = actions.generate(run, prompts=["a red hat"], count=1, output=tmp_path / name, **wish)
        with Image.open(drawn.images[0]) as image:
            return json.loads(image.text["fusain"]), np.asarray(image)  # type: ignore[attr-defined]

    plain, as_it_is = facts_and_pixels("plain")
    whole, same = facts_and_pixels("whole", original_size=(32, 32))
    told, other = facts_and_pixels("told", original_size=(64, 96), crop=(40, 8))
    assert {"original_size", "crop"}.isdisjoint(plain)
    assert (whole["original_size"], whole["crop"]) == ([32, 32], [0, 0])
    assert (told["original_size"], told["crop"]) == ([96, 64], [40, 8])
    assert np.array_equal(as_it_is, same)
    assert not np.array_equal(as_it_is, other)
    for where, wish, told in (
        ("--crop", {"crop": (32, 0)}, "There is nothing at 32,0 of an image of 32 x 32 pixels."),
        ("--original-size", {"original_size": (0, 0)}, "There is nothing at 0,0 of an image of 0 x 0 pixels."),
    ):
        with pytest.raises(UsageError) as caught:
            actions.generate(run, prompts=["a red hat"], count=1, output=tmp_path / "refused", **wish)
        assert str(caught.value) == (
            f"E-GEN-016 {told}\nWhere: {where}\nDo: Give a place (left, top) within it, or a larger --original-size."
        )


def test_a_gpu_is_planned_for_where_there_is_none(place: Path, tmp_path: Path) -> None:
    """No step is measured, so the device need not be here: precision, layout and average are as they would be on it."""
    own = {"family.base": str(place / "base"), "family.size": "32", "data.path": str(place / "faces")}
    own |= {"runs_folder": str(tmp_path), "engine.device": "cuda"}
    found = planning.plan("sdxl-full-24gb", overrides=list(own.items()), measure=False)
    engine = found.settings["engine"]
    assert (engine["device"], engine["precision"]) == ("cuda", "bf16")
    assert found.memory_foreseen.average == 0, "it lies in the machine's memory"
    here = planning.plan("sdxl-full-24gb", overrides=list((own | {"engine.device": "cpu"}).items()), measure=False)
    assert here.memory_foreseen.average > 0
