"""`fusain train`: starts a run, or goes on with it."""

from __future__ import annotations

from typing import Literal

import click

from fusain.cli import output, overrides


@click.command(cls=overrides.SettingsCommand)
@click.argument("source", metavar="FILE|RECIPE")
@click.option("--name", help="Name of the run; without it, the file's or the recipe's.")
@click.option(
    "--resume",
    type=click.Choice(["auto", "must", "never"]),
    default="auto",
    show_default=True,
    help="Go on with the run of that name if there is one; fail without one; fail with one.",
)
@click.option("--allow-change", metavar="KEY", multiple=True, help="Resume although this setting changed; repeatable.")
@click.option("--device", metavar="NAME", help="Short for --engine.device.")
@output.format_option
@click.pass_context
def verb(
    context: click.Context,
    source: str,
    name: str | None,
    resume: Literal["auto", "must", "never"],
    allow_change: tuple[str, ...],
    device: str | None,
) -> None:
    """Train a model; the same command again resumes it.

    \b
    Examples:
      fusain train run.toml
      fusain train run.toml --name second --train.steps 500
      fusain train unconditional --data.path my_images
    """
    changes = overrides.given(context, device=device)
    from fusain.cli.progress import progress
    from fusain.runs import actions

    with progress() as report:
        result = actions.train(
            source, name=name, overrides=changes, resume=resume, allow_change=allow_change, report=report
        )
    output.show(result.as_json(), [str(result.folder)], quiet=[str(result.folder)])
    for title, text in result.outcome.lines():
        output.talk(f"{title}: {text}.")
    if result.report is not None:
        output.talk(f"Report: {result.report}")
    if result.stopped is not None:
        from fusain.cli.faults import STOPPED

        has_saved = "with a checkpoint" if result.step else "before the first step"
        output.talk(f"Stopped {has_saved}; the same command resumes it.")
        context.exit(STOPPED[result.stopped])
