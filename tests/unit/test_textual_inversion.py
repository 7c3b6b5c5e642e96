"""What moves and what does not when a new word learns, and how such a word is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusain.data.batch import Batch
from fusain.models import new_words, text
from fusain.models.bases import fresh
from fusain.models.families.sd import StableDiffusion, StableDiffusionSettings
from fusain.models.family import Facts
from fusain.training.methods.textual_inversion import TextualInversion, TextualInversionSettings
from fusain.training.optimizers import make_optimizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    fresh.write(fresh.TINY, folder)
    return folder


def made(base: Path, **settings: Any) -> tuple[StableDiffusion, TextualInversion]:
    family = StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts())
    return family, TextualInversion(TextualInversionSettings(**settings))


def batch(*captions: str) -> Batch:
    draws = np.arange(len(captions))
    pixels = torch.rand(len(captions), 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(draws, draws, pixels, torch.ones(len(captions)), captions=captions)


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "muon"])
def test_only_the_new_rows_move(base: Path, optimizer: Any) -> None:
    family, method = made(base, token="<ada>", vectors=3)
    parameters = method.prepare(family)
    before = {name: tensor.clone() for name, tensor in family.network.state_dict().items()}
    autoencoder: Any = family.autoencoder
    frozen = {name: tensor.clone() for name, tensor in autoencoder.state_dict().items()}
    steps = make_optimizer(optimizer, parameters, learning_rate=0.1, weight_decay=0.5)
    for _ in range(2):
        method.loss(family, batch("a <ada>", "a hat", ""), seed=0).value.backward()
        steps.step()
        steps.zero_grad()
    moved = {name for name, tensor in family.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert [name.rpartition(".")[2] for name in moved] == ["rows"]
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in autoencoder.state_dict().items())
    assert sum(parameter.requires_grad for parameter in family.network.parameters()) == len(parameters) == 1


def test_each_vector_learns_by_the_captions_that_hold_it(base: Path) -> None:
    family, method = made(base, token="<ada>", vectors=2)
    (rows,) = method.prepare(family).values()
    method.loss(family, batch("a hat", "b"), seed=0).value.backward()
    assert rows.grad is not None
    assert not rows.grad.any()
    method.loss(family, batch("a <ada>", "b"), seed=0).value.backward()
    assert rows.grad.abs().amax(1).gt(0).all()


def test_it_learns(base: Path) -> None:
    family, method = made(base, vectors=4, start_word="a")
    parameters = method.prepare(family)
    steps = make_optimizer("adamw", parameters, learning_rate=0.1, weight_decay=0)
    losses = []
    for _ in range(60):
        loss = method.loss(family, batch("a <sks>", "<sks>"), seed=0).value
        loss.backward()
        steps.step()
        steps.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]


def test_hidden_captions_teach_nothing(base: Path) -> None:
    family, method = made(base, condition_dropout=1.0)
    (rows,) = method.prepare(family).values()
    method.loss(family, batch("a <sks>"), seed=0).value.backward()
    assert rows.grad is not None
    assert not rows.grad.any()
    method.loss(family, batch("a <sks>"), seed=0, quantiles=np.array([0.5])).value.backward()
    assert rows.grad.any(), "for the held-out loss nothing is hidden"


def test_an_image_without_a_caption_gets_a_sentence_by_its_draw(base: Path) -> None:
    family, method = made(base)
    (rows,) = method.prepare(family).values()
    method.loss(family, batch("", "b"), seed=0).value.backward()
    assert rows.grad is not None
    assert rows.grad.any()
    draws = np.arange(64)
    bare = Batch(draws, draws, torch.zeros(64, 0), torch.ones(64), captions=("",) * 64)
    said = method._worded(bare, 0).captions
    assert said == method._worded(bare, 0).captions
    assert said != method._worded(bare, 1).captions
    assert said is not None
    assert len(set(said)) == 8


def test_starting_words(base: Path) -> None:
    def started(words: str, vectors: int) -> torch.Tensor:
        family, method = made(base, start_word=words, vectors=vectors)
        return next(iter(method.prepare(family).values())).detach()

    a, b = started("a", 1)[0], started("b", 1)[0]
    own = made(base)[0].text_encoders()["text_encoder"].get_input_embeddings().weight  # type: ignore[operator]
    assert torch.equal(a, own[320])
    assert torch.equal(started("a", 2), torch.stack([a, a]))
    assert torch.equal(started("a b", 2), torch.stack([a, b]))
    torch.testing.assert_close(started("a b", 1), ((a + b) / 2)[None])


def test_a_word_of_several_vectors_is_read_as_diffusers_reads_it(base: Path) -> None:
    from diffusers import DiffusionPipeline

    family, method = made(base, token="<ada>", vectors=3)
    (rows,) = method.prepare(family).values()
    with torch.no_grad():
        rows.normal_(generator=torch.Generator().manual_seed(1))
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.load_textual_inversion({"<ada>": rows.detach().clone()})
    prompts = ["a <ada>", "<ada>, a hat", "a<ada>s <ada>", "nothing new"]
    theirs, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
    torch.testing.assert_close(family.encode_captions(prompts), theirs, rtol=0, atol=1e-6)
    found = text.tokens(family.tokenizer, ["a <ada>"], windows=1)[0, 0, :6].tolist()
    assert found == [512, 320, 514, 515, 516, 513]
    assert text.cut_off(family.tokenizer, "<ada> " * 26, windows=1).startswith("<ada>")


def test_several_encoders_are_saved_as_other_tools_name_them(base: Path, tmp_path: Path) -> None:
    _, method = made(base)
    method.rows = {
        "text_encoder": torch.nn.Parameter(torch.zeros(1, 4)),
        "text_encoder_2": torch.nn.Parameter(torch.ones(1, 6)),
    }
    method.save(None, tmp_path)  # type: ignore[arg-type]
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "learned_embeds.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {"clip_l": (1, 4), "clip_g": (1, 6)}


def test_words_and_pieces() -> None:
    tokenizer = fresh.letters()
    assert new_words.parts("<ada>", 3) == ["<ada>", "<ada>_1", "<ada>_2"]
    assert new_words.is_known(tokenizer, "a")
    assert not new_words.is_known(tokenizer, "<ada>")
    assert new_words.pieces(tokenizer, "cat") == ["c", "a", "t"]
