"""`fusain demo`: everything once, on drawn sprites."""

from __future__ import annotations

from pathlib import Path

import click

from fusain.cli import output


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo"))
@output.format_option
@click.pass_context
def verb(context: click.Context, folder: Path) -> None:
    """See it all work in a few minutes, with no download.

    Draws a world of sprites, shows what is in it, trains a class-conditional model, draws images of each class and
    writes a report.

    \b
    Examples:
      fusain demo
      fusain demo my_folder
      fusain demo --format json
    """
    from fusain.cli.faults import STOPPED
    from fusain.cli.progress import progress
    from fusain.runs.demo import demo

    with progress() as report:
        result = demo(folder, report=report)
    output.show(result.as_json(), result.lines(), quiet=[str(result.report or result.run)])
    if result.stopped is not None:
        context.exit(STOPPED[result.stopped])
