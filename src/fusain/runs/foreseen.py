"""What a plan foresaw waits in the cache folder, until a run of the same settings begins and takes it into its own."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fusain.data import index_cache, stored
from fusain.errors import StorageError
from fusain.runs import resuming
from fusain.runs.folder import RunFolder, read_json, write_json
from fusain.runs.settings import RunSettings

BESIDE_A_STEP: Final = (
    *("checkpoint.", "samples.", "track.", "runs_folder", "weights_folder", "family.revision", "data.revision"),
    *("train.steps", "train.epochs", "train.held_out_every_steps", "train.seed"),
)
"""Settings that neither time nor memory of a step hangs on: a plan holds for all runs that differ in these only."""
OF_SAMPLES: Final = frozenset(("sampler", "steps", "guidance", "count", "prompts"))
"""What a round of samples takes hangs on these."""


@dataclass(frozen=True)
class Foreseen:
    """What was measured before, by which runs of these settings are foreseen, however long they are."""

    seconds_each: Mapping[str, float]
    """By the parts of a training's course; what is not there was not foreseen."""
    seconds_at_first: Mapping[str, float]
    """What each takes longer when a session comes to it for the first time."""
    seconds_per_step_range: tuple[float, float]
    """The fastest and the slowest that was measured."""
    memory: int

    def seconds(self, times: Mapping[str, int]) -> dict[str, float]:
        """Of the parts of a course, by how often each comes and how often it starts."""

        def of_part(part: str, each: float) -> float:
            first = min(times.get(part, 0), times.get("start", 1))
            return times.get(part, 0) * each + first * self.seconds_at_first.get(part, 0.0)

        return {part: of_part(part, each) for part, each in self.seconds_each.items()}

    def whole(self, times: Mapping[str, int]) -> float:
        return sum(self.seconds(times).values())

    def ends(self, times: Mapping[str, int]) -> tuple[float, float]:
        """The range of the whole, as much as the steps differ."""
        without = self.whole(times) - times["step"] * self.seconds_each["step"]
        low, high = (without + times["step"] * end for end in self.seconds_per_step_range)
        return low, high


def keep(settings: RunSettings, found: Foreseen) -> None:
    """The latest plan of equal settings counts, of those that measured.

    A cache that cannot be written costs the comparison at the end and nothing else.
    """
    path = _path(settings)
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"planned": round(time.time()), **asdict(found), "samples": _of_samples(settings)})
        _prune(path.parent)


def take(settings: RunSettings, run: RunFolder) -> None:
    """Into the folder of a run that begins. Where nobody asked for a plan there is nothing to take.

    Samples that are drawn in another way than was planned are not foreseen.
    """
    run.foreseen.unlink(missing_ok=True)
    found: dict[str, Any] = {}
    with suppress(StorageError, AttributeError, KeyError):
        found = read_json(_path(settings))
        if found.pop("samples") != _of_samples(settings):
            found["seconds_each"].pop("samples", None)
    if found:
        write_json(run.foreseen, found)


def of(run: RunFolder) -> Foreseen | None:
    """What was kept when the run began; what cannot be read was not foreseen."""
    with suppress(StorageError, AttributeError, KeyError, TypeError, ValueError):
        kept = read_json(run.foreseen)
        low, high = kept["seconds_per_step_range"]
        each, first = (
            {part: float(seconds) for part, seconds in kept[key].items()}
            for key in ("seconds_each", "seconds_at_first")
        )
        found = Foreseen(each, first, (float(low), float(high)), int(kept["memory"]))
        return found if "step" in each else None
    return None


def _of_samples(settings: RunSettings) -> dict[str, Any]:
    return settings.samples.model_dump(mode="json", include=set(OF_SAMPLES))


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
