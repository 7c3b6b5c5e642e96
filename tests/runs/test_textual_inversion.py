"""Textual inversion on a tiny real Stable Diffusion: only the new word learns, and every door draws the same of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fusain.errors import DataError, FusainError, SettingsError
from fusain.models.bases import fresh
from fusain.runs import actions, planning, publishing
from fusain.training.methods.textual_inversion import SENTENCES, TextualInversion, TextualInversionSettings
from fusain.worlds.caricatures import world, write_folder
from tests.runs.training import assert_equal_runs, flat, kinds, train_here, write_settings

SETTINGS = """
[family]
kind = "sd"
base = "{base}"
size = 32

[method]
kind = "textual_inversion"
token = "<ada>"
vectors = 2
start_word = "a"

[data]
path = "{data}"
held_out = 2
captions.missing = "allow"

[train]
steps = 8
batch_size = 2
accumulation = 2
learning_rate = 1e-2
held_out_every_steps = 4

[checkpoint]
every_steps = 4

[samples]
every_steps = 8
steps = 3
count = 2
guidance = 3.0
prompts = ["a <ada>", "a hat of <ada>, red"]

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, faces without captions, faces with, and settings for the first."""
    folder = tmp_path_factory.mktemp("word")
    fresh.write(fresh.TINY, folder / "base")
    write_folder(world(10, seed=4), folder / "captioned")
    (folder / "faces").mkdir()
    for path in (folder / "captioned").glob("*.png"):
        shutil.copyfile(path, folder / "faces" / path.name)
    (folder / "word.toml").write_text(SETTINGS.format(base=folder / "base", data=folder / "faces"))
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    train_here(place / "word.toml", "run", place)
    return place / "run"


def test_training_generate_and_plain_diffusers_draw_the_same(place: Path, trained: Path, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    prompts = ["a <ada>", "a hat of <ada>, red"]
    sampled = flat(sorted((trained / "samples" / "step-00000008").glob("0*.png")))
    drawn = actions.generate(trained, prompts=prompts, count=2, output=tmp_path / "drawn")
    for one, other in zip(sampled, flat(drawn.images), strict=True):
        assert np.array_equal(one, other)
    pipeline = DiffusionPipeline.from_pretrained(place / "base")
    pipeline.set_progress_bar_config(disable=True)

    def plain(prompt: str, seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        options = {"num_inference_steps": 3, "guidance_scale": 3.0, "height": 32, "width": 32}
        return np.asarray(pipeline(prompt, generator=generator, **options).images[0]).astype(int)

    assert np.abs(plain("a <ada>", 0) - sampled[0]).max() > 1, "the word changes nothing"
    pipeline.load_textual_inversion(trained / "weights")
    wanted = [(prompt, seed) for prompt in prompts for seed in (0, 1)]
    for image, (prompt, seed) in zip(sampled, wanted, strict=True):
        assert np.abs(plain(prompt, seed) - image).max() <= 1


def test_the_file_holds_the_word_alone(place: Path, trained: Path) -> None:
    """One key with a table of vectors: diffusers, A1111 and ComfyUI all take it."""
    stored = load_file(trained / "weights" / "learned_embeds.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {"<ada>": (2, 16)}
    assert sorted(path.name for path in (trained / "weights").iterdir()) == [
        "fusain.json",
        "learned_embeds.safetensors",
    ]
    table = load_file(place / "base" / "text_encoder" / "model.safetensors")
    start = table["text_model.embeddings.token_embedding.weight"][320]  # a
    assert all(0.01 < (row - start).abs().max() < 0.1 for row in stored["<ada>"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"engine.gradient_checkpointing": True, "train.optimizer": "muon", "data.flip": True},
        {"family.text_windows": 2, "family.clip_skip": 1, "train.ema_decay": 0, "data.cache": "none"},
    ],
    ids=["plain", "recomputed", "windows"],
)
def test_resume_is_exact(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {"samples.every_steps": 0, **changes}
    train_here(place / "word.toml", "whole", tmp_path, changes)
    train_here(place / "word.toml", "parts", tmp_path, {**changes, "train.steps": 4})
    train_here(place / "word.toml", "parts", tmp_path, changes)
    assert kinds(tmp_path / "parts", "resumed")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    held_out = [event["loss"] for event in kinds(tmp_path / "whole", "held_out")]
    assert len(set(held_out)) == len(held_out) == 3, "what is learnt changes the held-out loss"


def test_a_checkpoint_holds_the_word_and_draws(trained: Path, tmp_path: Path) -> None:
    (step,) = trained.glob("checkpoints/step-00000004")
    assert list(load_file(step / "trainable.safetensors")) == ["text_encoder.token_embedding.rows"]
    options: dict[str, Any] = {"prompts": ["a <ada>"], "count": 1}
    halfway = actions.generate(trained, checkpoint="4", output=tmp_path / "halfway", **options)
    last = actions.generate(trained, checkpoint="8", output=tmp_path / "last", **options)
    final = actions.generate(trained, output=tmp_path / "final", **options)
    assert not np.array_equal(*flat([halfway.images[0], final.images[0]]))
    assert np.array_equal(*flat([last.images[0], final.images[0]]))


def test_an_embedding_learns_on(place: Path, trained: Path, tmp_path: Path) -> None:
    start = trained / "weights" / "learned_embeds.safetensors"
    changes = {"method.start": str(start), "train.learning_rate": 1e-12, "train.steps": 1, "samples.every_steps": 0}
    train_here(place / "word.toml", "on", tmp_path, changes)
    before, after = load_file(start), load_file(tmp_path / "on" / "weights" / start.name)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_without_prompts_samples_hold_the_word(place: Path, tmp_path: Path) -> None:
    changes = {"samples.prompts": [], "samples.count": 1, "train.steps": 1, "samples.every_steps": 1}
    train_here(place / "word.toml", "run", tmp_path, changes)
    images = sorted((tmp_path / "run" / "samples" / "step-00000001").glob("0*.png"))
    prompts = [json.loads(Image.open(path).text["fusain"])["prompt"] for path in images]  # type: ignore[attr-defined]
    assert prompts == ["a photo of a <ada>", "a picture of a <ada>", "a rendering of a <ada>", "a close-up of a <ada>"]


def test_the_recipe_runs(place: Path, tmp_path: Path) -> None:
    small = {"family.base": str(place / "base"), "family.size": 32, "train.steps": 1, "samples.every_steps": 0}
    result = train_here(Path("textual-inversion"), "run", tmp_path, {**small, "data.path": str(place / "faces")})
    assert (result.step, kinds(tmp_path / "run", "warning")[-1]["code"]) == (1, "W-DATA-012")
    stored = load_file(tmp_path / "run" / "weights" / "learned_embeds.safetensors")
    assert list(stored) == ["<sks>"]


def test_the_plan_counts_what_learns(place: Path) -> None:
    found = planning.plan(place / "word.toml")
    assert found.parameters == 2 * 16
    assert found.seconds_per_step is not None
    assert found.seconds_range is not None
    assert found.seconds_range[0] <= found.seconds <= found.seconds_range[1]


def test_captions_without_the_word_are_told(place: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(place / "faces", mixed)
    (mixed / "00003.txt").write_text("a red hat")
    (mixed / "00004.txt").write_text("A hat of <ADA>")
    changes = {"data.path": str(mixed), "train.steps": 1, "samples.every_steps": 0}
    train_here(place / "word.toml", "run", tmp_path, changes)
    (notice,) = [event["text"] for event in kinds(tmp_path / "run", "warning") if event["code"] == "W-TI-001"]
    assert notice == (
        "W-TI-001 1 of 10 captions do not hold the new word '<ada>': '00003.png'. (method.token) These images teach it "
        'nothing. Write it into them, or put it before each: data.captions.trigger_word = "<ada>".'
    )
    planned = planning.plan(place / "word.toml", overrides=[("data.path", str(mixed))], measure=False)
    assert notice in planned.notices


def refused(place: Path, tmp_path: Path, changes: dict[str, Any]) -> FusainError:
    with pytest.raises(FusainError) as caught:
        train_here(place / "word.toml", "refused", tmp_path, changes)
    assert not list(tmp_path.glob("refused/checkpoints/*"))
    return caught.value


def test_captions_that_never_hold_the_word(place: Path, tmp_path: Path) -> None:
    fault = refused(place, tmp_path, {"data.path": str(place / "captioned")})
    assert isinstance(fault, DataError)
    assert str(fault) == (
        "E-TI-003 None of 10 captions holds the new word '<ada>', so nothing of it would be learnt.\n"
        "Where: method.token\n"
        'Do: Write it into them, or put it before each: data.captions.trigger_word = "<ada>".'
    )
    changes = {"data.path": str(place / "captioned"), "data.captions.trigger_word": "<ada>", "train.steps": 1}
    assert train_here(place / "word.toml", "run", tmp_path, changes).step == 1


@pytest.mark.parametrize(
    ("token", "nearest"),
    [
        ("a", "<a>' or '<a-1>"),
        ("<|endoftext|>", "<endoftext>' or '<endoftext-1>"),
        ("<taken>", "<taken-1>' or '<taken-2>"),
    ],
)
def test_words_that_are_known(place: Path, tmp_path: Path, token: str, nearest: str) -> None:
    shutil.copytree(place / "base", tmp_path / "base")
    tokenizer = fresh.letters()
    tokenizer.add_tokens(["<taken>_1"])
    tokenizer.save_pretrained(tmp_path / "base" / "tokenizer")
    fault = refused(place, tmp_path, {"family.base": str(tmp_path / "base"), "method.token": token})
    assert isinstance(fault, SettingsError)
    assert str(fault) == (
        f"E-TI-001 '{token}' cannot be a new word: the text encoder knows it already, or a part of its name.\n"
        "Where: method.token\n"
        "Why: It would stand for two things, and diffusers refuses to load it.\n"
        f"Do: Set method.token to another word, such as '{nearest}'."
    )


def test_a_start_word_that_splits(place: Path, tmp_path: Path) -> None:
    assert str(refused(place, tmp_path, {"method.start_word": "a cat"})) == (
        "E-TI-002 'cat' is several tokens to the text encoder: c + a + t.\n"
        "Where: method.start_word\n"
        "Why: A vector starts from the meaning of one token, and parts of a word have none.\n"
        "Do: Set method.start_word to a short, common word for the subject, such as dog, face or toy."
    )


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"emb_params": torch.zeros(3, 16)}, "3 vectors of 16 numbers"),
        ({"emb_params": torch.zeros(16)}, "1 vector of 16 numbers"),
        ({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}, "2 vectors of 768 numbers"),
        ({"one": torch.zeros(2, 16), "other": torch.zeros(2, 16)}, "no vectors"),
    ],
    ids=["more", "one", "wider", "unknown"],
)
def test_an_embedding_that_does_not_fit(
    place: Path, tmp_path: Path, tensors: dict[str, torch.Tensor], found: str
) -> None:
    path = tmp_path / "given.safetensors"
    save_file(tensors, path)
    assert str(refused(place, tmp_path, {"method.start": str(path)})) == (
        f"E-TI-004 The embedding holds {found}; 2 vectors of 16 numbers are needed.\n"
        f"Where: {path}\n"
        "Do: Set method.vectors to what the file holds; where the width differs, it was made for another kind of base."
    )


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("my dog", "it must be one word, without spaces"),
        ("<Ada>", "text encoders read small letters only; write <ada>"),
    ],
)
def test_words_that_no_encoder_reads(place: Path, tmp_path: Path, token: str, reason: str) -> None:
    assert str(refused(place, tmp_path, {"method.token": token})) == (
        f"E-CFG-006 'method.token' cannot be used: {reason}.\n"
        "Where: --method.token\n"
        "Do: Change it; what it means is told by: fusain explain method.token"
    )


def test_a_family_that_no_text_steers(sprites: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        train_here(write_settings(tmp_path, sprites), "run", tmp_path, {"method.kind": "textual_inversion"})
    assert str(caught.value) == (
        "E-CFG-021 The settings do not fit together: method 'textual_inversion' works with text, "
        "not with condition 'class'.\n"
        "Do: Change one of the two; `fusain explain KEY` says what a setting means."
    )


@pytest.mark.parametrize("skip", [0, 1])
def test_the_code_on_the_card_draws_what_generate_draws(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: int
) -> None:
    changes = {"samples.prompts": [], "family.clip_skip": skip, "train.steps": 2}
    train_here(place / "word.toml", "run", tmp_path, changes)
    published = publishing.publish(tmp_path / "run", dry_run=True, licence="mit")
    names = {"README.md", "samples.png", "fusain.json", "learned_embeds.safetensors"}
    assert {file.name for file in published.files} == names
    card = published.card.read_text()
    assert "It goes on top of the model that it was trained on." in card
    code = card.partition("```python\n")[2].partition("```")[0]
    code = code.replace('"BASE"', f'"{place / "base"}"').replace('"OWNER/NAME"', f'"{tmp_path / "run" / "weights"}"')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    drawn = actions.generate(tmp_path / "run", prompts=["a photo of a <ada>"], count=1, output=tmp_path / "drawn")
    one, other = flat([tmp_path / "image.png", drawn.images[0]])
    assert np.abs(one.astype(int) - other).max() <= 1


def test_the_new_word_is_no_access_token_but_an_access_token_is_no_word(place: Path, tmp_path: Path) -> None:
    changes = {"method.token": "<my-cat-toy>", "train.steps": 1, "samples.every_steps": 0}
    assert train_here(place / "word.toml", "run", tmp_path, changes).step == 1
    assert refused(place, tmp_path, {"method.token": "hf_" + "x" * 34}).code == "E-SEC-010"


def test_the_sentences_are_neutral_and_all_hold_the_word() -> None:
    method = TextualInversion(TextualInversionSettings(token="<ada>"))
    assert set(method.wording([""] * 20)) == {sentence.replace("{}", "<ada>") for sentence in SENTENCES}
    own = TextualInversion(TextualInversionSettings(sentences=("in the style of {}", "{} {it}")))
    assert own.wording(["mine", "", ""]) == ("mine", "<sks> {it}", "in the style of <sks>")


def test_sentences_hold_the_word(place: Path, tmp_path: Path) -> None:
    assert str(refused(place, tmp_path, {"method.sentences": ["a photo"]})) == (
        "E-CFG-006 'method.sentences' cannot be used: 'a photo' holds no {} for the word.\n"
        "Where: --method.sentences\n"
        "Do: Change it; what it means is told by: fusain explain method.sentences"
    )
