"""What a verb says: data on stdout, talk on stderr, in the format that was asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

FORMATS: Final = ("human", "json", "quiet")
_META: Final = "fusain.format"

Command = TypeVar("Command", bound=Callable[..., Any])


def format_option(command: Command) -> Command:
    """`--format`, which may stand before or after the verb."""

    def remember(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.find_root().meta[_META] = value

    return click.option(
        "--format",
        type=click.Choice(FORMATS),
        callback=remember,
        expose_value=False,
        help="human (default), json (one object on stdout) or quiet (only the bare result).",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`, short for `--format json`."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.find_root().meta[_META] = "json"

    return click.option("--json", is_flag=True, callback=remember, expose_value=False, help="Short for --format json.")(
        command
    )


def wanted() -> str:
    """The format that was asked for."""
    context = click.get_current_context(silent=True)
    return str(context.find_root().meta.get(_META, "human")) if context else "human"


def show(data: Any, lines: Iterable[str], *, quiet: Iterable[str] = ()) -> None:
    """The result: `data` as JSON, or `lines` for people, or the few words that a script takes on."""
    if wanted() == "json":
        click.echo(json.dumps(data, ensure_ascii=False, default=str))
        return
    for line in lines if wanted() == "human" else quiet:
        click.echo(line)


def as_value(value: Any) -> str:
    """The value of a setting as people write it."""
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value, ensure_ascii=False)


def talk(text: str) -> None:
    """Something to know beside the result; never data."""
    if wanted() != "quiet":
        click.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Goes on only with a yes, from the option or from the person at the terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        from fusain.errors import UsageError

        raise UsageError("E-USE-006", question=question)
    click.confirm(question, abort=True, err=True)


def is_lively() -> bool:
    """Whether stderr is a terminal that may be drawn on, with colours and a moving bar."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and wanted() == "human"
