"""Writes the weights of a checkpoint as those of the end are: files that other tools load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fusain.models.bases.pickles import refuse_existing
from fusain.runs import assembly
from fusain.runs.actions import find_checkpoint, weights_of
from fusain.runs.folder import RunFolder, read_json
from fusain.runs.settings import settings_of
from fusain.training.read_back import ReadBack


@dataclass(frozen=True)
class Exported:
    """The weights of one step, written."""

    folder: Path
    step: int
    files: tuple[str, ...]
    read_back: ReadBack | None
    """What was found in them, where the method reads them again."""

    def as_json(self) -> dict[str, Any]:
        found = {"folder": str(self.folder), "step": self.step, "files": list(self.files)}
        return {**found, "read_back": str(self.read_back) if self.read_back else None}


def export(
    run: str | Path,
    *,
    checkpoint: str = "latest",
    weights: Literal["ema", "raw"] = "ema",
    output: Path | str | None = None,
    runs_folder: Path | str | None = None,
) -> Exported:
    """Write the weights of a checkpoint ("step-00000200", "200" or "latest"); nothing is written over."""
    folder = RunFolder.existing(run, runs_folder)
    saved = find_checkpoint(folder, checkpoint)
    target = Path(output) if output else folder.exported / saved.folder.name
    refuse_existing(target)
    settings = settings_of(folder)
    learner = assembly.build_learner(settings, tuple(read_json(folder.data_lock)["classes"]))
    learner.method.take_up(learner.family, weights_of(saved, weights))
    learner.method.restore(learner.family, saved.state["method"])
    checked = assembly.write_weights(learner, target, step=saved.step)
    files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    return Exported(target, saved.step, tuple(files), checked)
