"""Writes what an import found as a settings file, with what differs from the source as comments in it."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from fusain.errors import FusainError, SettingsError, UsageError
from fusain.runs.imports import reading
from fusain.runs.imports.account import Account, Entry, Fate
from fusain.settings import credentials, editors


@dataclass(frozen=True)
class Imported:
    """A settings file that was written, and the account of it."""

    settings: Path
    tool: str
    account: Account
    faults: tuple[FusainError, ...]
    """What must be mended before it can be used."""

    def as_json(self) -> dict[str, Any]:
        """Each key of the source under what became of it."""
        account: dict[str, Any] = {
            fate: [_as_json(entry) for entry in self.account.of(fate)] for fate in get_args(Fate)
        }
        return {
            "settings": str(self.settings),
            "tool": self.tool,
            **account,
            "faults": [fault.as_json() for fault in self.faults],
        }


def import_file(source: Path, output: Path, *, schema: bool = True) -> Imported:
    """Make `output` of another tool's configuration; a file that is there is never written over."""
    if os.path.lexists(output):
        raise UsageError("E-IMP-007", path=output)
    tool, account = reading.read(source)
    text = toml_text(account, tool.name, source.name)
    output.parent.mkdir(parents=True, exist_ok=True)
    has_schema = schema and editors.put_beside(output)
    with output.open("x", encoding="utf-8") as file:
        file.write(f"{editors.COMMENT}\n{text}" if has_schema else text)
    return Imported(output, tool.name, account, tuple(_faults(text)))


def _faults(text: str) -> Iterator[FusainError]:
    """Told now, not at the start of a training."""
    from fusain.runs.settings import RunSettings
    from fusain.settings.read import resolve

    try:
        resolve(RunSettings, text=text)
    except SettingsError as fault:
        yield fault
        yield from fault.also


def toml_text(account: Account, tool: str, name: str) -> str:
    """The settings by section, each with the key that it is from, and what has no place at the end."""
    lines = [f"# Made by `fusain import` from {name}, a configuration of {tool}.", ""]
    by_target = {entry.target: entry for entry in account.entries if entry.target in account.settings}
    sections: dict[str, list[str]] = {}
    for target in account.settings:
        section, _, setting = target.rpartition(".")
        entry = by_target[target]
        lines_of = sections.setdefault(section, [])
        lines_of += [*_comment(entry), f"{setting} = {_toml(account.settings[target])}"]
    for section in sorted(sections, key=lambda name: (name != "", name)):
        lines += [f"[{section}]"] if section else []
        lines += [*sections[section], ""]
    for found, title in (
        (account.of("lost"), "Not done by Fusain, or not in this way:"),
        (account.of("unknown"), "Not known to Fusain:"),
    ):
        lines += [f"# {title}"] if found else []
        for entry in found:
            lines += _wrapped(f"{entry.key} = {shown(entry)}" + (f": {entry.words}" if entry.words else ""), "#   ")
        lines += [""] if found else []
    return "\n".join(lines).rstrip() + "\n"


def _comment(entry: Entry) -> list[str]:
    if entry.fate == "assumed":
        return _wrapped(entry.words, "# ")
    return _wrapped(f"{entry.key} = {shown(entry)}" + (f"; {entry.words}" if entry.words else ""), "# ")


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=start, subsequent_indent=start + "  ", break_long_words=False)


def shown(entry: Entry) -> str:
    """A value of the source in one short line; what looks like a password is never shown."""
    secret = next(credentials.find({entry.key.rpartition(".")[2]: entry.value}), None)
    text = credentials.masked(json.dumps(entry.value, ensure_ascii=False, default=str))
    if secret is not None:
        return secret[1]
    return text if len(text) <= 80 else text[:79] + "…"


def _as_json(entry: Entry) -> dict[str, Any]:
    found = {"key": entry.key, "value": shown(entry), "words": entry.words}
    return found | ({"target": entry.target, "result": entry.result} if entry.target else {})


def _toml(value: Any) -> str:
    import tomlkit

    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table.as_string()
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return '"none"' if value is None else str(tomlkit.item(value).as_string())
