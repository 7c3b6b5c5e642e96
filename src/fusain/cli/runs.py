"""`fusain runs`: what was trained here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fusain.cli import output
from fusain.settings import user_file

if TYPE_CHECKING:
    from fusain.runs.history import RunSummary

in_folder = click.option(
    "--runs-folder",
    type=click.Path(path_type=Path),
    default=user_file.runs_folder,
    show_default="runs",
    help="Where the runs are.",
)


@click.group()
def verb() -> None:
    """List, show, export and remove runs.

    \b
    Examples:
      fusain runs ls
      fusain runs show my_run
      fusain runs export my_run --checkpoint 500 -o step-500
      fusain runs rm my_run
    """


@verb.command("ls")
@in_folder
@output.format_option
def list_all(runs_folder: Path) -> None:
    """One line for each run."""
    from fusain.runs import history

    found = list(history.runs_in(runs_folder))
    width = max((len(run.name) for run in found), default=0)
    lines = [f"{run.name:<{width}}  {_line(run)}" for run in found]
    output.show({"runs": [run.as_json() for run in found]}, lines, quiet=[run.name for run in found])
    if not found:
        output.talk(f"No runs in {runs_folder}.")


@verb.command("show")
@click.argument("run")
@in_folder
@output.format_option
def show_one(run: str, runs_folder: Path) -> None:
    """State, files and settings of a run."""
    from fusain.runs import history, outcome
    from fusain.runs.folder import RunFolder, read_json

    folder = RunFolder.existing(run, runs_folder)
    summary, settings, took = history.summary(folder), read_json(folder.settings), outcome.of(folder)
    report = str(folder.report) if folder.report.exists() else None
    checkpoints = sorted(path.name for path in folder.checkpoints.glob("step-*"))
    lines = [f"{summary.name}: {_line(summary)}", f"folder: {folder.path}", f"checkpoints: {', '.join(checkpoints)}"]
    lines += [f"weights: {folder.weights}"] if folder.weights.exists() else []
    lines += [f"report: {report}"] if report else []
    lines += [f"{title.lower()}: {text}" for title, text in took.lines()]
    lines += [f"{key} = {value}" for key, value in _leaves(settings)]
    told = {**summary.as_json(), "checkpoints": checkpoints, "report": report}
    told |= {"outcome": took.as_json(), "settings": settings}
    output.show(told, lines)


@verb.command("export")
@click.argument("run")
@click.option("--checkpoint", metavar="STEP", default="latest", show_default=True, help="A step or 'latest'.")
@click.option("--weights", type=click.Choice(["ema", "raw"]), default="ema", show_default=True, help="Averaged or not.")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), help="Without it, a folder in the run.")
@in_folder
@output.format_option
def export(run: str, checkpoint: str, weights: Literal["ema", "raw"], out: Path | None, runs_folder: Path) -> None:
    """Write the weights of a checkpoint as files that other tools load."""
    from fusain.runs import exporting

    done = exporting.export(run, checkpoint=checkpoint, weights=weights, output=out, runs_folder=runs_folder)
    lines = [f"{done.folder}: the weights of step {done.step:,}", *(f"  {name}" for name in done.files)]
    lines += [str(done.read_back)] if done.read_back else []
    output.show(done.as_json(), lines, quiet=[str(done.folder)])


@verb.command("rm")
@click.argument("run")
@in_folder
@click.option("--yes", is_flag=True, help="Do not ask.")
@output.format_option
def remove(run: str, runs_folder: Path, yes: bool) -> None:
    """Move a run to the trash folder beside the runs."""
    from fusain.runs import history
    from fusain.runs.folder import RunFolder

    folder = RunFolder.existing(run, runs_folder)
    output.confirm(f"Move the run '{folder.name}' to the trash?", yes=yes)
    trash = history.remove(run, runs_folder)
    output.show({"removed": folder.name, "trash": str(trash)}, [str(trash)], quiet=[str(trash)])


def _line(run: RunSummary) -> str:
    loss = f"  held-out loss {run.held_out_loss:.4f}" if run.held_out_loss is not None else ""
    changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
    return f"{run.state:<11} step {run.step:,} of {run.steps:,}  {run.family}, {run.method}{loss}  {changed}"


def _leaves(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Nested settings as dotted keys."""
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, "none" if value is None else value))
    return found
