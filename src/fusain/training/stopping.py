"""Turns Ctrl-C, SIGTERM and a stop file into one question that the loop asks between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Literal

Reason = Literal["interrupted", "terminated", "asked"]


class Stopped(Exception):
    """A stop before the first step, where there is nothing to save; what was done so far is kept already."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class StopRequest:
    """Whether and why the run should end at the next step boundary."""

    def __init__(self, stop_file: Path | None) -> None:
        self._stop_file = stop_file
        self._signal: Reason | None = None
        if stop_file is not None:
            stop_file.unlink(missing_ok=True)

    @property
    def reason(self) -> Reason | None:
        if self._signal is None and self._stop_file is not None and self._stop_file.exists():
            return "asked"
        return self._signal

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within, signals only set the reason; a second one has its old effect at once. Afterwards all is as before.

        One that whoever started us wants ignored, as Ctrl-C is for jobs in the background, stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        previous = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = "interrupted" if number == signal.SIGINT else "terminated"
            for known, handler in previous.items():
                signal.signal(known, handler)

        for number in previous:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
