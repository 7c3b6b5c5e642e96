"""The sources of settings, each as values and a way to say where a value came from."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusain.errors import SettingsError
from fusain.settings import credentials, foreign, positions, recipes


@dataclass(frozen=True)
class Origin:
    """Where a value came from, in words that stand in errors and in the plan."""

    source: str
    """One of `default`, `user settings`, `recipe`, `file`, `command line`."""
    text: str
    line: int | None = None

    def __str__(self) -> str:
        return self.text if self.line is None else f"{self.text} line {self.line}"

    @property
    def is_users(self) -> bool:
        """Whether the user wrote it for this run, so that it must not pass unnoticed."""
        return self.source in ("file", "command line")


DEFAULT = Origin("default", "default")


@dataclass(frozen=True)
class Layer:
    """One source: nested values, and the lines of its keys where it is a file."""

    source: str
    name: str
    values: Mapping[str, Any]
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    raw: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    """The words of the command line before they were read as values."""

    def origin(self, path: tuple[str, ...]) -> Origin:
        if self.source == "command line":
            return Origin(self.source, "--" + ".".join(path))
        return Origin(self.source, self.name, positions.line_of(dict(self.lines), path))


def from_file(path: Path) -> Layer:
    """The layer of a TOML file of the user."""
    shown = str(path)
    if not path.is_file():
        raise _not_found(path)
    if path.suffix.lower() in foreign.WEIGHTS:
        raise SettingsError("E-CFG-042", path=shown)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise SettingsError("E-CFG-014", where=shown, position=fault.start) from None
    tool = foreign.tool_by_text(path.suffix.lower(), text)
    if tool:
        raise foreign.fault(shown, tool)
    return from_text(text, shown)


def from_text(text: str, name: str = "settings") -> Layer:
    """The layer of a TOML text; `name` is what errors call it."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise _syntax_error(text, name, str(fault)) from None
    tool = foreign.tool_by_keys(values)
    if tool:
        raise foreign.fault(name, tool)
    return Layer("file", name, values, positions.key_lines(text))


def from_recipe(recipe: str | Mapping[str, Any], where: str = "") -> Layer:
    """The layer of a recipe by its name, or of values that stand for one."""
    if isinstance(recipe, str):
        return Layer("recipe", f"recipe {recipe}", recipes.load(recipe, where=where).values)
    return Layer("recipe", "recipe", recipe)


Overrides = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Settings by their dotted keys: texts as on the command line, or plain values as in Python."""


def pairs(overrides: Overrides) -> list[tuple[str, Any]]:
    """Settings with their keys, in order."""
    return list(overrides.items() if isinstance(overrides, Mapping) else overrides)


def from_overrides(overrides: Overrides) -> Layer:
    """The layer of `--section.name value` pairs; of a setting given twice the last one holds."""
    values: dict[str, Any] = {}
    raw: dict[tuple[str, ...], str] = {}
    for key, value in pairs(overrides):
        text = value if isinstance(value, str) else "none" if value is None else json.dumps(value, default=str)
        *sections, name = path = tuple(key.removeprefix("--").split("."))
        inner = values
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = {}
            inner = inner[section]
        inner[name] = value_of(text)
        raw[path] = text
    return Layer("command line", "command line", values, raw=raw)


def value_of(text: str) -> Any:
    """What a word of the command line means: a TOML value where it is one, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        pass
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    # `1e-4` is a number to everybody and valid TOML; `.5` and `5.` are numbers to most people, though not to TOML.
    return float(text) if re.fullmatch(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE) else text


def _not_found(path: Path) -> SettingsError:
    folder = path.parent
    names = sorted(entry.name for entry in folder.glob("*.toml")) if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    shown = str(path)
    if (path / "settings.json").is_file():
        return SettingsError("E-CFG-043", path=shown, name=path.name)
    if path.is_dir():
        return SettingsError("E-CFG-015", path=shown)
    if near:
        return SettingsError("E-CFG-001", path=shown, nearest=", ".join(str(folder / name) for name in near))
    known = difflib.get_close_matches(shown, recipes.names(), n=1, cutoff=0.6)
    return SettingsError("E-CFG-011", path=shown, recipe=(known or ["RECIPE"])[0])


def _syntax_error(text: str, name: str, reason: str) -> SettingsError:
    found = re.search(r"\(at line (\d+), column (\d+)\)", reason)
    lines = text.splitlines() or [""]
    number, column = (int(found[1]), int(found[2])) if found else (len(lines), len(lines[-1]) + 1)
    number = min(number, len(lines))
    line = credentials.masked(lines[number - 1])
    why = re.sub(r"\s*\(at .*\)$", "", reason)
    caret = " " * (min(column, len(line) + 1) - 1) + "^"
    return SettingsError(
        "E-CFG-002", where=f"{name} line {number}, column {column}", path=name, line=line, caret=caret, reason=why
    )


def as_json(values: Any) -> str:
    """Values as JSON text, dates and times as text."""
    return json.dumps(values, default=str)
