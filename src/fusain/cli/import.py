"""`fusain import`: another tool's configuration as a settings file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fusain.cli import output

if TYPE_CHECKING:
    from fusain.runs.imports.writing import Imported

TITLES: Final = {
    "mapped": "taken over",
    "assumed": "what that tool does by itself, written down",
    "needless": "needs no place here",
    "lost": "NOT DONE by Fusain, or not in this way",
    "unknown": "NOT KNOWN to Fusain",
}


@click.command()
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option("-o", "--output", "path", type=click.Path(path_type=Path), default=Path("run.toml"), show_default=True)
@click.option("--schema/--no-schema", default=True, help="Put the schema beside it, by which editors help and check.")
@output.format_option
def verb(source: Path, path: Path, schema: bool) -> None:
    """Make a settings file from a configuration of kohya, OneTrainer, ai-toolkit or diffusers.

    Every key of the file is accounted for. Nothing is written over.

    \b
    Examples:
      fusain import config_lora.toml -o run.toml
      fusain import "my preset.json" -o run.toml
      fusain import train.sh -o run.toml
      fusain import job.yaml -o run.toml --format json
    """
    from fusain.runs.imports import writing

    made = writing.import_file(source, path, schema=schema)
    output.show(made.as_json(), [*_lines(made)], quiet=[str(path)])
    for fault in made.faults:
        output.talk(f"To be mended in {path}: {fault.code} {fault.message.what} {fault.message.do}")
    output.talk(f"Next: fusain plan {path}")


def _lines(made: Imported) -> Iterator[str]:
    """The settings file, then each key of the source under what became of it."""
    from fusain.runs.imports.writing import shown

    yield f"{made.settings}, from a configuration of {made.tool}"
    for fate, title in TITLES.items():
        found = [entry for entry in made.account.entries if entry.fate == fate]
        if found:
            yield from ("", f"{title} ({len(found)})")
        for entry in found:
            source = f"{entry.key} = {shown(entry)}" if entry.key else ""
            target = f"{entry.target} = {output.as_value(entry.result)}" if entry.target else ""
            words = f"  ({entry.words})" if entry.words else ""
            yield f"  {' -> '.join(text for text in (source, target) if text)}{words}"
