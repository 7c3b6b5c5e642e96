"""trackio: its own local folder, which `trackio show` reads."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, ClassVar

from fusain.training.tracker import Tracker


class Trackio(Tracker):
    kind: ClassVar[str] = "trackio"
    name: ClassVar[str] = "trackio"
    package: ClassVar[str] = "trackio"
    extra: ClassVar[str] = "trackio"

    def open(self) -> Any:
        from accelerate.tracking import TrackioTracker

        name = f"{self.place.run}-{self.place.id}"
        return _Quiet(
            TrackioTracker(
                self.place.project, name=name, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
            )
        )

    def samples(self, sheet: Path, step: int) -> None:
        import trackio

        self._tracker.log({"samples": trackio.Image(str(sheet))}, step=step)

    def checkpoint(self, folder: Path, step: int) -> None:
        name = f"{self.place.run}-{self.place.id}"
        self._tracker.tracker.log_artifact(str(folder), name=name, type="model", aliases=[folder.name])


class _Quiet:
    """accelerate's tracker, whose beginning and end print: what people read is not stdout here."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def start(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._tracker.start()

    def finish(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._tracker.finish()
