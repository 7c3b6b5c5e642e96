"""What a run loses to a tracker that never answers, that is slow, or that works: at most 1 % of its training time.

Short runs of one network in turns, without a tracker and with each, in one process. A step is timed from the moment at
which the one before it was told to the listeners, so that whatever these cost is in it. What a run waits for its
tracker at the end is told beside it: it comes once, however long the run is.
With --small a few steps of a tiny network and little patience, as a test.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import threading
import time
from collections.abc import Callable, Mapping
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

WARM = 3
ROUNDS = 10
SLOW_SECONDS = 0.2
SIZES = {"demo (batch 64)": 13, "small (bare step below 20 ms)": 120}
"""Steps of each run."""
SMALL_SIZES = {"small (bare step below 20 ms)": WARM + 3}
NONE = "none"
HEAD = "| network | tracker | calls | a step without | with | lost | the end |"
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
    NONE: None,
    "never answers": lambda place: Unhelpful(place, None),
    f"{SLOW_SECONDS:g} s for a row": lambda place: Unhelpful(place, SLOW_SECONDS),
    "TensorBoard": TensorBoard,
}
if importlib.util.find_spec("wandb"):
    TRACKERS["W&B, offline"] = lambda place: WeightsAndBiases(replace(place, asked="offline"))
TRACKERS["none, once more"] = None
"""As far as it is from the first, two numbers cannot be told apart."""


@dataclass
class Watch:
    """The first to hear of an event: takes the time from one step to the next."""

    seconds: list[float] = field(default_factory=list)
    _before: float = 0.0

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if event["kind"] == "step":
            self.seconds.append(now - self._before)
        self._before = now


@dataclass(frozen=True)
class Told:
    """The median step of one run, how often its tracker was asked, and the seconds that the end waited for it."""

    seconds: float
    calls: int | None
    end: float


def run(settings: RunSettings, name: str, make: Callable[[Place], Tracker] | None, patience: float) -> Told:
    """One short training, with a tracker or without."""
    watch, folder = Watch(), Path(settings.runs_folder) / name
    tracker = make(Place(folder, name)) if make else None
    relay = Relay(tracker, dict, patience=patience) if tracker else None
    trainer = make_trainer(settings, name, watch, *([relay] if relay else []))
    trainer.run(StopRequest(folder / "stop"))
    calls, ended = getattr(tracker, "calls", None), time.perf_counter()
    if relay:
        with contextlib.suppress(Unresponsive):
            list(relay.finish())
    end = time.perf_counter() - ended
    if isinstance(tracker, Unhelpful):
        tracker.let_go.set()
    return Told(statistics.median(watch.seconds[WARM:]), calls, end)


def measure(network: str, steps: int, rounds: int, patience: float = PATIENCE) -> None:
    recipe, changes = NETWORKS[network]
    told: dict[str, list[Told]] = {title: [] for title in TRACKERS}
    with drawn_world() as folder:
        settings = resolved(recipe, folder, train__steps=str(steps), **changes)
        for number in range(rounds):
            in_turn = list(TRACKERS.items())[:: -1 if number % 2 else 1]
            for place, (title, make) in enumerate(in_turn):
                told[title].append(run(settings, f"run-{number}-{place}", make, patience))
    bare = [one.seconds for one in told.pop(NONE)]
    for title, runs in told.items():
        lost = statistics.median(one.seconds / without for one, without in zip(runs, bare, strict=True)) - 1
        calls = "" if runs[0].calls is None else f"{max(one.calls or 0 for one in runs)}"
        times = (f"{statistics.median(values) * 1000:.2f} ms" for values in (bare, [one.seconds for one in runs]))
        end = f"{statistics.median(one.end for one in runs):.1f} s"
        print(f"| {network} | {title} | {calls} | {' | '.join(times)} | {lost:+.2%} | {end} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trackers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a few steps of a tiny network, to see that it works")
    given = parser.parse_args(arguments)
    print(HEAD + "\n" + "|---" * HEAD.count(" |") + "|", flush=True)
    for network, steps in (SMALL_SIZES if given.small else SIZES).items():
        if given.small:
            measure(network, steps, rounds=1, patience=SMALL_PATIENCE)
        else:
            measure(network, steps, ROUNDS)


if __name__ == "__main__":
    main()
