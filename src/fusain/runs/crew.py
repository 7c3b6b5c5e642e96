"""The further processes of a run: started by the first and ended with it, and their faults told as its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fusain import errors
from fusain.data.dataset import Dataset
from fusain.errors import EnvironmentFault, FusainError
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.training import engine as engines
from fusain.training.checkpoint import Checkpoint
from fusain.training.team import PATIENCE, Team

HOST: Final = "127.0.0.1"
LOOK_SECONDS: Final = 0.05
GRACE_SECONDS: Final = 5.0
"""So long the first process waits to hear why the connection to another broke, and for the others to end."""
BEGIN, FAULT, READY, DONE = "begin", "fault", "ready/{rank}", "done"


@dataclass(frozen=True)
class Crew:
    """The first process's hold on the others; there may be none."""

    team: Team = field(default_factory=Team)
    others: Sequence[subprocess.Popen[str]] = ()

    def begin(self, settings: RunSettings, folder: RunFolder, dataset: Dataset, saved: Checkpoint | None) -> None:
        """Have the others prepare the same run, once there is nothing left for them to make; wait until they have."""
        if not self.others:
            return
        data = settings.data.model_copy(update={"revision": dataset.settings.revision})
        job = {
            "settings": settings.model_copy(update={"data": data}).model_dump(mode="json"),
            "folder": str(folder.path.absolute()),
            "data": dataset.id,
            "checkpoint": saved.folder.name if saved else None,
        }
        self.team.store.set(BEGIN, json.dumps(job))
        while not self.team.store.check([READY.format(rank=rank) for rank in range(1, self.team.size)]):
            fault = self._fault()
            if fault is not None:
                raise fault
            time.sleep(LOOK_SECONDS)

    @contextlib.contextmanager
    def faults_told(self) -> Iterator[None]:
        """Within, a connection that broke because another process failed is told as that process's fault."""
        try:
            yield
        except FusainError:
            raise
        except Exception as broken:
            until = time.monotonic() + (GRACE_SECONDS if self.others else 0)
            while time.monotonic() < until:
                fault = self._fault()
                if fault is not None:
                    raise fault from broken
                time.sleep(LOOK_SECONDS)
            raise

    def _fault(self) -> Exception | None:
        """Why one of the others ended too early."""
        ended = [(rank, code) for rank, one in enumerate(self.others, 1) if (code := one.poll())]
        if self.team.store.check([FAULT]):
            return _read(json.loads(self.team.store.get(FAULT)))
        if not ended:
            return None
        rank, code = ended[0]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return EnvironmentFault("E-RUN-010", where="engine.processes", number=rank + 1, count=self.team.size, how=how)

    def dismiss(self, *, at_once: bool) -> None:
        """See the others end; what does not end by itself is ended."""
        self.team.store.set(DONE, "yes")
        for one in self.others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(0 if at_once else GRACE_SECONDS)
            one.kill()
            one.wait()
            if one.stdin:
                one.stdin.close()


@contextlib.contextmanager
def started(count: int) -> Iterator[Crew]:
    """So many processes, this one included; afterwards there is only this one again."""
    if count == 1:
        yield Crew()
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    crew = Crew(Team(0, count, store), [_start(rank, count, store.port) for rank in range(1, count)])
    is_whole = False
    try:
        with crew.faults_told():
            yield crew
        is_whole = True
    finally:
        crew.dismiss(at_once=not is_whole)
        engines.stop()


def _start(rank: int, count: int, port: int) -> subprocess.Popen[str]:
    """Its standard input stays open as long as this process lives: its end is how the other one knows."""
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    words = [sys.executable, "-m", "fusain.runs.follower", str(rank), str(count), str(port)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True)


def tell(store: Any, fault: BaseException) -> None:
    """Leave a fault for the first process; only the first one counts, for the others follow from it."""
    told = {"trace": "".join(traceback.format_exception(fault))}
    if isinstance(fault, FusainError):
        told |= {"kind": type(fault).__name__, "code": fault.code, "where": fault.where}
        told |= {"facts": json.dumps(fault.facts, default=str)}
    with contextlib.suppress(Exception):  # nobody is there to be told
        store.compare_set(FAULT, "", json.dumps(told))


def _read(told: dict[str, str]) -> Exception:
    if "code" not in told:
        return RuntimeError(f"another process of the run failed:\n{told['trace']}")
    kind: type[FusainError] = getattr(errors, told["kind"])
    return kind(told["code"], where=told["where"], **json.loads(told["facts"]))
