"""The contract of a tracker, which is another place that curves go to, and the settings that choose among them."""

from __future__ import annotations

import importlib.util
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from fusain.errors import EnvironmentFault
from fusain.settings.section import Section

CURVES = {"step": ("train", ("loss", "norm", "rate")), "held_out": ("held_out", ("loss",))}
"""The numbers of an event, and what they are called after."""


class TrackSettings(Section):
    """Where else the curves go; `events.jsonl` in the run folder is always written."""

    tensorboard: bool = False
    """Write for TensorBoard into the run folder's `tensorboard/`."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases: `offline` into the run folder's `wandb/`, without an account; `online` as you are logged in."""
    mlflow: bool = False
    """Write for MLflow into `mlflow.db` in the runs folder, or to where MLFLOW_TRACKING_URI says."""
    trackio: bool = False
    """Write for trackio, to where `trackio show` looks."""
    project: str = Field("fusain", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")
    """What W&B, MLflow and trackio keep the runs under."""
    checkpoints: bool = False
    """Hand checkpoints on as artifacts too. Each is copied, or sent, whole."""

    def silent_settings(self) -> Mapping[str, str]:
        if self.wandb == "off" and not self.mlflow and not self.trackio:
            reason = "only W&B, MLflow and trackio read it, and none is chosen"
            return dict.fromkeys(("project", "checkpoints"), reason)
        return {}


@dataclass(frozen=True)
class Place:
    """What a tracker is told of the run that it belongs to."""

    folder: Path
    run: str
    project: str = "fusain"
    asked: bool | str = True
    """What its own setting says."""
    checkpoints: bool = False

    @property
    def id(self) -> str:
        """Names this run apart from others of its name, and the same one when it is gone on with."""
        return self.remembered("id") or self.remember("id", uuid.uuid4().hex[:8])

    def remembered(self, name: str) -> str | None:
        """What was kept by `remember`, by whichever process of this run."""
        try:
            kept: dict[str, str] = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept.get(name)

    def remember(self, name: str, value: str) -> str:
        names = {one: self.remembered(one) for one in ("id", "mlflow")} | {name: value}
        self._file.write_text(json.dumps({one: kept for one, kept in names.items() if kept}), encoding="utf-8")
        return value

    @property
    def _file(self) -> Path:
        return self.folder / "tracked.json"


class Tracker(ABC):
    """One other place; one file in `training/trackers/` each. All but `__init__` runs in a thread of its own."""

    kind: ClassVar[str]
    """Also the name of its setting."""
    name: ClassVar[str]
    package: ClassVar[str]
    extra: ClassVar[str] = "track"
    """What to install for it."""

    def __init__(self, place: Place) -> None:
        if importlib.util.find_spec(self.package) is None:
            where, default = f"track.{self.kind}", TrackSettings.model_fields[self.kind].default
            otherwise = f"do without it: --{where} {str(default).lower()}"
            raise EnvironmentFault("E-ENV-006", where=where, name=self.name, extra=self.extra, otherwise=otherwise)
        self.place = place
        self.left_out = 0
        """Files that were gone again before they could be handed on."""
        self._tracker: Any = None

    def hear(self, event: Mapping[str, Any], settings: Callable[[], Mapping[str, Any]]) -> None:
        """Hand on what is in an event. The place is opened with the first one, which is late enough for the engine."""
        if self._tracker is None:
            self._tracker = self.open()
            self._tracker.start()
            self.describe(settings())
        kind, step = event["kind"], event.get("step", 0)
        if kind in CURVES:
            prefix, names = CURVES[kind]
            self._tracker.log({f"{prefix}/{name}": event[name] for name in names}, step=step)
        for path in self._files(event):
            try:
                self.samples(path, step) if kind == "samples" else self.checkpoint(path, step)
            except FileNotFoundError:  # checkpoints give way to newer ones, which we are no reason to delay
                self.left_out += 1

    def finish(self) -> None:
        if self._tracker is not None:
            self.close()

    @abstractmethod
    def open(self) -> Any:
        """The tracker of accelerate, not yet started. What its package sends home by itself is turned off here."""

    def describe(self, settings: Mapping[str, Any]) -> None:
        """Hand on the settings of the run."""
        self._tracker.store_init_configuration(settings)

    @abstractmethod
    def samples(self, sheet: Path, step: int) -> None:
        """Hand on a contact sheet."""

    def checkpoint(self, folder: Path, step: int) -> None:
        """Hand on a checkpoint; a place that keeps no files passes it over."""
        return

    def close(self) -> None:
        self._tracker.finish()

    def _files(self, event: Mapping[str, Any]) -> Iterator[Path]:
        if event["kind"] == "samples":
            yield self.place.folder / event["path"] / "sheet.png"
        if event["kind"] == "checkpoint" and self.place.checkpoints:
            yield self.place.folder / "checkpoints" / event["path"]
