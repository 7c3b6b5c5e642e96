"""The words of the miniatures: a CLIP tokenizer of what captions of caricatures say, and of a few words more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fusain.models.bases import fresh

RARE_WORDS: Final = ("sks", "ohwx", "zwx", "vtq", "qlb", "jhp")
"""Single tokens that pretraining never sees: names for what a user teaches."""
SIZE: Final = 1_400
_END: Final = "</w>"
_OFTEN: Final = 10_000
"""Rare words are counted so often that each is merged to one token."""


def tokenizer(captions: Iterable[str]) -> Any:
    """Byte pairs of the captions, so that any other text can be spelt too (Sennrich et al. 2016)."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    usual = fresh.letters().backend_tokenizer
    learnt = Tokenizer(BPE(end_of_word_suffix=_END))
    learnt.normalizer, learnt.pre_tokenizer = usual.normalizer, usual.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=SIZE,
        min_frequency=2,
        end_of_word_suffix=_END,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator([*captions, *RARE_WORDS * _OFTEN], trainer)
    merges = [tuple(pair) for pair in _model(learnt)["merges"]]
    alphabet = fresh.alphabet()
    return fresh.tokenizer_of([*alphabet, *("".join(pair) for pair in merges)], merges)


def _model(tokenizer: Any) -> dict[str, Any]:
    import json

    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model
