"""MLflow: one SQLite file for all runs of a runs folder, or a server of the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fusain.training.tracker import Tracker

URI = "MLFLOW_TRACKING_URI"


class MLflow(Tracker):
    kind: ClassVar[str] = "mlflow"
    name: ClassVar[str] = "MLflow"
    package: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"

    def open(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from accelerate.tracking import MLflowTracker

        runs = self.place.folder.absolute().parent
        has_own_place = URI in os.environ
        mlflow.set_tracking_uri(os.environ.get(URI, f"sqlite:///{runs / 'mlflow.db'}"))
        return MLflowTracker(
            self.place.project,
            logging_dir=None if has_own_place else (runs / "mlflow-files").as_uri(),
            run_id=self.place.remembered("mlflow"),
            run_name=self.place.run,
            # It would take along the user's name and the path of the command.
            tags={"mlflow.user": "private", "mlflow.source.name": "fusain", "mlflow.source.git.commit": ""},
        )

    def describe(self, settings: Mapping[str, Any]) -> None:
        """Parameters cannot be changed: those of a run that is gone on with stay as they were."""
        if self.place.remembered("mlflow") is None:
            self.place.remember("mlflow", self._tracker.tracker.info.run_id)
            self._tracker.store_init_configuration(settings)

    def samples(self, sheet: Path, step: int) -> None:
        self._tracker.log_artifact(str(sheet), artifact_path=f"samples/step-{step:08d}")

    def checkpoint(self, folder: Path, step: int) -> None:
        self._tracker.log_artifacts(str(folder), artifact_path=f"checkpoints/{folder.name}")
