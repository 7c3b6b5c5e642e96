"""`fusain doctor`: is this machine fit, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusain.cli import output

if TYPE_CHECKING:
    from fusain.runs.doctor.finding import Finding

MARKS = {"ok": " ", "warning": "!", "fault": "x"}


@click.command()
@click.option(
    "--runs-folder",
    type=click.Path(path_type=Path),
    show_default="runs",
    help="Where runs would be written; the disk there is tested.",
)
@output.json_option
@output.format_option
@click.pass_context
def verb(context: click.Context, runs_folder: Path | None) -> None:
    """Look at this machine: versions, devices, disk, extras, network.

    The exit code is 0 where Fusain can work, 3 where your settings are at fault, 5 where versions or devices are, 8
    where only the disk is.

    \b
    Examples:
      fusain doctor
      fusain doctor --json
      fusain doctor --runs-folder /mnt/big/runs
    """
    from fusain.runs.doctor import examination

    found = list(examination.examine(runs_folder))
    faults, warnings = (sum(one.level == level for one in found) for level in ("fault", "warning"))
    lines = [line for one in found for line in _lines(one)]
    verdict = f"{faults} faults, {warnings} warnings." if faults or warnings else "All is well."
    data = {"ok": not faults, "faults": faults, "warnings": warnings, "findings": [one.as_json() for one in found]}
    output.show(data, [*lines, "", verdict], quiet=[one.notice.code for one in found if one.notice])
    context.exit(min((one.exit_code for one in found if one.exit_code), default=0))


def _lines(finding: Finding) -> list[str]:
    """A line for what was found, and what to do below it."""
    lines = [f"{MARKS[finding.level]} {finding.area:<9} {finding.name:<22} {finding.text}"]
    if finding.notice is not None:
        message = finding.notice.message
        lines += [f"    {text}" for text in (f"{finding.notice.code} {message.what}", message.why, message.do) if text]
    return lines
