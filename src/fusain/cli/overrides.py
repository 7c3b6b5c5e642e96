"""Commands that take `--section.name value` for any setting, and show the settings in their help."""

from __future__ import annotations

from typing import Any, Final

import click

from fusain.errors import UsageError
from fusain.settings import described
from fusain.settings.described import Described

_META: Final = "fusain.overrides"


class SettingsCommand(click.Command):
    """Takes dotted options out of the words before Click reads the rest."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="This help with every setting.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        overrides, rest = split(args, _undotted())
        ctx.meta[_META] = overrides
        return super().parse_args(ctx, rest)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        every = bool(ctx.meta.get("fusain.help_all"))
        shown = [entry for entry in described.load().settings if every or entry.basic]
        for section in dict.fromkeys(entry.section for entry in shown):
            with formatter.section(f"Settings, {section or 'of the file'}"):
                formatter.write_dl([_row(entry) for entry in shown if entry.section == section])


def split(words: list[str], undotted: frozenset[str] = frozenset()) -> tuple[list[tuple[str, str]], list[str]]:
    """The `--section.name value` pairs, and the other words; settings without a section are named in `undotted`."""
    pairs: list[tuple[str, str]] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *waiting]
        elif not (name.startswith("--") and ("." in name or name[2:] in undotted)):
            rest.append(word)
        elif equals:
            pairs.append((name[2:], value))
        else:
            following = next(waiting, None)
            if following is None or following.startswith("--"):
                raise UsageError("E-USE-005", option=name)
            pairs.append((name[2:], following))
    return pairs, rest


def _undotted() -> frozenset[str]:
    return frozenset(entry.key for entry in described.load().settings if "." not in entry.key)


def given(context: click.Context, *, device: str | None = None) -> list[tuple[str, str]]:
    """The overrides of this call; `--device` is short for one of them."""
    pairs: list[tuple[str, str]] = list(context.meta.get(_META, []))
    return [*pairs, ("engine.device", device)] if device else pairs


def _show_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta["fusain.help_all"] = True
        click.echo(ctx.get_help())
        ctx.exit()


def _row(entry: Described) -> tuple[str, str]:
    usual = f"; usually {entry.usual[0]:g} to {entry.usual[1]:g}" if entry.usual else ""
    kinds = "".join(f" Only with {key} {' or '.join(names)}." for key, names in entry.when.items() if _chooses(key))
    return f"--{entry.key}", f"{entry.help}{kinds} [{entry.type}; default {entry.default_text}{usual}]"


def _chooses(key: str) -> bool:
    """Whether there is more than one kind to choose from."""
    return any(entry.key == key and len(entry.choices) > 1 for entry in described.load().settings)
