"""The first training of a miniature's text encoder: after it, the end of a caption tells what the caption says."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from fusain.models import text
from fusain.models.bases import fresh
from fusain.worlds.caricatures import ATTRIBUTES, Caricatures, Face, caption, world
from fusain.worlds.mini import vocabulary, words
from fusain.worlds.mini.words import UNSAID, Lesson

WIDER = replace(fresh.TINY, text_width=64, text_heads=4)


def encoder_of(drawn: Caricatures) -> tuple[torch.nn.Module, torch.Tensor, int]:
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = vocabulary.tokenizer(drawn.captions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CLIPTextModel(CLIPTextConfig(**fresh._text(WIDER, tokenizer)))
    return encoder, text.tokens(tokenizer, drawn.captions, windows=1)[:, 0], tokenizer.eos_token_id


def test_what_a_caption_says_is_told_from_its_end() -> None:
    drawn = world(600, seed=5)
    encoder, tokens_NL, end = encoder_of(drawn)
    before = torch.random.get_rng_state()
    fresh_states = encoder(tokens_NL)[0].detach()
    words.teach(encoder, tokens_NL, drawn.faces, end, Lesson(steps=150, captions=32))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    right_NA = words.answers(drawn.faces)

    def told(states_BLD: torch.Tensor) -> float:
        shares = [linearly_told(states_BLD, tokens_NL == end, right_B) for right_B in right_NA.T]
        return sum(shares) / len(shares)

    assert told(encoder(tokens_NL)[0].detach()) > 0.85
    assert told(fresh_states) < 0.75


def test_rare_words_become_as_long_as_others() -> None:
    encoder, tokens_NL, _ = encoder_of(world(50, seed=5))
    before = encoder.get_input_embeddings().weight.detach().clone()
    before[tokens_NL.unique()] *= 5
    with torch.no_grad():
        encoder.get_input_embeddings().weight.copy_(before)
    words.make_audible(encoder, [3, 4], tokens_NL)
    after = encoder.get_input_embeddings().weight.detach()
    usual = before.norm(dim=1)[tokens_NL.unique()].median().item()
    assert after.norm(dim=1)[[3, 4]].tolist() == pytest.approx([usual, usual], rel=1e-5)
    others = [row for row in range(len(after)) if row not in (3, 4)]
    assert torch.equal(after[others], before[others])


def linearly_told(states_BLD: torch.Tensor, is_end_BL: torch.Tensor, right_B: torch.Tensor) -> float:
    """The share of unseen captions of which a linear map of the mean state of the end tells the answer."""
    ends_BD = (states_BLD * is_end_BL.unsqueeze(-1)).sum(1) / is_end_BL.sum(1, keepdim=True)
    ends_BD, wanted_BC = functional.pad(ends_BD, (0, 1), value=1.0), functional.one_hot(right_B).float()
    known, unknown = slice(0, 450), slice(450, None)
    map_DC = torch.linalg.lstsq(ends_BD[known], wanted_BC[known]).solution
    return float(((ends_BD[unknown] @ map_DC).argmax(1) == right_B[unknown]).float().mean())


def test_answers_are_of_what_is_said_only() -> None:
    face = Face({name: values[1] for name, values in ATTRIBUTES.items()}, seed=8)
    said = words.answers([face])[0].tolist()
    text_of_it = caption(face, face.seed)
    for name, answer in zip(ATTRIBUTES, said, strict=True):
        assert answer in (UNSAID, 2), name
    assert ("glasses" in text_of_it) == (said[list(ATTRIBUTES).index("glasses")] != UNSAID)
