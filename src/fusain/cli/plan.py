"""`fusain plan`: what a training would do."""

from __future__ import annotations

import json
from typing import Any

import click

from fusain.cli import output, overrides
from fusain.settings import described


@click.command(cls=overrides.SettingsCommand)
@click.argument("source", metavar="FILE|RECIPE")
@click.option("--device", metavar="NAME", help="Short for --engine.device.")
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Measure a few steps; --no-measure touches no device, so it plans for a GPU from anywhere.",
)
@output.format_option
@click.pass_context
def verb(context: click.Context, source: str, device: str | None, measure: bool) -> None:
    """Show what a training would do, without doing it.

    \b
    Examples:
      fusain plan run.toml
      fusain plan run.toml --no-measure --train.batch_size 64
      fusain plan unconditional --data.path my_images
      fusain plan sdxl-lora-8gb --data.path my_images --device cuda --no-measure
    """
    changes = overrides.given(context, device=device)
    from fusain.runs import planning

    plan = planning.plan(source, overrides=changes, measure=measure)
    for notice in plan.notices:
        output.talk(f"Warning: {notice}")
    lines = [f"{title:<14} {text}" for title, text in plan.lines()]
    settings = [
        f"  {key} = {_value(plan.settings, key)}  ({origin})"
        for key, origin in sorted(plan.origins.items(), key=lambda entry: entry[0])
    ]
    output.show(plan.as_json(), [*lines, "settings", *settings])


def _value(settings: dict[str, Any], key: str) -> str:
    value = described.look_up(settings, key)
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
