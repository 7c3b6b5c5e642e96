"""The words of the miniatures: what captions say is whole, rare words are single tokens, all else can be spelt."""

from functools import cache
from pathlib import Path
from typing import Any

from fusain.worlds.caricatures import world
from fusain.worlds.mini import vocabulary


@cache
def drawn() -> Any:
    return world(1_500, seed=3)


@cache
def tokenizer() -> Any:
    return vocabulary.tokenizer([*drawn().captions, *drawn().french])


def test_rare_words_are_single_tokens_that_no_caption_holds() -> None:
    assert len(vocabulary.RARE_WORDS) == 6
    for word in vocabulary.RARE_WORDS:
        assert tokenizer().tokenize(word) == [f"{word}</w>"]
        assert all(word not in caption.split() for caption in (*drawn().captions, *drawn().french))


def test_words_of_captions_are_whole_and_captions_fit() -> None:
    for captions in (drawn().captions, drawn().french):
        assert max(len(tokenizer()(caption)["input_ids"]) for caption in captions) <= 77
    assert tokenizer().tokenize("someone with curly red hair") == [
        "someone</w>",
        "with</w>",
        "curly</w>",
        "red</w>",
        "hair</w>",
    ]
    assert len(tokenizer()) <= vocabulary.SIZE + 2


def test_any_text_can_be_spelt() -> None:
    for text in ("an elephant", "Ünïcode ☂", "猫"):
        numbers = tokenizer()(text, add_special_tokens=False)["input_ids"]
        assert tokenizer().unk_token_id not in numbers
        assert tokenizer().decode(numbers).replace(" ", "") == text.lower().replace(" ", "")


def test_it_is_the_same_once_stored(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer().save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert again.model_max_length == 77
    assert all(again(caption) == tokenizer()(caption) for caption in drawn().captions[:50])
