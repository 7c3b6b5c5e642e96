"""Hands the events of a run to a tracker in a thread of its own: training never waits for one."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import fmean
from typing import Any

from fusain.settings.notice import Notice
from fusain.training.events import Event
from fusain.training.tracker import CURVES, Tracker

ROOM = 10_000
"""Events that may wait; what comes when there is no room is left out, so that memory never grows."""
PATIENCE = 60.0
"""Seconds that one call of a tracker may take, and those that all trackers together may take after the end."""
HURRIED = 1 / 6
"""The part of those seconds that a row may take after the end, counted from when its call began. To open and to close a
place, and to hand on a file, may take long even where all is well."""
ROW_SECONDS = 0.5
"""How far apart rows of steps are at least. Python runs one thread at a time, so that each costs the training a
millisecond or two, whoever writes it; of steps that take fourteen that were 7 to 9 %."""
MEANS = ("loss", "norm")
"""What a row says of all steps since the one before it; the rest is of the last step."""
HEARD = ("start", "step", "held_out", "samples", "checkpoint")


class Unresponsive(Exception):
    """A tracker that does not come back from a call."""


class Relay:
    """A listener; what goes wrong in the thread is raised at the next event, and then the log drops the listener."""

    def __init__(
        self, tracker: Tracker, settings: Callable[[], Mapping[str, Any]], *, patience: float | None = None
    ) -> None:
        self.name = tracker.name
        self._tracker = tracker
        self._settings = settings
        self._patience = PATIENCE if patience is None else patience
        self._waiting: queue.Queue[Event | None] = queue.Queue(ROOM)
        self._steps: list[Event] = []
        self._row_at = -math.inf
        self._busy_since: float | None = None
        self._ended: float | None = None
        self._fault: Exception | None = None
        self._is_row = False
        self._is_over = False
        self._knows_the_end = False
        self._left_out = 0
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        if self._thread is None:
            if event["kind"] != "start":  # before it the engine is not there yet
                return
            # A daemon: the process may end though a tracker does not come back.
            self._thread = threading.Thread(target=self._run, name=f"tracker {self.name}", daemon=True)
            self._thread.start()
        self._check()
        if event["kind"] == "step":
            self._steps.append(event)
            if time.monotonic() - self._row_at >= ROW_SECONDS:
                self._put_row()
        elif event["kind"] in HEARD:
            self._put_row()
            self._put(event)

    def end(self) -> None:
        """Nothing more comes. All trackers are told before one is waited for, so that none waits for another."""
        if self._thread is None:
            return
        if self._ended is None:
            self._put_row()
            self._ended = time.monotonic()
        self._knows_the_end = self._knows_the_end or self._put(None)

    def finish(self) -> Iterator[Notice]:
        """Wait for what is on its way, for a while; then say what did not arrive."""
        if self._thread is None:
            return
        self.end()
        while self._thread.is_alive():
            self._check()
            self._thread.join(0.05)
            self.end()  # the queue may have been full
        if self._fault is not None:
            raise self._fault
        missing = self._left_out + self._tracker.left_out
        if missing:
            yield Notice("W-TRACK-002", name=self.name, count=f"{missing:,}")

    def _put_row(self) -> None:
        """What was learnt since the last row, as one."""
        if self._steps:
            means = {name: fmean(step[name] for step in self._steps) for name in MEANS}
            self._put({**self._steps[-1], **means})
            self._steps, self._row_at = [], time.monotonic()

    def _put(self, event: Event | None) -> bool:
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._left_out += event is not None
            return False
        return True

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault
        now, since = time.monotonic(), self._busy_since
        patience = self._patience * (HURRIED if self._ended is not None and self._is_row else 1)
        if since is not None and now - since > patience:
            self._is_over = True
            raise Unresponsive(f"no answer for {patience:g} s")
        if self._ended is not None and now - self._ended > self._patience:
            self._is_over = True
            raise Unresponsive(f"not done {self._patience:g} s after the end")

    def _run(self) -> None:
        try:
            while (event := self._waiting.get()) is not None and not self._is_over:
                self._is_row, self._busy_since = event["kind"] in CURVES, time.monotonic()
                self._tracker.hear(event, self._settings)
                self._busy_since = None
            self._is_row, self._busy_since = False, time.monotonic()
            self._tracker.finish()
            self._busy_since = None
        except Exception as fault:  # an edge: trackers raise what they like
            self._fault = fault
