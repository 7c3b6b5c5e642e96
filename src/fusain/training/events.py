"""The one stream of what happens in a run: terminal, page, trackers and reports all read it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fusain.errors import StorageError
from fusain.messages import render
from fusain.settings.notice import Notice

Event = dict[str, Any]
Listener = Callable[[Event], None]

FLUSH_SECONDS = 1.0


class EventLog:
    """Appends events to `events.jsonl` and hands each to the listeners."""

    def __init__(self, path: Path, listeners: tuple[Listener, ...] = ()) -> None:
        self.path = path
        self._listeners = list(listeners)
        self._waiting: list[str] = []
        self._flushed = 0.0
        self._is_failing = False

    def __call__(self, kind: str, **facts: Any) -> None:
        event = {"kind": kind, "time": round(time.time(), 3), **facts}
        self._waiting.append(json.dumps(_in_json(event), ensure_ascii=False, default=str))
        for listener in list(self._listeners):
            self._guarded(listener, partial(listener, event))
        if kind != "step" or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def warn(self, code: str, *, step: int | None = None, **facts: Any) -> None:
        """Something that the user should know and that stops nothing; the words are the catalogue's."""
        at = {} if step is None else {"step": step}
        self("warning", code=code, text=render(code, facts).what, **at)

    def flush(self) -> None:
        """Write what waits. A disk that is full costs no step: rows wait and are written when there is room."""
        self._flushed = time.monotonic()
        try:
            append(self.path, "".join(f"{row}\n" for row in self._waiting))
            self._waiting.clear()
            self._is_failing = False
        except OSError as fault:
            if not self._is_failing:
                self._is_failing = True
                self.warn("W-STORE-002", fault=fault.strerror)

    def close(self) -> None:
        """The end: all listeners that have something open are told, then each is asked what did not arrive."""
        for listener in list(self._listeners):
            end = getattr(listener, "end", None)
            if end is not None:
                self._guarded(listener, end)
        for listener in list(self._listeners):
            finish = getattr(listener, "finish", None)
            if finish is not None:
                self._guarded(listener, partial(self._finish, finish))
        self.flush()

    def _finish(self, finish: Callable[[], Iterable[Notice]]) -> None:
        for notice in list(finish()):
            self("warning", code=notice.code, text=str(notice))

    def _guarded(self, listener: Listener, action: Callable[[], None]) -> None:
        """A listener that fails is dropped with one warning: nothing that only watches may stop a run."""
        try:
            action()
        except Exception as fault:
            self._listeners.remove(listener)
            name = getattr(listener, "name", type(listener).__name__)
            self.warn("W-TRACK-001", name=name, fault=fault)


def append(path: Path, rows: str) -> None:
    """All or nothing: half a row would make the next one unreadable, and rows that wait would come twice."""
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        data = memoryview(rows.encode())
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def read(path: Path) -> Iterator[Event]:
    """All events of a file; a line that was torn by a kill is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def current(path: Path) -> Iterator[Event]:
    """The events whose steps still count."""
    return (event for event in read(path) if not event.get("superseded"))


def _in_json(event: Event) -> Event:
    """Infinity and NaN, as the norm of a step that fp16 skips, are no numbers of JSON: null stands for them."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in event.items()
    }


def supersede(path: Path, *, after_step: int) -> None:
    """Mark the rows of steps that a resume will do again; the file is replaced whole."""
    rows = list(read(path))
    for row in rows:
        if row.get("step", 0) > after_step:
            row["superseded"] = True
    replacement = path.with_suffix(".jsonl.tmp")
    try:
        replacement.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(replacement, path)
    except OSError as fault:
        replacement.unlink(missing_ok=True)
        raise StorageError("E-STORE-004", where=str(path), fault=fault.strerror or fault) from fault
