"""A further process of a run: it trains its part of each batch and writes nothing; started by `crew`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

from fusain.errors import DataError
from fusain.runs import assembly, crew, relief
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.training import checkpoint
from fusain.training.events import EventLog
from fusain.training.stopping import StopRequest
from fusain.training.team import PATIENCE, Team

FAILED: Final = 1


class Aside(EventLog):
    """Keeps what is said of its images for the first process; all else that happens the first one sees itself."""

    def __init__(self, team: Team) -> None:
        self._team = team

    def __call__(self, kind: str, **facts: Any) -> None:
        if kind == "warning" and "-DATA-" in facts["code"]:
            self._team.aside.append(facts)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def follow(team: Team) -> None:
    """The run as the first process has prepared it, from its beginning or its checkpoint to its end."""
    job = json.loads(team.store.get(crew.BEGIN))
    settings, folder = RunSettings.model_validate(job["settings"]), RunFolder(Path(job["folder"]))
    log = Aside(team)
    dataset = assembly.prepare_data(settings, folder=folder, report=log)
    if dataset.id != job["data"]:
        number = team.rank + 1
        raise DataError("E-RUN-011", where=str(dataset.path), number=number, found=dataset.id, wanted=job["data"])
    team.store.set(crew.READY.format(rank=team.rank), "yes")
    trainer = assembly.build_trainer(settings, folder, dataset, log, team)
    if job["checkpoint"]:
        trainer.restore(checkpoint.read(folder.checkpoints / job["checkpoint"]))
    team.aside.clear()  # the first process said the same before the first step
    stopped = None
    if trainer.step < trainer.plan.steps:
        with relief.told(settings, lambda: f"step {trainer.step + 1}", is_resumable=True):
            stopped = trainer.run(StopRequest(None))
    if stopped is None:
        with assembly.finished(trainer):  # its part of the final weights, which the first process saves
            pass
    team.store.get(crew.DONE)  # what it sent last must have arrived


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the first process alone
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    rank, count, port = map(int, sys.argv[1:])
    store = TCPStore(crew.HOST, port, is_master=False, timeout=PATIENCE)
    try:
        follow(Team(rank, count, store))
    except BaseException as fault:  # an edge: whatever it is, the first process tells it
        crew.tell(store, fault)
        os._exit(FAILED)
    os._exit(0)  # at once: connections and data workers have nothing left to do


def _end_with_the_first() -> None:
    sys.stdin.read()
    os._exit(FAILED)


if __name__ == "__main__":
    main()
