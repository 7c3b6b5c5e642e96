"""What a plan foresaw waits in the cache folder, until a run of the same settings begins and takes it into its own."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fusain.data import index_cache, stored
from fusain.errors import StorageError
from fusain.runs import resuming
from fusain.runs.folder import RunFolder, read_json, write_json
from fusain.runs.settings import RunSettings

if TYPE_CHECKING:
    from fusain.runs.planning import RunPlan

BESIDE_A_STEP: Final = (
    *("checkpoint.", "samples.", "track.", "runs_folder", "weights_folder", "family.revision", "data.revision"),
    *("train.steps", "train.epochs", "train.held_out_every_steps", "train.seed"),
)
"""Settings that neither time nor memory of a step hangs on: a plan holds for all runs that differ in these only."""


def keep(settings: RunSettings, plan: RunPlan) -> None:
    """The latest plan of equal settings counts, of those that measured.

    A cache that cannot be written costs the comparison at the end and nothing else.
    """
    if plan.seconds_range is None:
        return
    path = _path(settings)
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "planned": round(time.time()),
                "seconds_per_step": plan.seconds_per_step,
                "seconds_per_step_range": [end / plan.steps for end in plan.seconds_range],
                "memory": plan.memory_peak,
            },
        )
        _prune(path.parent)


def take(settings: RunSettings, run: RunFolder) -> None:
    """Into the folder of a run that begins. Where nobody asked for a plan there is nothing to take."""
    run.foreseen.unlink(missing_ok=True)
    found: dict[str, Any] = {}
    with suppress(StorageError):
        found = read_json(_path(settings))
    if found:
        write_json(run.foreseen, found)


def _path(settings: RunSettings) -> Path:
    """One file for equal settings on one machine."""
    leaves = resuming.leaves(settings.model_dump(mode="json"))
    facts = {key: value for key, value in leaves if not key.startswith(BESIDE_A_STEP)}
    facts |= {"data.path": os.path.abspath(settings.data.path), "machine": platform.node()}
    return index_cache.folder() / "plans" / f"{stored.key(facts).hex()[:32]}.json"


def _prune(plans: Path) -> None:
    oldest = time.time() - 86_400 * index_cache.UNUSED_DAYS
    for path in plans.glob("*.json"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
