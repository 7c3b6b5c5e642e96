"""Other places that curves go to, through accelerate's trackers; one that fails is dropped and never stops a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusain.errors import EnvironmentFault
from fusain.training.events import Event


class TensorBoard:
    """Listens to the events of a run and writes its curves for TensorBoard."""

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        from accelerate.utils import is_tensorboard_available

        if not is_tensorboard_available():
            raise EnvironmentFault("E-ENV-006", where="track.tensorboard")
        self._folder = folder
        self._tracker: Any = None

    def __call__(self, event: Event) -> None:
        curves = {"step": ("loss", "norm", "rate"), "held_out": ("loss",)}.get(event["kind"])
        if curves is None:
            return
        prefix = "held_out" if event["kind"] == "held_out" else "train"
        self._open().log({f"{prefix}/{name}": event[name] for name in curves}, step=event["step"])

    def _open(self) -> Any:
        if self._tracker is None:
            from accelerate.tracking import TensorBoardTracker

            self._tracker = TensorBoardTracker(run_name="", logging_dir=str(self._folder))
            self._tracker.start()
        return self._tracker
