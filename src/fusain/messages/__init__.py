"""The one catalogue of what Fusain says when something is wrong: a TOML file a language, an entry a code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Message:
    """One entry: what is wrong, why it matters, what to do."""

    what: str
    why: str = ""
    do: str = ""


@cache
def catalogue(language: str = "en") -> dict[str, Message]:
    """All messages of one language by code."""
    text = (Path(__file__).parent / f"{language}.toml").read_text(encoding="utf-8")
    return {code: Message(**entry) for code, entry in tomllib.loads(text).items()}


def render(code: str, facts: Mapping[str, Any], language: str = "en") -> Message:
    """The message for `code` with its places filled in; a code or a fact that is missing is a programmer's mistake."""
    entry = catalogue(language)[code]
    return Message(entry.what.format(**facts), entry.why.format(**facts), entry.do.format(**facts))
