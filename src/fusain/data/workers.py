"""Processes that make batches ahead: one that dies, fails or hangs is replaced, and the order stays as it was."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils.data import DataLoader

from fusain.errors import DataError
from fusain.settings.notice import Notice

if TYPE_CHECKING:
    from fusain.data.loader import Made, Making

ATTEMPTS: Final = 3
"""So often one batch is tried before the run stops."""
PATIENCE_SECONDS: Final = 1.0
"""So often it is looked whether a worker is still alive."""
AHEAD: Final = 2
"""Batches that each worker makes in advance."""
WORKER_FAULTS: Final = (RuntimeError, MemoryError, OSError, EOFError)
"""What reaches this process from a worker that was killed, ran out of memory, failed or hung."""
NO_ROOM: Final = (errno.ENOSPC, errno.ENOMEM, errno.EACCES, errno.ENOSYS, errno.EMFILE, errno.EAGAIN)


@dataclass
class Workers:
    """Made batches in order, from batch 0 on."""

    making: Making
    count: int
    timeout: float
    tell: Callable[[str, str], None]
    names: Callable[[int], list[str]]

    def __iter__(self) -> Iterator[Made]:
        number = failures = 0
        running: Any = None
        try:
            while True:
                try:
                    if running is None:
                        running = self._started(number)
                    if running is None:  # no room to share memory in
                        yield self.making[number]
                        number += 1
                        continue
                    made = self._next(running)
                except WORKER_FAULTS as fault:
                    failures += 1
                    _stopped(running)
                    running = None
                    self._refuse_if_hopeless(number, failures, fault)
                    continue
                yield made
                number, failures = number + 1, 0
        finally:
            _stopped(running)

    def _started(self, number: int) -> Any:
        """Workers that begin at that batch; None where the system has no room for them, for good then."""
        if self.count == 0:
            return None
        try:
            return self._loader(number)
        except OSError as fault:
            if fault.errno not in NO_ROOM:
                raise
            notice = Notice("W-DATA-008", problem=fault.strerror or fault)
            self.tell(notice.code, f"{notice.message.what} {notice.message.why}")
            self.count = 0
            return None

    def _loader(self, number: int) -> Any:
        _make_sure_of_room(self.count)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more workers than cores is the user's choice
            loader: DataLoader[Made] = DataLoader(
                self.making,  # type: ignore[arg-type]  # a map from number to batch without an end
                batch_size=None,
                sampler=itertools.count(number),
                num_workers=self.count,
                prefetch_factor=AHEAD,
                timeout=PATIENCE_SECONDS,
                worker_init_fn=_be_quiet,
                generator=torch.Generator(),  # else torch's own random state would move on
            )
            running = _without_its_signals(loader)
        # Workers look at torch's event to hear that they shall end. One that is killed while it looks holds its lock
        # for ever, and this process would wait for that. They are ended by a kill here, which needs no shared event.
        running._workers_done_event = multiprocessing.Event()
        return running

    def _next(self, running: Any) -> Made:
        """The next batch; a death is seen within a second, a silence counts as hung after the timeout."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                made: Made = next(running)
                return made
            except RuntimeError as fault:
                if "timed out" not in str(fault):
                    raise
                if time.monotonic() > deadline:
                    raise RuntimeError(f"a worker gave nothing for {self.timeout:g} s") from None

    def _refuse_if_hopeless(self, number: int, failures: int, fault: BaseException) -> None:
        problem = str(fault).strip().splitlines()[-1] if str(fault).strip() else type(fault).__name__
        names = ", ".join(self.names(number)[:5])
        if failures >= ATTEMPTS:
            raise DataError("E-DATA-071", where="data.workers", batch=number, names=names, problem=problem) from fault
        notice = Notice("W-DATA-009", problem=problem, failures=failures, attempts=ATTEMPTS)
        self.tell(notice.code, notice.message.what)


def _make_sure_of_room(count: int) -> None:
    """An OSError where so many workers could not be talked to: torch would fail halfway and leave a mess."""
    locks = [multiprocessing.Lock() for _ in range(4 * (count + 2))]
    del locks


def _without_its_signals(loader: DataLoader[Any]) -> Any:
    """Running workers. Torch would raise for a dead worker anywhere in this process, in the middle of a step even."""
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before)


def _stopped(running: Any) -> None:
    """End all workers at once: they only read, and one that hangs would not end by itself."""
    if running is None:
        return
    for worker in running._workers:
        worker.kill()
    running._shutdown_workers()


def _be_quiet(_: int) -> None:
    """Ctrl-C is answered by the parent alone, and a request to stop ends a worker at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
