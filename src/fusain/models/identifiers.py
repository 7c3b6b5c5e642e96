"""Whether a word is fit to name a subject: one token to the base, and no word that means something to it already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from fusain.settings.notice import Notice

LARGE_VOCABULARY: Final = 20_000
"""From so many tokens on, their order tells how frequent they are: byte pairs are merged by frequency. Vocabularies
made of few captions say nothing of that kind."""
_USUAL: Final = """
    a an and animal art baby bag ball bear beautiful big bike bird black blue boat book bottle bowl box boy brown
    building bus cake car cartoon cat chair character child city clock cloud coat cow cup dark dog doll dress drawing
    eye face family fish flower food fox friend fruit garden girl glass gold gray green grey guy hair hand hat head
    heart her him his home horse house ice image it kid king lady lamp lion logo long man me men moon mountain mouse
    my new night object old one orange painting people person pet phone photo picture pink plant portrait purple queen
    rabbit red river road robot room sea shirt shoe sky small snow some someone star street style subject sun table
    that the thing this toy tree truck van vase watch water white wolf woman women wood yellow you young
    anna bob emma jack james jane john mary max michael paul peter sam sarah tom
    """
USUAL_WORDS: Final = frozenset(_USUAL.split())
"""English words that captions are full of, among them what subjects mostly are, and first names of many people."""


def unfit(tokenizer: Any, identifiers: Iterable[str]) -> Iterator[Notice]:
    """What to say of words that are to name subjects."""
    where = "data.subject.identifier"
    for word in dict.fromkeys(identifiers):
        numbers = list(tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"])
        if len(numbers) > 1:
            pieces = " + ".join(f"'{str(tokenizer.decode([number])).strip()}'" for number in numbers)
            yield Notice("W-DATA-043", where=where, identifier=word, count=len(numbers), pieces=pieces)
        elif word.casefold() in USUAL_WORDS or any(_is_frequent(tokenizer, number) for number in numbers):
            yield Notice("W-DATA-044", where=where, identifier=word)


def _is_frequent(tokenizer: Any, number: int) -> bool:
    """Whether a token of a large vocabulary is in its more frequent half."""
    return len(tokenizer) >= LARGE_VOCABULARY and number < len(tokenizer) // 2
