"""Shows events while they happen: a moving bar on a terminal, elsewhere a line every ten seconds, quiet nothing."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import click

from fusain.cli import output
from fusain.messages.quantities import precise, span
from fusain.training.course import ENDS, REST, Spent

Event = Mapping[str, Any]
Report = Callable[[Event], None]

WINDOW: Final = 50
"""Steps whose times the estimate is made from."""
ENOUGH: Final = 20
"""Steps before there is an estimate."""
LINE_SECONDS: Final = 10.0
SMOOTHING: Final = 0.95


@dataclass
class Pace:
    """What the steps so far say of loss, speed and the time that is left; only this session's steps count."""

    steps: int = 0
    step: int = 0
    loss: float | None = None
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    images_per_step: int = 0
    spent: Spent = field(default_factory=Spent)
    to_come: Mapping[str, int] = field(default_factory=dict)
    """How often each part of the course was still to come when this session began."""
    foreseen: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each part by a plan, which count until it was done once."""

    def take(self, event: Event) -> None:
        self.steps = int(event.get("steps", self.steps))
        self.images_per_step = int(event.get("images_per_step", self.images_per_step))
        if event["kind"] in ("start", "resumed"):
            self.step = int(event.get("step", 0))
            self.loss, self.spent, self.to_come = None, Spent(), event.get("to_come", {})  # one command may train twice
            self.seconds.clear()
        elif event["kind"] == "step":
            self._step(event)
        elif event["kind"] == "foreseen":
            self.foreseen = event["seconds_each"]
        elif event["kind"] in ENDS:
            self.foreseen = {}
        self.spent.take(event)

    def _step(self, event: Event) -> None:
        self.step = int(event["step"])
        if "seconds" in event:
            self.seconds.append(float(event["seconds"]))
        loss = event.get("loss")
        if loss is not None:
            self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss

    @property
    def images_per_second(self) -> float | None:
        if not self.seconds or not self.images_per_step:
            return None
        return self.images_per_step / max(statistics.median(self.seconds), 1e-9)

    @property
    def remaining(self) -> tuple[float, float] | None:
        """Seconds left, from and to: of the last steps the middle half, and each other part as often as it is due."""
        if len(self.seconds) < min(ENOUGH, self.steps):
            return None
        between = self.spent.seconds.get(REST, 0.0) / max(1, self.spent.times["step"])
        left, beside = max(0, self.steps - self.step), self._beside
        low = high = self.seconds[-1]
        if len(self.seconds) > 1:
            low, _, high = statistics.quantiles(self.seconds, method="inclusive")
        return left * (low + between) + beside, left * (high + between) + beside

    @property
    def _beside(self) -> float:
        """Seconds left of all parts but steps: each as it was so far, else as a plan foresaw it."""

        def each(part: str) -> float:
            so_far = self.spent.each(part)
            return self.foreseen.get(part, 0.0) if so_far is None else so_far

        left = {part: max(0, times - self.spent.times[part]) for part, times in self.to_come.items() if part != "step"}
        return sum(times * each(part) for part, times in left.items())

    def describe(self, now: datetime | None = None) -> str:
        """Loss, speed and time left in one line."""
        parts = [f"loss {self.loss:.4f}"] if self.loss is not None else []
        speed = self.images_per_second
        parts += [f"{speed:,.0f} images/s"] if speed is not None else []
        remaining = self.remaining
        if remaining is None:
            return ", ".join([*parts, "estimating…"])
        first, last = (f"{(now or datetime.now()) + timedelta(seconds=end):%H:%M}" for end in remaining)
        when = f"at {first}" if first == last else f"between {first} and {last}"
        return ", ".join([*parts, f"{span(*remaining, precise)} left, done {when}"])


def say(event: Event) -> str:
    """The words for an event that is worth a line of its own; '' for the others."""
    kind = event["kind"]
    if kind == "warning":
        return f"Warning: {event.get('text', event.get('code', ''))}"
    if kind == "resumed":
        return f"Going on from step {event.get('step', 0):,}."
    if kind == "held_out":
        return f"Step {event.get('step', 0):,}: held-out loss {event['loss']:.4f}"
    if kind in ("note", "stage"):
        return str(event.get("text", ""))
    if kind == "samples" and event.get("path"):
        return f"Step {event.get('step', 0):,}: drew {event['path']}"
    return ""


def at_work(event: Event) -> str:
    """What happens before the first step, and how far it is; '' for other events."""
    words = {
        "indexing": "Looking at images",
        "class_images": "Drawing class images",
        "encoding": f"Encoding {event.get('part', '')}",
    }.get(event["kind"])
    return f"{words}: {event['done']:,} of {event['total']:,}" if words else ""


@contextmanager
def progress(unit: str = "steps") -> Iterator[Report]:
    """A function to hand events to, and what it shows while the block lasts."""
    if output.wanted() == "quiet":
        yield lambda event: None
    elif output.is_lively():
        with _bar(unit) as report:
            yield report
    else:
        yield lines(unit)


def lines(unit: str, clock: Callable[[], float] = time.monotonic) -> Report:
    """Plain lines, for logs: words as they come, the pace about every ten seconds and at the end."""
    pace = Pace()
    last = clock()

    def report(event: Event) -> None:
        nonlocal last
        pace.take(event)
        words = say(event)
        if words:
            click.echo(words, err=True)
        before, is_step = at_work(event), event["kind"] == "step"
        if not (before or is_step):
            return
        now = clock()
        if now - last >= LINE_SECONDS or (is_step and pace.step == pace.steps):
            last = now
            click.echo(before or f"{pace.step:,} of {pace.steps:,} {unit}: {pace.describe()}", err=True)

    return report


@contextmanager
def _bar(unit: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    pace = Pace()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)

        def report(event: Event) -> None:
            pace.take(event)
            words = say(event)
            if words:
                console.print(words, markup=False)
            before = at_work(event)
            text = before or (pace.describe() if pace.steps else "")
            done, total = (event["done"], event["total"]) if before else (pace.step, pace.steps or None)
            bar.update(task, completed=done, total=total, description=text, visible=bool(text))

        yield report
