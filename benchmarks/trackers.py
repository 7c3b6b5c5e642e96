"""What a run loses to a tracker that never answers, that is slow, or that works: at most 1 % of its training time.

Short runs of one network, each with one tracker, which hears only every other stretch of steps: those that it hears and
those that it does not stand beside each other in time, on the same machine. A step is timed from the moment at which the
one before it was told, so that whatever the listeners cost is in it; how long the training's own thread is with the
tracker stands beside it. What comes once, however long the run is, is told apart: the seconds by which the first steps
were slower, while the tracker opened, and what its end waited for.
With --small a few steps of a tiny network and little patience, as a test.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.loop import CASES as NETWORKS
from benchmarks.worlds import drawn_world, make_trainer, resolved
from fusain.runs.settings import RunSettings
from fusain.training.events import Event
from fusain.training.relay import PATIENCE, Relay, Unresponsive
from fusain.training.stopping import StopRequest
from fusain.training.tracker import Place, Tracker
from fusain.training.trackers.tensorboard import TensorBoard
from fusain.training.trackers.wandb import WeightsAndBiases

SLOW_SECONDS = 0.2
ROUNDS = 4
HEAD = "| network | tracker | calls | a step without | its own thread | lost | between | first steps | end |"


@dataclass(frozen=True)
class Size:
    """A run: the first steps, and pairs of stretches after them; fewer where a tracker is dropped before."""

    first: int
    stretch: int
    pairs: int

    @property
    def steps(self) -> int:
        return self.first + 2 * self.stretch * self.pairs


SIZES = {"demo (batch 64)": Size(20, 6, 20), "small (bare step below 20 ms)": Size(200, 30, 40)}
SMALL_SIZES = {"small (bare step below 20 ms)": Size(3, 2, 3)}
SMALL_PATIENCE = 12.0


class Unhelpful(Tracker):
    """A place that takes so many seconds for a row, or never comes back from the first."""

    kind: ClassVar[str] = "unhelpful"
    name: ClassVar[str] = "Unhelpful"
    package: ClassVar[str] = "json"

    def __init__(self, place: Place, seconds: float | None) -> None:
        super().__init__(place)
        self.let_go = threading.Event()
        self.calls = 0
        self._seconds = seconds

    def open(self) -> Any:
        return self

    def start(self) -> None: ...

    def describe(self, settings: Mapping[str, Any]) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        if not self.let_go.is_set():
            self.calls += 1
        self.let_go.wait(self._seconds)

    def samples(self, sheet: Path, step: int) -> None: ...

    def close(self) -> None: ...


TRACKERS: dict[str, Callable[[Place], Tracker] | None] = {
    "none": None,
    "never answers": lambda place: Unhelpful(place, None),
    f"{SLOW_SECONDS:g} s for a row": lambda place: Unhelpful(place, SLOW_SECONDS),
    "TensorBoard": TensorBoard,
}
"""Without one, nothing is lost: what that row says is what the measurement cannot tell from nothing."""
if importlib.util.find_spec("wandb"):
    TRACKERS["W&B, offline"] = lambda place: WeightsAndBiases(replace(place, asked="offline"))


@dataclass
class Stretches:
    """The first to hear of an event: times each step, and hands on those of every other stretch."""

    size: Size
    relay: Relay | None
    first: list[float] = field(default_factory=list)
    heard: list[list[float]] = field(default_factory=list)
    unheard: list[list[float]] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    _before: float = 0.0
    _count: int = 0

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if event["kind"] == "step":
            self._take(now - self._before)
        self._before = now
        # What a step cost is known at the next: it belongs to the stretch in which the step before it was told.
        if self.relay is not None and (event["kind"] != "step" or self._is_heard(self._count)):
            try:
                self.relay(event)
            finally:
                self.calls.append(time.perf_counter() - now)

    def lost(self) -> list[float]:
        """What each pair that was ended lost, as a part of a step."""
        pairs = zip(self.heard, self.unheard, strict=False)
        whole = [pair for pair in pairs if all(len(one) == self.size.stretch for one in pair)]
        return [sum(heard) / sum(unheard) - 1 for heard, unheard in whole]

    def _is_heard(self, count: int) -> bool:
        """With and without, without and with: a machine that slows down meets both alike."""
        pair, within = divmod(max(count - self.size.first, 0), 2 * self.size.stretch)
        return count < self.size.first or (within < self.size.stretch) == (pair % 2 == 0)

    def _take(self, seconds: float) -> None:
        after = self._count - self.size.first
        if after < 0:
            self.first.append(seconds)
        else:
            kept = self.heard if self._is_heard(self._count) else self.unheard
            if after % (2 * self.size.stretch) in (0, self.size.stretch):
                kept.append([])
            kept[-1].append(seconds)
        self._count += 1


@dataclass(frozen=True)
class Told:
    """What one run says of its tracker."""

    step: float
    """A step that it did not hear of."""
    lost: list[float]
    """Of each pair of stretches."""
    calls: int | None
    thread: float
    """Of the training's own thread, for a step."""
    first: float
    end: float


