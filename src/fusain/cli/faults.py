"""From a fault to words on stderr and an exit code; only reached when something went wrong."""

from __future__ import annotations

import difflib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import click

from fusain.errors import FusainError, SettingsError, UsageError

STOPPED: Final = {"asked": 75, "interrupted": 130, "terminated": 143}
"""Exit codes of a run that was stopped, by what stopped it."""
UNEXPECTED: Final = 1
EXIT_CODES: Final[dict[int, str]] = {
    0: "done",
    UNEXPECTED: "Fusain's own mistake; the trace lies in the file that is named",
    2: "the command line is wrong",
    3: "the settings are wrong",
    4: "the images, labels or captions are wrong",
    5: "the machine lacks something: a device, a precision, an extra",
    6: "out of memory",
    7: "a loss or a gradient is not a number",
    8: "a disk, a checkpoint or a run folder is at fault",
    9: "the network or a login is at fault",
    10: "a file was refused because it could do harm",
    75: "stopped on request, with a checkpoint; the same command resumes",
    130: "stopped by Ctrl-C, with a checkpoint where a training ran",
    143: "stopped by SIGTERM, with a checkpoint where a training ran",
}


class Bug(FusainError):
    """A failure that is Fusain's own mistake."""

    exit_code = UNEXPECTED


def tell(fault: Exception, words: Sequence[str]) -> int:
    """Say what is wrong on stderr, and return the exit code."""
    if isinstance(fault, click.exceptions.Exit):
        return fault.exit_code
    if isinstance(fault, click.Abort):
        return STOPPED["interrupted"]
    if isinstance(fault, click.ClickException):
        fault = _usage(fault)
    if "torch" in sys.modules:
        fault = _of_memory(fault)
    if not isinstance(fault, FusainError):
        if os.environ.get("FUSAIN_DEBUG") == "1":
            traceback.print_exception(fault)
        fault = _bug(fault)
    click.echo(json.dumps(as_json(fault), ensure_ascii=False) if _wants_json(words) else str(fault), err=True)
    return fault.exit_code


def as_json(fault: FusainError) -> dict[str, object]:
    """The object that `--format json` prints; further faults that were found with the first stand in `also`."""
    also = [other.as_json() for other in fault.also] if isinstance(fault, SettingsError) else []
    return {"error": {**fault.as_json(), "exit_code": fault.exit_code, "also": also}}


def no_command(name: str, known: Iterable[str], command: str) -> UsageError:
    """The fault for a verb that does not exist."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if near:
        return UsageError("E-USE-002", name=name, nearest=f"{command} {near[0]}")
    return UsageError("E-USE-003", name=name, command=command)


def _usage(fault: click.ClickException) -> FusainError:
    context = getattr(fault, "ctx", None)
    command = context.command_path if context else "fusain"
    if isinstance(fault, click.NoSuchOption):
        near = _near_options(fault)
        if near:
            return UsageError("E-USE-004", option=fault.option_name, nearest=" or ".join(near))
    return UsageError("E-USE-001", problem=fault.format_message(), command=command)


def _of_memory(fault: Exception) -> Exception:
    """What ran out of memory anywhere else than in a training or a drawing is no mistake of Fusain's either."""
    from fusain.training import diagnosis

    if not diagnosis.is_out_of_memory(fault):
        return fault
    advice = "ending what else takes memory; or --device cpu, where the command has it"
    return diagnosis.out_of_memory("this machine", fault, advice=advice, where="", is_resumable=False)


def _near_options(fault: click.NoSuchOption) -> list[str]:
    """Options of the command, and settings of which the option is the last word (`--steps` for `--train.steps`)."""
    from fusain.settings import described

    word = fault.option_name.lstrip("-").replace("-", "_")
    keys = [entry.key for entry in described.load().settings]
    names = {key.rpartition(".")[2] for key in keys}
    match = difflib.get_close_matches(word, sorted(names), n=1, cutoff=0.75)
    settings = [f"--{key}" for key in dict.fromkeys(keys) if match and key.endswith(f".{match[0]}")]
    return (settings or list(fault.possibilities or []))[:3]


def _bug(fault: Exception) -> FusainError:
    runs = Path("runs")
    folder = runs if runs.is_dir() and os.access(runs, os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(
        "w", prefix="fusain-failed-", suffix=".txt", dir=folder, delete=False, encoding="utf-8"
    ) as file:
        file.write("".join(traceback.format_exception(fault)))
    lines = str(fault).splitlines()
    return Bug("E-BUG-001", kind=type(fault).__name__, problem=lines[0] if lines else "no words", path=file.name)


def _wants_json(words: Sequence[str]) -> bool:
    """Read from the words themselves, for the fault may be that they could not be read."""
    joined = " ".join(words)
    return "--format json" in joined or "--format=json" in joined
