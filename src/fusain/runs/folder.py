"""One run's folder: every path in it is a property here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusain.errors import StorageError, UsageError
from fusain.settings import user_file

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TRASH = ".trash"


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def named(cls, runs_folder: Path, name: str) -> RunFolder:
        """The folder for a new or an existing run of that name."""
        if not NAME.fullmatch(name):
            raise UsageError("E-RUN-001", where="--name", name=name)
        return cls(runs_folder / name)

    @classmethod
    def existing(cls, run: str | Path, runs_folder: Path | str | None = None) -> RunFolder:
        """A run by its folder, or by its name in the folder of the runs, which is the user's if none is named."""
        runs_folder = Path(runs_folder) if runs_folder is not None else user_file.runs_folder()
        for path in (Path(run), runs_folder / run):
            if (path / "settings.json").is_file():
                return cls(path)
        known = ", ".join(sorted(path.parent.name for path in runs_folder.glob("*/settings.json"))) or "none"
        raise UsageError(
            "E-RUN-012" if Path(run).is_file() else "E-RUN-002", where=str(runs_folder), run=run, known=known
        )

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def data_lock(self) -> Path:
        return self.path / "data.lock.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def foreseen(self) -> Path:
        """What a plan foresaw; a run that nobody planned has none."""
        return self.path / "foreseen.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def exported(self) -> Path:
        """Weights of checkpoints, each in a folder called by its step."""
        return self.path / "exported"

    @property
    def generated(self) -> Path:
        return self.path / "generated"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def metrics(self) -> Path:
        """What was measured of a run that was judged, and written last."""
        return self.path / "metrics.json"

    @property
    def publish(self) -> Path:
        """The model card and its picture, as they go to the hub."""
        return self.path / "publish"

    @property
    def lock(self) -> Path:
        return self.path / "lock.json"

    @property
    def stop_file(self) -> Path:
        return self.path / "stop"

    def exists(self) -> bool:
        return self.settings.exists()

    def create(self) -> None:
        """Make the folder and make sure that it can be written, before anything costly begins."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            try:
                probe.write_bytes(bytes(4096))  # a full disk and a used-up quota still take an empty file
            finally:
                probe.unlink(missing_ok=True)
        except OSError as fault:
            raise StorageError("E-STORE-004", where=str(self.path), fault=fault.strerror or fault) from fault


def write_json(path: Path, content: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Replace a JSON file whole, so that no reader meets half of it."""
    waiting = path.with_name(f".{path.name}.tmp")
    try:
        waiting.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(waiting, path)
    except OSError as fault:
        waiting.unlink(missing_ok=True)
        raise StorageError("E-STORE-004", where=str(path), fault=fault.strerror or fault) from fault


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the run folder."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise StorageError("E-RUN-003", where=str(path), name=path.name, fault=fault) from fault
    return content
