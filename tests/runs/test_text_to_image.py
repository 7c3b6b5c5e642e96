"""Text to image on a tiny real Stable Diffusion: the same pixels from every door, caches, buckets and exact resume."""

import gc
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fusain.data import stored
from fusain.errors import SettingsError, StorageError, UsageError
from fusain.models.bases import fresh
from fusain.runs import actions, planning
from fusain.training import events
from fusain.worlds.caricatures import world, write_folder
from tests.runs.training import as_overrides, assert_equal_runs, flat, kinds, train_here, write_settings

SETTINGS = """
[family]
kind = "sd"
base = "{base}"
size = 32

[method]
condition_dropout = 0.2

[data]
path = "{data}"
held_out = 4

[train]
steps = 8
batch_size = 4
learning_rate = 1e-3
held_out_every_steps = 4

[checkpoint]
every_steps = 4

[samples]
every_steps = 8
steps = 3
count = 2
guidance = 3.0
prompts = ["a red hat", "green skin"]
negative = "glasses"

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, captioned faces, faces of several shapes, and settings for the first."""
    folder = tmp_path_factory.mktemp("text")
    fresh.write(fresh.TINY, folder / "base")
    write_folder(world(24, seed=4), folder / "faces")
    _wide_and_tall(folder / "faces", folder / "shapes")
    (folder / "text.toml").write_text(SETTINGS.format(base=folder / "base", data=folder / "faces"))
    return folder


