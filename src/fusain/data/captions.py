"""What becomes of a caption before it is learnt: trigger word, text before and after, parts in another order."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from pydantic import model_validator

from fusain.data import chance
from fusain.settings.section import Section, advanced

Missing = Literal["refuse", "trigger", "fallback", "allow"]
ORDER = "caption"


class CaptionSettings(Section):
    """What becomes of the captions before they are learnt."""

    trigger_word: str | None = advanced(None, min_length=1)
    """A word put before every caption, as in "sks, a cat asleep"; in a prompt it calls for what was learnt."""
    prefix: str = advanced("")
    """Text before each caption and after the trigger word, as in "a drawing of"."""
    suffix: str = advanced("")
    """Text after each caption, as in ", in chalk"."""
    shuffle_tokens: bool = advanced(False)
    """Give the parts between commas another order in each draw. Good for lists of words, wrong for sentences."""
    keep_tokens: int = advanced(0, ge=0, json_schema_extra={"only_when": {"shuffle_tokens": True}})
    """So many of the first parts of a caption stay where they are."""
    missing: Missing = advanced("refuse")
    """Images without a caption, where captions are needed: `refuse`, the `trigger` word alone, the `fallback`, or
    `allow` (empty)."""
    fallback: str = advanced("", json_schema_extra={"only_when": {"missing": "fallback"}})
    """The caption of images that have none, as in "a picture"; trigger word, prefix and suffix come to it."""

    @model_validator(mode="after")
    def _trigger_word_is_given(self) -> CaptionSettings:
        if self.missing == "trigger" and self.trigger_word is None:
            raise ValueError('missing = "trigger" needs a trigger_word')
        if self.missing == "fallback" and not self.fallback.strip():
            raise ValueError('missing = "fallback" needs a fallback')
        return self


def processed(caption: str, settings: CaptionSettings, *, seed: int = 0, draw: int | None = None) -> str:
    """The words that are learnt: a function of (seed, draw) where parts are shuffled, and without a draw in order."""
    trigger, keep = settings.trigger_word, settings.keep_tokens
    if settings.missing == "fallback":
        caption = caption or settings.fallback.strip()
    if not caption:
        return trigger or "" if settings.missing == "trigger" else ""
    begins = re.match(rf"{re.escape(trigger)}(?!\w)\s*(,|$)?\s*", caption, re.IGNORECASE) if trigger else None
    if begins is not None and begins[1] is not None:
        caption = caption[begins.end() :]
    elif begins is not None:  # "sks dog": the word is part of what is said, and must stay in front
        trigger, keep = None, max(1, keep)
    if settings.shuffle_tokens and draw is not None:
        caption = _shuffled(caption, keep, seed, draw)
    said = " ".join(text for text in (settings.prefix.strip(), caption) if text)
    suffix = settings.suffix.strip()
    if not said:
        said = suffix.lstrip(", ")
    elif suffix:
        said += suffix if suffix[0] in ",.;:" else f" {suffix}"
    return ", ".join(text for text in (trigger, said) if text)


def _shuffled(caption: str, keep: int, seed: int, draw: int) -> str:
    parts = [part for part in map(str.strip, caption.split(",")) if part]
    free = parts[keep:]
    order = np.random.Generator(np.random.Philox(chance.key(seed, draw, ORDER))).permutation(len(free))
    return ", ".join([*parts[:keep], *(free[place] for place in order.tolist())])
