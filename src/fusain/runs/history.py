"""Lists, shows and puts away runs; reads files only, so that it is quick."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fusain.errors import StorageError, UsageError
from fusain.runs import lock
from fusain.runs.folder import TRASH, RunFolder, read_json
from fusain.settings import user_file
from fusain.training import events


@dataclass(frozen=True)
class RunSummary:
    """One run at a glance."""

    name: str
    folder: str
    state: str
    """running, done, stopped, failed, or interrupted (killed without a word)."""
    step: int
    steps: int
    family: str
    method: str
    held_out_loss: float | None
    changed: float
    """When its events were last written, in seconds since 1970."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def runs_in(runs_folder: Path | str | None = None) -> Iterator[RunSummary]:
    """All runs of a folder, by name; of the user's where none is named."""
    folder = Path(runs_folder) if runs_folder is not None else user_file.runs_folder()
    for path in sorted(folder.glob("*/settings.json")):
        yield summary(RunFolder(path.parent))


def summary(folder: RunFolder) -> RunSummary:
    settings = read_json(folder.settings)
    step = steps = 0
    state, loss = "new", None
    for event in events.current(folder.events):
        step = max(step, event.get("step", 0))
        steps = event.get("steps", steps)
        loss = event["loss"] if event["kind"] == "held_out" else loss
        state = {"start": "interrupted", "done": "done", "stopped": "stopped", "failed": "failed"}.get(
            event["kind"], state
        )
    if lock.is_held(folder.lock):
        state = "running"
    changed = folder.events.stat().st_mtime if folder.events.exists() else folder.settings.stat().st_mtime
    kinds = {"family": settings["family"]["kind"], "method": settings["method"]["kind"]}
    return RunSummary(folder.name, str(folder.path), state, step, steps, held_out_loss=loss, changed=changed, **kinds)


def remove(run: str | Path, runs_folder: Path | str | None = None) -> Path:
    """Move a run into the trash folder beside it; nothing is deleted. A run that is going on is left alone."""
    folder = RunFolder.existing(run, runs_folder)
    if lock.is_held(folder.lock):
        raise UsageError("E-RUN-009", where=str(folder.path), run=folder.name)
    trash = folder.path.parent / TRASH
    target = trash / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        trash.mkdir(exist_ok=True)
        return Path(shutil.move(folder.path, target))
    except OSError as fault:
        raise StorageError("E-STORE-004", where=str(trash), fault=fault.strerror or fault) from fault