def run(settings: RunSettings, name: str, size: Size, make: Callable[[Place], Tracker] | None, patience: float) -> Told:
    """One short training, with a tracker or without."""
    folder = Path(settings.runs_folder) / name
    tracker = make(Place(folder, name)) if make else None
    relay = Relay(tracker, dict, patience=patience) if tracker else None
    stretches = Stretches(size, relay)
    make_trainer(settings, name, stretches).run(StopRequest(folder / "stop"))
    calls, ended = getattr(tracker, "calls", None), time.perf_counter()
    if relay:
        with contextlib.suppress(Unresponsive):
            list(relay.finish())
    end = time.perf_counter() - ended
    if isinstance(tracker, Unhelpful):
        tracker.let_go.set()
    step = statistics.median(seconds for stretch in stretches.unheard for seconds in stretch)
    thread = statistics.median(stretches.calls or [0.0])
    return Told(step, stretches.lost(), calls, thread, sum(stretches.first) - step * len(stretches.first), end)


def between(values: list[float]) -> tuple[float, float]:
    """Where the median lies in 95 of 100 draws from these values."""
    chance = random.Random(0)
    drawn = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(2_000))
    return drawn[50], drawn[-50]


def measure(network: str, size: Size, rounds: int, patience: float) -> Iterator[str]:
    recipe, changes = NETWORKS[network]
    with drawn_world() as folder:
        settings = resolved(recipe, folder, train__steps=str(size.steps), **changes)
        for place, (title, make) in enumerate(TRACKERS.items()):
            told = [run(settings, f"run-{place}-{number}", size, make, patience) for number in range(rounds)]
            lost = [pair for one in told for pair in one.lost]
            calls = "" if told[0].calls is None else f"{max(one.calls or 0 for one in told)}"
            columns = ("step", "thread", "first", "end")
            step, thread, first, end = (statistics.median(getattr(one, name) for one in told) for name in columns)
            low, high = between(lost)
            yield (
                f"| {network} | {title} | {calls} | {step * 1000:.2f} ms | {thread * 1000:.3f} ms "
                f"| {statistics.median(lost):+.2%} | {low:+.2%} to {high:+.2%} | {first:+.1f} s | {end:.1f} s |"
            )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trackers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a few steps of a tiny network, to see that it works")
    given = parser.parse_args(arguments)
    print(HEAD + "\n" + "|---" * HEAD.count(" |") + "|", flush=True)
    rounds, patience = (1, SMALL_PATIENCE) if given.small else (ROUNDS, PATIENCE)
    for network, size in (SMALL_SIZES if given.small else SIZES).items():
        for row in measure(network, size, rounds, patience):
            print(row, flush=True)


if __name__ == "__main__":
    main()
