"""`fusain explain`: a setting, a section or an error code in words."""

from __future__ import annotations

import difflib
from dataclasses import asdict

import click

from fusain.cli import output
from fusain.errors import UsageError
from fusain.settings import described
from fusain.settings.described import Described


@click.command()
@click.argument("name", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a settings file, for editors.")
@output.format_option
def verb(name: str | None, schema: bool) -> None:
    """Say what a setting or an error code means.

    \b
    Examples:
      fusain explain train.learning_rate
      fusain explain train
      fusain explain E-CFG-003
      fusain explain --schema > fusain.schema.json
    """
    if schema:
        from fusain.settings import editors

        click.echo(editors.text(), nl=False)
        return
    from fusain.messages import catalogue

    settings = described.load().settings
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
    lines = [line for entry in found for line in (*_about(entry), "")][:-1]
    output.show({"settings": [asdict(entry) for entry in found]}, lines, quiet=lines)


def _about(entry: Described) -> list[str]:
    lines = [entry.key, f"  {entry.help}", f"  Value: {entry.type}", f"  Default: {entry.default_text}"]
    lines += [f"  Usually: {entry.usual[0]:g} to {entry.usual[1]:g}"] if entry.usual else []
    lines += [f"  In place of: {entry.section}.{entry.instead_of}"] if entry.instead_of else []
    lines += [f"  With: {key} = {' or '.join(names)}" for key, names in entry.when.items()]
    _, _, last = entry.key.rpartition(".")
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
