"""Finds passwords and access tokens in settings: they would be copied into every run folder and report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

_TOKEN: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|AKIA[0-9A-Z]{12,}|sk-[A-Za-z0-9_-]{16,}"
    r"|xox[abp]-[\w-]{8,})"
)
_HEX_KEY: Final = re.compile(r"\b[0-9a-f]{40}\b")
_SECRET_NAME: Final = re.compile(r"(?:^|_)(?:token|secret|password|passwd|api_?key|access_?key)$", re.IGNORECASE)
_LEARNT_WORD: Final = ("method", "token")
"""The new word of textual inversion is called a token too, and is there to be read."""
_PUBLIC_HEX_NAME: Final = re.compile(r"revision|commit|hash|sha", re.IGNORECASE)


def find(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path and the masked value of everything below `values` that looks like a secret."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from find(value, (*path, str(name)))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from find(value, (*path, str(number)))
    elif isinstance(values, str) and _is_secret(path, values):
        yield path, mask(values)


def _is_secret(path: tuple[str, ...], value: str) -> bool:
    name = path[-1] if path else ""
    if _TOKEN.search(value):
        return True
    # A commit is 40 hexadecimal digits too; it is told from a key of Weights & Biases by the setting's name.
    if _HEX_KEY.fullmatch(value) and not _PUBLIC_HEX_NAME.search(name):
        return True
    return path != _LEARNT_WORD and bool(_SECRET_NAME.search(name)) and len(value) >= 8 and " " not in value


def mask(value: str) -> str:
    """The first characters of a secret, enough to recognise which one it is."""
    return value[:3] + "…" if len(value) > 8 else "…"


def masked(text: str) -> str:
    """A text with everything in it that looks like a secret masked."""
    return _HEX_KEY.sub(lambda found: mask(found[0]), _TOKEN.sub(lambda found: mask(found[0]), text))


def first_token(text: str) -> str | None:
    """The first access token in a text, masked; None where there is none."""
    found = _TOKEN.search(text)
    return mask(found[0]) if found else None
