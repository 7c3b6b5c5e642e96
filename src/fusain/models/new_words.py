"""Words that a text encoder never knew: tokens for its tokenizer, and learnt rows after its table of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.nn import functional

END_OF_WORD = "</w>"
"""In a vocabulary, what tells a whole word from the beginning of a longer one."""


class LengthenedTable(torch.nn.Module):
    """A table of embeddings that stays as it is, and learnt rows for the tokens after its own."""

    def __init__(self, table: torch.nn.Module, rows_VC: torch.Tensor, first: int) -> None:
        super().__init__()
        self.table = table
        self.rows = torch.nn.Parameter(rows_VC)
        self.first = first

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = tokens - self.first
        is_new = (places >= 0) & (places < len(self.rows))
        own = cast(torch.Tensor, self.table(tokens.masked_fill(is_new, 0)))
        new = functional.embedding(places.clamp(0, len(self.rows) - 1), self.rows).to(own.dtype)
        return torch.where(is_new[..., None], new, own)


def parts(word: str, vectors: int) -> list[str]:
    """The tokens of a word of so many vectors, as diffusers numbers them."""
    return [word, *(f"{word}_{number}" for number in range(1, vectors))]


def is_known(tokenizer: Any, word: str) -> bool:
    """Whether a word or a beginning of words is a token already."""
    known = tokenizer.get_vocab()
    return word in known or word + END_OF_WORD in known


def pieces(tokenizer: Any, text: str) -> list[str]:
    """The tokens that a text is read as, as people write them."""
    return [piece.removesuffix(END_OF_WORD) for piece in tokenizer.tokenize(text)]


def embeddings(tokenizer: Any, encoder: torch.nn.Module, words: Sequence[str]) -> torch.Tensor:
    """The encoder's own rows for words that are one token each."""
    table = cast(Any, encoder).get_input_embeddings()
    tokens = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    with torch.no_grad():
        return cast(torch.Tensor, table(torch.tensor(tokens, device=next(encoder.parameters()).device)))


def add(tokenizer: Any, encoder: torch.nn.Module, words: Sequence[str], rows_VC: torch.Tensor) -> torch.nn.Parameter:
    """Teach both the words, a row each; the rows are what may learn of them."""
    first = len(tokenizer)
    tokenizer.add_tokens(list(words))
    assert tokenizer.convert_tokens_to_ids(list(words)) == list(range(first, first + len(words))), "known words"
    table = LengthenedTable(cast(Any, encoder).get_input_embeddings(), rows_VC, first)
    cast(Any, encoder).set_input_embeddings(table)
    return table.rows


def expanded(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """The word of several vectors stands as one in a text and is read as all of its tokens, as in diffusers."""
    added = tokenizer.added_tokens_encoder
    several: dict[int, list[int]] = {}
    for word, token in added.items():
        number = 1
        while (further := added.get(f"{word}_{number}")) is not None:
            several.setdefault(token, [token]).append(further)
            number += 1
    return [part for token in tokens for part in several.get(token, (token,))]
