"""The settings as they were described when the docs were made: read from JSON, so that help needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).parent / "described.json"


@dataclass(frozen=True)
class Described:
    """One setting in words: what help, template, reference page and form show of it."""

    key: str
    help: str
    type: str
    """What a value must be, in words and with its range."""
    basic: bool
    required: bool
    default: Any = None
    choices: list[Any] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    """Some of `at_least`, `above`, `at_most`, `below`."""
    usual: list[float] = field(default_factory=list)
    when: dict[str, list[str]] = field(default_factory=dict)
    """The kinds under which the setting exists: {"method.kind": ["lora"]}; empty when it always does."""
    instead_of: str = ""

    @property
    def section(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def default_text(self) -> str:
        """The default as a user would write it."""
        if self.required:
            return "must be given"
        if self.default is None:
            return "none"
        return self.default if isinstance(self.default, str) else json.dumps(self.default)

    def exists(self, kinds: dict[str, str]) -> bool:
        """Whether the setting exists where `kinds` ({"method.kind": "lora"}) are chosen."""
        return all(kinds.get(key) in names for key, names in self.when.items())


@dataclass(frozen=True)
class Description:
    """All settings and what each section is for."""

    settings: list[Described]
    sections: dict[str, str]
    kinds: dict[str, str]
    """The default kind of each plug: {"method.kind": "full"}."""
    user: list[Described] = field(default_factory=list)
    """The settings of the user's own file."""

    def under(self, values: dict[str, Any]) -> dict[str, str]:
        """The kinds that hold under nested `values`: the ones that they name, else the defaults."""
        found = dict(self.kinds)
        for key in found:
            named = look_up(values, key)
            found[key] = named if isinstance(named, str) else found[key]
        return found


@cache
def load() -> Description:
    """The description in the package; empty in a checkout where none was made yet."""
    if not FILE.is_file():
        return Description([], {}, {})
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    settings, user = ([Described(**entry) for entry in stored.get(name, [])] for name in ("settings", "user"))
    return Description(settings, stored["sections"], stored["kinds"], user)


def look_up(values: dict[str, Any], key: str) -> Any:
    """The value of a dotted key in nested `values`, or None."""
    inner: Any = values
    for part in key.split("."):
        inner = inner.get(part) if isinstance(inner, dict) else None
    return inner
