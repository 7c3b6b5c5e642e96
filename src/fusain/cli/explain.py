"""`fusain explain`: a setting, a section or an error code in words."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict
from typing import Any

import click

from fusain.cli import output
from fusain.errors import UsageError
from fusain.settings import described, sources, user_file
from fusain.settings.described import Described


@click.command()
@click.argument("name", required=False)
@click.option("--in", "source", metavar="FILE|RECIPE", help="Also say what it is there, and which source says so.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a settings file, for editors.")
@output.format_option
def verb(name: str | None, source: str | None, schema: bool) -> None:
    """Say what a setting or an error code means.

    \b
    Examples:
      fusain explain train.learning_rate
      fusain explain train
      fusain explain train.steps --in run.toml
      fusain explain E-CFG-003
      fusain explain --schema > fusain.schema.json
    """
    if schema:
        from fusain.settings import editors

        click.echo(editors.text(), nl=False)
        return
    from fusain.messages import catalogue

    settings = [*described.load().settings, *described.load().user]
    if name is None:
        keys = list(dict.fromkeys(entry.key for entry in settings))
        output.show({"settings": keys}, keys, quiet=keys)
        return
    code = name.upper()
    if code in catalogue():
        message = catalogue()[code]
        lines = [f"{code} {message.what}", *_named("Why", message.why), *_named("Do", message.do)]
        output.show({"code": code, "message": message.what, "why": message.why, "hint": message.do}, lines)
        return
    found = [entry for entry in settings if name in (entry.key, entry.section)]
    found = found or [entry for entry in settings if entry.key.rpartition(".")[2] == name]
    if not found:
        raise _unknown(name, [entry.key for entry in settings], list(catalogue()))
    found_in = {entry.key: _sources(entry, source) for entry in found}
    lines = [line for entry in found for line in (*_about(entry), *_named_in(found_in[entry.key], source), "")][:-1]
    data = [
        asdict(entry) | {"sources": [{"from": str(origin), "value": value} for origin, value in found_in[entry.key]]}
        for entry in found
    ]
    output.show({"settings": data}, lines, quiet=lines)


def _sources(entry: Described, source: str | None) -> sources.Found:
    return sources.of_users(entry.key) if _is_users(entry) else sources.of(entry.key, source)


def _is_users(entry: Described) -> bool:
    return entry in described.load().user


def _named_in(found: sources.Found, source: str | None) -> list[str]:
    """Each source that sets it, the one that holds first."""
    lines = [
        f"  {'Here' if number == 0 else 'Instead of'}: {_shown(value)}  ({origin})"
        for number, (origin, value) in enumerate(reversed(found))
    ]
    return lines or (["  Here: the default"] if source is not None else [])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _about(entry: Described) -> list[str]:
    lines = [entry.key, f"  {entry.help}", f"  Value: {entry.type}", f"  Default: {entry.default_text}"]
    lines += [f"  Usually: {entry.usual[0]:g} to {entry.usual[1]:g}"] if entry.usual else []
    lines += [f"  In place of: {entry.section}.{entry.instead_of}"] if entry.instead_of else []
    lines += [f"  With: {key} = {' or '.join(names)}" for key, names in entry.when.items()]
    _, _, last = entry.key.rpartition(".")
    if _is_users(entry):
        return [*lines, f"  In your own settings, {user_file.path()}: {last} = …"]
    return [*lines, f"  In a file: [{entry.section}] {last} = …", f"  On the command line: --{entry.key} VALUE"]


def _named(name: str, text: str) -> list[str]:
    return [f"{name}: {text}"] if text else []


def _unknown(name: str, keys: list[str], codes: list[str]) -> UsageError:
    last = {key.rpartition(".")[2]: key for key in keys}
    near = difflib.get_close_matches(name, [*keys, *last], n=1, cutoff=0.6)
    near = near or difflib.get_close_matches(name.upper(), codes, n=1, cutoff=0.8)
    if near:
        return UsageError("E-USE-008", name=name, nearest=last.get(near[0], near[0]))
    return UsageError("E-USE-009", name=name)
