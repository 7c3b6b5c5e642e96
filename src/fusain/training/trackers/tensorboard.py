"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from fusain.training.tracker import Tracker


class TensorBoard(Tracker):
    kind: ClassVar[str] = "tensorboard"
    name: ClassVar[str] = "TensorBoard"
    package: ClassVar[str] = "tensorboard"

    def open(self) -> Any:
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker(run_name="", logging_dir=str(self.place.folder / "tensorboard"))

    def describe(self, settings: Mapping[str, Any]) -> None:
        """As a table of text: its own form for settings makes a second run in a sub-folder at each resume."""
        rows = "".join(f"| {key} | {value} |\n" for key, value in settings.items())
        self._tracker.log({"settings": f"| setting | value |\n|---|---|\n{rows}"}, step=0)

    def samples(self, sheet: Path, step: int) -> None:
        with Image.open(sheet) as image:
            pixels_NHWC = np.asarray(image.convert("RGB"))[None]
        self._tracker.log_images({"samples": pixels_NHWC}, step=step, dataformats="NHWC")
