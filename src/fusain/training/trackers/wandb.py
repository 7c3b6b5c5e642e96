"""Weights & Biases: a folder in the run folder, or an account."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from fusain.training import relay
from fusain.training.tracker import Tracker


class WeightsAndBiases(Tracker):
    kind: ClassVar[str] = "wandb"
    name: ClassVar[str] = "W&B"
    package: ClassVar[str] = "wandb"

    def open(self) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB__SERVICE_WAIT", f"{relay.PATIENCE:g}")  # beside a training it begins slowly
        os.environ.setdefault("WANDB_DATA_DIR", str(self.place.folder.absolute() / "wandb" / "data"))
        import wandb
        from accelerate.tracking import WandBTracker
        from wandb.analytics.opentelemetry import opentelemetry_proxy

        if os.environ["WANDB_ERROR_REPORTING"].lower() in ("false", "0"):
            opentelemetry_proxy.disable()  # it counts how its functions are used, whatever that variable says
        # It would take along the host, the user, the command line, the packages and the state of the git folder.
        private = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            host="private",
            silent=True,
            username="private",
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        return WandBTracker(
            self.place.project,
            id=self.place.id,
            name=self.place.run,
            resume="allow",
            mode=self.place.asked,
            dir=str(self.place.folder),
            settings=private,
        )

    def samples(self, sheet: Path, step: int) -> None:
        with Image.open(sheet) as image:
            self._tracker.log_images({"samples": [image.convert("RGB")]}, step=step)

    def checkpoint(self, folder: Path, step: int) -> None:
        import wandb

        artifact = wandb.Artifact(f"{self.place.run}-{self.place.id}", type="model", metadata={"step": step})
        artifact.add_dir(str(folder))
        self._tracker.tracker.log_artifact(artifact, aliases=[folder.name])
