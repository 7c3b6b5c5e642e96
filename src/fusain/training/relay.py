"""Hands the events of a run to a tracker in a thread of its own: training never waits for one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fusain.settings.notice import Notice
from fusain.training.events import Event
from fusain.training.tracker import Tracker

ROOM = 10_000
"""Events that may wait; what comes when there is no room is left out, so that memory never grows."""
PATIENCE = 60.0
"""Seconds that one call of a tracker may take, and then again those that the end may take."""
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
        self._busy_since: float | None = None
        self._fault: Exception | None = None
        self._is_over = False
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
        if event["kind"] in HEARD:
            self._put(event)

    def finish(self) -> Iterator[Notice]:
        """Wait for what is on its way, for a while; then say what did not arrive."""
        if self._thread is None:
            return
        until = time.monotonic() + self._patience
        while not self._put(None) and time.monotonic() < until:
            time.sleep(0.05)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._fault is None and self._thread.is_alive():
            self._is_over = True
            raise Unresponsive(f"not done {self._patience:g} s after the end")
        self._check()
        missing = self._left_out + self._tracker.left_out
        if missing:
            yield Notice("W-TRACK-002", name=self.name, count=f"{missing:,}")

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
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._patience:
            self._is_over = True
            raise Unresponsive(f"no answer for {self._patience:g} s")

    def _run(self) -> None:
        try:
            while (event := self._waiting.get()) is not None and not self._is_over:
                self._busy_since = time.monotonic()
                self._tracker.hear(event, self._settings)
                self._busy_since = None
            self._tracker.finish()
        except Exception as fault:  # an edge: trackers raise what they like
            self._fault = fault