def _wide_and_tall(faces: Path, folder: Path) -> None:
    folder.mkdir()
    lines = (faces / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    for number, line in enumerate(lines):
        name = json.loads(line)["file_name"]
        width, height = ((64, 64), (64, 40), (40, 64))[number % 3]
        Image.open(faces / name).resize((width, height)).save(folder / name)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    train_here(place / "text.toml", "run", place)
    return place / "run"


def test_training_generate_and_plain_diffusers_draw_the_same(trained: Path, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    sampled = flat(sorted((trained / "samples" / "step-00000008").glob("0*.png")))
    drawn = actions.generate(
        trained, prompts=["a red hat", "green skin"], negative="glasses", count=2, output=tmp_path / "drawn"
    )
    for one, other in zip(sampled, flat(drawn.images), strict=True):
        assert np.array_equal(one, other)
    pipeline = DiffusionPipeline.from_pretrained(trained / "weights")
    pipeline.set_progress_bar_config(disable=True)
    plain = [
        pipeline(
            prompt,
            negative_prompt="glasses",
            generator=torch.Generator().manual_seed(seed),
            num_inference_steps=3,
            guidance_scale=3.0,
            height=32,
            width=32,
        ).images[0]
        for prompt in ("a red hat", "green skin")
        for seed in (0, 1)
    ]
    for one, picture in zip(sampled, plain, strict=True):
        assert np.abs(one.astype(int) - np.asarray(picture)).max() <= 1


def test_the_command_draws_what_plain_diffusers_draws_at_another_size(trained: Path, tmp_path: Path) -> None:
    """From a file of prompts, with a negative one; `--size` is width x height."""
    from diffusers import DiffusionPipeline

    from fusain.cli import main as command

    prompts, drawn = tmp_path / "prompts.txt", tmp_path / "drawn"
    prompts.write_text("# two\na red hat\n\ngreen skin\n")
    wishes = ["--prompts-file", str(prompts), "--negative", "glasses", "--size", "64x32", "--seed", "7"]
    with pytest.raises(SystemExit) as caught:
        command.main(["generate", str(trained), *wishes, "--count", "2", "-o", str(drawn)])
    assert not caught.value.code
    pipeline = DiffusionPipeline.from_pretrained(trained / "weights")
    pipeline.set_progress_bar_config(disable=True)

    def plain(prompt: str, seed: int, negative: str | None) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        shape: dict[str, Any] = {"height": 32, "width": 64, "num_inference_steps": 3, "guidance_scale": 3.0}
        return np.asarray(pipeline(prompt, negative_prompt=negative, generator=generator, **shape).images[0])

    found = flat(sorted(drawn.glob("0*.png")))
    wanted = [plain(prompt, seed, "glasses") for prompt in ("a red hat", "green skin") for seed in (7, 8)]
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (32, 64, 3)
        assert np.abs(one.astype(int) - other).max() <= 1
    assert np.abs(wanted[0].astype(int) - plain("a red hat", 7, None)).max() > 1, "the negative prompt has no effect"


def test_prompts_steer_and_sizes_are_kept(trained: Path, tmp_path: Path) -> None:
    drawn = actions.generate(trained, prompts=["a", "b"], count=1, size=(64, 32), output=tmp_path / "drawn")
    one, other = flat(drawn.images)
    assert one.shape == (64, 32, 3)
    assert not np.array_equal(one, other)
    facts = json.loads(Image.open(drawn.images[1]).text["fusain"])  # type: ignore[attr-defined]
    assert (facts["prompt"], facts["seed"]) == ("b", 0)


def test_its_report_has_the_prompts_as_they_were_given(trained: Path) -> None:
    told = (trained / "report.html").read_text(encoding="utf-8")
    assert "green skin</th>" in told
    assert "green-skin" not in told


def test_with_stored_encodings_neither_encoder_takes_memory(place: Path, trained: Path, tmp_path: Path) -> None:
    before = _encoders_alive()
    trainer = _trainer(place, tmp_path)
    family = trainer.parts.family
    for drawn in (False, True):
        if drawn:
            trainer.parts.sample(0)  # for which both encoders wake
        assert _encoders_alive() == before, "somebody still holds an encoder"
        assert family.autoencoder is None
        assert family.text_encoders() == {}
        assert all(name.startswith("unet.") for name, _ in family.network.named_parameters())
    batch = next(iter(trainer.parts.batches(0)))
    assert batch.pixels_BCHW.numel() == 0
    assert batch.encoded_images.shape == (4, 8, 8, 8)
    assert batch.encoded_captions.shape == (4, 77, 16)


def test_a_training_that_ended_holds_no_memory(place: Path, tmp_path: Path) -> None:
    """Hooks of a fused step hold the network in circles, which Python would get to at some later time."""
    from diffusers import UNet2DConditionModel

    def alive() -> int:
        return sum(type(one) is UNet2DConditionModel for one in gc.get_objects())

    gc.collect()
    before = alive()
    gc.disable()
    try:
        train_here(place / "text.toml", "run", tmp_path, {"train.steps": 1, "train.fused_backward": True})
        assert alive() == before
    finally:
        gc.enable()


def _encoders_alive() -> int:
    """How many weights of autoencoders and text encoders this process holds, whoever made them."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    gc.collect()
    alive = [one for one in gc.get_objects() if type(one) in (AutoencoderKL, CLIPTextModel)]
    return sum(len(list(one.parameters())) for one in alive)


def test_stored_encodings_change_no_loss(place: Path, trained: Path) -> None:
    train_here(place / "text.toml", "uncached", place, {"data.cache": "none"})
    for kind in ("step", "held_out"):
        with_store = [event["loss"] for event in kinds(trained, kind)]
        without = [event["loss"] for event in kinds(place / "uncached", kind)]
        np.testing.assert_allclose(with_store, without, rtol=2e-5)


def test_an_edited_caption_or_image_redoes_only_its_entry(place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    faces = tmp_path / "faces"
    write_folder(world(24, seed=4), faces)
    changes = {"data.path": str(faces), "train.steps": 1}
    train_here(place / "text.toml", "first", tmp_path, changes)
    assert _entries(tmp_path / "cache") == {"8x8x8": 24, "77x16": 24}
    train_here(place / "text.toml", "again", tmp_path, changes)
    assert _entries(tmp_path / "cache") == {"8x8x8": 24, "77x16": 24}
    lines = (faces / "metadata.jsonl").read_text().splitlines()
    lines[3] = json.dumps({**json.loads(lines[3]), "text": "quite another caption"})
    (faces / "metadata.jsonl").write_text("\n".join(lines))
    Image.new("RGB", (64, 64), "teal").save(faces / "00005.png")
    train_here(place / "text.toml", "edited", tmp_path, changes)
    assert _entries(tmp_path / "cache") == {"8x8x8": 25, "77x16": 25}
    onward = {**changes, "family.base": str(tmp_path / "edited" / "weights"), "train.seed": 2}
    train_here(place / "text.toml", "onward", tmp_path, onward)
    assert _entries(tmp_path / "cache") == {"8x8x8": 25, "77x16": 25}, "only the UNet was trained"


@pytest.fixture(scope="module")
def encoded(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with what the plain settings store, and other encoders beside the base."""
    folder = tmp_path_factory.mktemp("encoded")
    fresh.write(fresh.TINY, folder / "other", seed=5)
    shutil.copytree(place / "base" / "tokenizer", folder / "words")
    table = json.loads((folder / "words" / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    vocabulary["a</w>"], vocabulary["e</w>"] = vocabulary["e</w>"], vocabulary["a</w>"]
    (folder / "words" / "tokenizer.json").write_text(json.dumps(table))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSAIN_CACHE", str(folder / "cache"))
        _trainer(place, folder)
    return folder


BOTH = {"8x8x8": 24, "77x16": 24}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"train.seed": 5, "train.learning_rate": 1e-4, "method.condition_dropout": 0.0, "train.batch_size": 2}, {}),
        ({"family.base": "other"}, BOTH),
        ({"family.vae": "other/vae"}, {"8x8x8": 24}),
        ({"data.flip": True}, {"8x8x8": 24}),
        ({"family.size": 64}, {"8x16x16": 24}),
        ({"data.crop": "random"}, {}),
        ({"family.tokenizer": "words"}, {"77x16": 24}),
        ({"family.clip_skip": 1}, {"77x16": 24}),
        ({"family.text_windows": 2}, {"154x16": 24}),
        ({"data.captions.suffix": "in chalk"}, {"77x16": 24}),
        ({"data.captions.shuffle_tokens": True}, {}),
        ({"method.text_encoder": True}, {}),
    ],
    ids=str,
)
def test_whatever_changes_an_encoding_makes_one_of_its_own(
    place: Path, encoded: Path, tmp_path: Path, monkeypatch: Any, changes: dict[str, Any], more: dict[str, int]
) -> None:
    """And what is handed over is what the encoders at hand make of image and caption."""
    monkeypatch.setenv("FUSAIN_CACHE", str(shutil.copytree(encoded / "cache", tmp_path / "cache")))
    places = ("family.base", "family.vae", "family.tokenizer")
    changes = {key: str(encoded / value) if key in places else value for key, value in changes.items()}
    trainer = _trainer(place, tmp_path, changes)
    assert _entries(tmp_path / "cache") == {
        shape: BOTH.get(shape, 0) + more.get(shape, 0) for shape in BOTH.keys() | more.keys()
    }
    batch = next(iter(trainer.parts.batches(0)))
    unstored = _trainer(place, tmp_path / "bare", {**changes, "data.cache": "none"}).parts
    plain = next(iter(unstored.batches(0)))
    assert batch.captions == plain.captions
    with torch.no_grad():
        if batch.encoded_images is not None:
            images = unstored.family.encode_pixels(plain.pixels_BCHW)
            torch.testing.assert_close(batch.encoded_images, images, rtol=0, atol=1e-5)
        if batch.encoded_captions is not None:
            captions = unstored.family.encode_captions(plain.captions)
            torch.testing.assert_close(batch.encoded_captions, captions, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words", "stored_shape"),
    [
        ({"method.text_encoder": True}, "captions are not kept: the text encoder learns", "8x8x8"),
        (
            {"data.captions.shuffle_tokens": True},
            "captions are not kept: every draw shuffles its caption (data.captions.shuffle_tokens)",
            "8x8x8",
        ),
        (
            {"data.crop": "random"},
            'images are not kept: every draw is cropped anew (data.crop = "random")',
            "77x16",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_not_and_that_is_said(
    place: Path, tmp_path: Path, monkeypatch: Any, changes: dict[str, Any], words: str, stored_shape: str
) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    trainer = _trainer(place, tmp_path, changes)
    assert _entries(tmp_path / "cache") == {stored_shape: 24}
    (told,) = [event["text"] for event in kinds(tmp_path / "bare", "warning") if event["code"] == "W-DATA-012"]
    assert told == f"W-DATA-012 Encoded {words}. They are encoded in every step, which is slower."
    assert set(trainer.parts.family.text_encoders()) == ({"text_encoder"} if stored_shape == "8x8x8" else set())
    assert (trainer.parts.family.autoencoder is None) == (stored_shape == "8x8x8")


def _entries(cache: Path) -> dict[str, int]:
    """How many entries of each shape were ever stored."""
    counts: dict[str, int] = {}
    for index in (cache / "encoded").glob("*/*.keys"):
        shape = index.stem.rpartition("-")[0]
        counts[shape] = counts.get(shape, 0) + index.stat().st_size // (stored.KEY_BYTES + stored.CHECK_BYTES)
    return counts


@pytest.mark.parametrize("changes", [{}, {"method.text_encoder": True, "engine.gradient_checkpointing": True}])
def test_resume_is_exact_with_buckets_and_stored_encodings(place: Path, tmp_path: Path, changes: dict) -> None:
    changes = {"data.path": str(place / "shapes"), "data.buckets": True, "data.flip": True, **changes}
    changes["samples.every_steps"] = 0
    train_here(place / "text.toml", "whole", tmp_path, changes)
    train_here(place / "text.toml", "parts", tmp_path, {**changes, "train.steps": 4})
    train_here(place / "text.toml", "parts", tmp_path, changes)
    assert kinds(tmp_path / "parts", "resumed")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_an_autoencoder_learns_without_captions_and_shows_what_it_gives_back(place: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in (place / "faces").glob("*.png"):
        (images / path.name).write_bytes(path.read_bytes())
    changes = {
        "data.path": str(images),
        "method.kind": "autoencoder",
        "method.rescale": True,
        "train.steps": 40,
        "train.learning_rate": 5e-3,
        "samples.every_steps": 40,
    }
    settings = tmp_path / "autoencoder.toml"
    settings.write_text((place / "text.toml").read_text().replace("[method]\ncondition_dropout = 0.2\n", ""))
    train_here(settings, "run", tmp_path, changes)
    losses = [event["loss"] for event in events.current(tmp_path / "run" / "events.jsonl") if event["kind"] == "step"]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert (tmp_path / "run" / "samples" / "step-00000040" / "sheet.png").exists()
    scale = json.loads((tmp_path / "run" / "weights" / "vae" / "config.json").read_text())["scaling_factor"]
    assert scale != pytest.approx(0.18215)
    train_here(place / "text.toml", "next", tmp_path, {"family.base": str(tmp_path / "run" / "weights")})


def _trainer(place: Path, tmp_path: Path, changes: dict[str, Any] | None = None) -> Any:
    from fusain.runs import assembly
    from fusain.runs.folder import RunFolder
    from fusain.runs.settings import RunSettings
    from fusain.settings.read import resolve_source
    from fusain.training.events import EventLog

    overrides = as_overrides({"runs_folder": str(tmp_path), **(changes or {})})
    resolved = resolve_source(RunSettings, place / "text.toml", overrides)
    settings = assembly.resolved_engine(resolved.settings)
    folder = RunFolder.named(tmp_path, "bare")
    folder.create()
    log = EventLog(folder.events, ())
    dataset = assembly.prepare_data(settings, folder=folder, report=log)
    return assembly.build_trainer(settings, folder, dataset, log)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (
            {"prompts": ["a\x07hat"]},
            "E-GEN-008 Character 2 of the prompt is U+0007, which cannot be printed.\nWhere: --prompt\nDo: Remove it.",
        ),
        (
            {"prompts": ["ha" * 5_000]},
            "E-GEN-009 A prompt has 10,000 characters; at most 5,000 are read.\nWhere: --prompt\n"
            "Do: Shorten it: what a text encoder takes in is about 75 words.",
        ),
        (
            {"prompts": ["a"], "size": (64, 97)},
            "E-GEN-006 Images cannot be 97 pixels wide or high: sides are divisible by 8 and at most 8192.\n"
            "Where: --size\nDo: The nearest that works is 96.",
        ),
        (
            {"prompts": ["a"], "size": (64, 0)},
            "E-GEN-006 Images cannot be 0 pixels wide or high: sides are divisible by 8 and at most 8192.\n"
            "Where: --size\nDo: The nearest that works is 8.",
        ),
        (
            {"prompts": ["a"], "size": (513, 512)},
            "E-GEN-006 Images cannot be 513 pixels wide or high: sides are divisible by 8 and at most 8192.\n"
            "Where: --size\nDo: The nearest that works is 512.",
        ),
        (
            {"prompts": ["a"], "size": (65_536, 64)},
            "E-GEN-006 Images cannot be 65536 pixels wide or high: sides are divisible by 8 and at most 8192.\n"
            "Where: --size\nDo: The nearest that works is 8192.",
        ),
        (
            {"prompts": ["a"], "crop": (8, 0)},
            "E-GEN-015 The model of run 'run' was never told what images were before they were resized and cropped; "
            "Stable Diffusion XL is.\nWhere: --crop\nDo: Leave --original-size and --crop out.",
        ),
        (
            {"labels": ["cat"]},
            "E-GEN-004 Run 'run' was trained without classes, so no label steers it.\nWhere: --label\n"
            "Do: Leave --label out.",
        ),
    ],
)
def test_wishes_that_cannot_be_fulfilled(trained: Path, tmp_path: Path, wish: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        actions.generate(trained, count=1, output=tmp_path / "drawn", **wish)
    assert str(caught.value) == told
    assert not (tmp_path / "drawn").exists()


def test_an_empty_prompt_draws(trained: Path, tmp_path: Path) -> None:
    (image,) = actions.generate(trained, prompts=[""], count=1, output=tmp_path / "drawn").images
    assert image.name == "00000.png"


def test_prompts_come_from_a_file(trained: Path, tmp_path: Path, capsys: Any) -> None:
    from fusain.cli import main as command

    prompts = tmp_path / "prompts.txt"
    words = ["generate", str(trained), "--prompts-file", str(prompts), "--count", "1", "-o", str(tmp_path / "drawn")]

    def run() -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            command.main(words)
        return int(str(caught.value.code)), capsys.readouterr().err

    assert run() == (
        2,
        f"E-GEN-011 '{prompts}' cannot be read: No such file or directory.\nWhere: --prompts-file\n"
        "Do: Give a text file with one prompt a line.\n",
    )
    prompts.write_text("# only a remark\n\n")
    assert run() == (
        2,
        f"E-GEN-010 '{prompts}' holds no prompt.\nWhere: --prompts-file\n"
        "Do: Write one prompt a line; lines that begin with # are left out.\n",
    )
    prompts.write_text("# faces\na red hat\n\ngreen skin\n")
    assert run()[0] == 0
    assert [path.name for path in sorted((tmp_path / "drawn").glob("0*"))] == [
        "00000-a-red-hat.png",
        "00001-green-skin.png",
    ]


@pytest.mark.parametrize(("size", "nearest"), [(513, "512 or 520"), (0, "32"), (65_536, "4096")])
def test_sizes_that_cannot_be_are_answered_with_those_that_can(place: Path, size: int, nearest: str) -> None:
    from fusain.runs.planning import plan

    with pytest.raises(SettingsError) as caught:
        plan(place / "text.toml", overrides=[("family.size", str(size))], measure=False)
    assert str(caught.value) == (
        f"E-CFG-022 'family.size' is {size}, which is out of range: it must be a whole number (from 32 to 4,096, a "
        "multiple of 8).\n"
        "Where: --family.size\n"
        f"Do: Use {nearest}."
    )


WEIGHTED = (
    "W-GEN-001 '{shown}' is read as it stands: prompts have no weights here, and brackets and numbers are letters like "
    "others. ({where}) Leave them out. To stress something, say it in more words; guidance stresses the whole prompt."
)


def test_weights_in_prompts_are_told_before_anything_is_drawn(trained: Path, tmp_path: Path, capsys: Any) -> None:
    from fusain.cli import main as command

    prompts = ("a (red hat:1.3", "a face (with a hat)", "a (red hat:1.3")
    words = [word for prompt in prompts for word in ("--prompt", prompt)] + ["--negative", "((glasses))"]
    with pytest.raises(SystemExit) as caught:
        command.main(["generate", str(trained), *words, "--count", "1", "--format", "json", "-o", str(tmp_path / "a")])
    assert not caught.value.code
    said = capsys.readouterr()
    told = [
        WEIGHTED.format(shown="(red hat:1.3", where="--prompt"),
        WEIGHTED.format(shown="((glasses))", where="--negative"),
    ]
    assert said.err.splitlines() == [f"Warning: {text}" for text in told]
    assert [notice["code"] for notice in json.loads(said.out)["notices"]] == ["W-GEN-001"] * 2

    heard: list[str] = []

    def warn(notice: Any) -> None:
        assert not (tmp_path / "b").exists()
        heard.append(str(notice))

    drawn = actions.generate(trained, prompts=prompts[0], count=1, output=tmp_path / "b", warn=warn)
    assert heard == told[:1] == [str(notice) for notice in drawn.notices]


def test_weights_in_prompts_of_samples_are_told_by_plan_and_training(place: Path, tmp_path: Path) -> None:
    from fusain.runs.planning import plan

    changes = {"samples.prompts": ["a (red hat:1.3)", "a face"], "samples.negative": "[[glasses]]", "train.steps": 1}
    told = [
        WEIGHTED.format(shown="(red hat:1.3)", where="samples.prompts"),
        WEIGHTED.format(shown="[[glasses]]", where="samples.negative"),
    ]
    found = plan(place / "text.toml", overrides=as_overrides(changes), measure=False)
    assert [notice for notice in found.notices if notice.startswith("W-GEN-001")] == told
    train_here(place / "text.toml", "run", tmp_path, changes | {"samples.every_steps": 0})
    assert [row["text"] for row in kinds(tmp_path / "run", "warning") if row["code"] == "W-GEN-001"] == told


def test_prompts_need_a_model_that_reads(sprites: Path, tmp_path: Path) -> None:
    train_here(write_settings(tmp_path, sprites), "classes", tmp_path, {"train.steps": 2})
    for wish, told in (
        (
            {"prompts": ["a hat"]},
            "E-GEN-005 Run 'classes' was trained without captions, so no prompt steers it.\nWhere: --prompt\n"
            "Do: Leave --prompt and --negative out.",
        ),
        (
            {"size": (16, 16)},
            "E-GEN-007 Run 'classes' draws at the one size that it was trained at.\n"
            "Where: --size\nDo: Leave --size out.",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            actions.generate(tmp_path / "classes", count=1, **wish)
        assert str(caught.value) == told


def test_the_plan_measures_a_step_and_tells_what_is_cut_off(place: Path) -> None:
    from fusain.runs.planning import plan

    found = plan(place / "text.toml")
    unet = load_file(place / "base" / "unet" / "diffusion_pytorch_model.safetensors")
    assert found.parameters == sum(tensor.numel() for tensor in unet.values())
    assert found.seconds_per_step is not None
    (cut,) = [notice for notice in found.notices if notice.startswith("W-MODEL-001")]
    assert "captions are longer than the 75 tokens that the text encoder reads: '00000.png' (" in cut


@pytest.mark.parametrize("changes", [{}, {"data.buckets": True, "data.path": "shapes"}, {"data.flip": True}])
def test_the_plan_tells_what_stored_encodings_take(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    from fusain.runs.planning import plan

    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    own = {"train.steps": "1", "samples.every_steps": "0"} | changes
    own |= {"data.path": str(place / "shapes")} if "data.path" in changes else {}
    foreseen = plan(place / "text.toml", overrides=[(key, str(value)) for key, value in own.items()], measure=False)
    train_here(place / "text.toml", "run", tmp_path, own)
    assert foreseen.stored_encodings == sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.f32"))


def test_encodings_that_find_no_room_are_not_begun(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(planning, "require_disk", lambda *_: None)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 5_000, 5_000))
    with pytest.raises(StorageError) as refused:
        train_here(place / "text.toml", "run", tmp_path)
    assert str(refused.value).startswith(
        "E-STORE-008 Encoded images or captions would take 118 KB, but only 5 KB are free.\nWhere: "
    )
    assert str(refused.value).endswith(
        "Do: Make room, point FUSAIN_CACHE to another disk, or encode at every step (--data.cache none), which is "
        "slower."
    )
    assert not list((tmp_path / "cache").rglob("*.f32"))


@pytest.mark.parametrize("learns", [False, True])
def test_the_text_encoder_learns_where_it_is_asked_to(place: Path, tmp_path: Path, learns: bool) -> None:
    changes = {"method.text_encoder": learns, "train.steps": 2, "samples.every_steps": 0}
    train_here(place / "text.toml", "run", tmp_path, changes)
    before, after = (
        load_file(folder / "text_encoder" / "model.safetensors")
        for folder in (place / "base", tmp_path / "run/weights")
    )
    moved = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert len(moved) == (len(after) if learns else 0)


def test_a_method_that_reads_no_captions_warns_of_nothing(place: Path, tmp_path: Path) -> None:
    changes = {"data.path": str(place / "faces"), "method.kind": "autoencoder", "train.steps": 1}
    settings = tmp_path / "autoencoder.toml"
    settings.write_text((place / "text.toml").read_text().replace("[method]\ncondition_dropout = 0.2\n", ""))
    train_here(settings, "run", tmp_path, changes)
    assert [event for event in kinds(tmp_path / "run", "warning") if event["code"] == "W-DATA-012"] == []


def test_a_run_keeps_the_commit_of_its_base(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch of a hub id moves between start and resume: the run goes on with what it began with."""
    first, second = "a" * 40, "b" * 40
    model = tmp_path / "models--good--model"
    for commit, moved in ((first, False), (second, True)):
        snapshot = model / "snapshots" / commit
        shutil.copytree(place / "base", snapshot)
        if moved:
            fresh.write(fresh.TINY, tmp_path / "other", seed=5)
            shutil.copytree(tmp_path / "other", snapshot, dirs_exist_ok=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(first)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    own = {"family.base": "good/model", "samples.every_steps": "0"}
    train_here(place / "text.toml", "pinned", tmp_path, own | {"train.steps": "4"})
    settings = json.loads((tmp_path / "pinned" / "settings.json").read_text())
    assert settings["family"]["revision"] == first

    (model / "refs" / "main").write_text(second)
    train_here(place / "text.toml", "pinned", tmp_path, own)
    (model / "refs" / "main").write_text(first)
    train_here(place / "text.toml", "straight", tmp_path, own)
    assert_equal_runs(tmp_path / "pinned", tmp_path / "straight")
    notes = [event["text"] for event in events.read(tmp_path / "pinned" / "events.jsonl") if event["kind"] == "note"]
    assert f"good/model stays at commit {first}, as the run began." in notes

    with pytest.raises(SettingsError) as refused:
        train_here(place / "text.toml", "pinned", tmp_path, own | {"family.revision": second})
    assert f"family.revision: {first} -> {second}" in str(refused.value)
