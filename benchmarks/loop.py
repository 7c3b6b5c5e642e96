"""What the loop costs above the bare step of the same network: data, noise, logging, clipping and average included.

Aims: at least 95 % of the bare step's throughput, and at most 3 ms a step on a network whose bare step takes at most
20 ms. Both are measured in turns in one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.worlds import BareStep, drawn_world, made_up, make_trainer, resolved
from fusain.runs import assembly
from fusain.training.events import Event
from fusain.training.stopping import StopRequest

WARM = 4
CASES = {
    "demo (batch 64)": ("demo", {}),
    "class-conditional (batch 100)": ("class-conditional", {}),
    "small (bare step below 20 ms)": (
        "unconditional",
        {
            "family__channels": "[16]",
            "family__size": "8",
            "family__layers_per_block": "1",
            "train__batch_size": "8",
            "engine__threads": "1",
            "engine__precision": "fp32",
        },
    ),
}


def measure(title: str, recipe: str, changes: dict[str, str], rounds: int) -> None:
    with drawn_world() as folder:
        settings = resolved(recipe, folder, train__steps=str(rounds + WARM), **changes)
        between = InTurns()
        trainer = make_trainer(settings, "loop", between)
        family = assembly.build_learner(settings, trainer.parts.family.facts.classes).family
        ready = made_up(family, settings.train.batch_size)
        between.floor = BareStep(family, ready, precision=settings.engine.precision)
        trainer.run(StopRequest(folder / "stop"))
    bare, loop = statistics.median(between.bare[WARM:]), statistics.median(between.loop[WARM:])
    above = (loop - bare) * 1000
    times = f"bare {bare * 1000:8.2f} ms  loop {loop * 1000:8.2f} ms  above {above:6.2f} ms"
    print(f"{title:<32} {times}  share {bare / loop:.3f}", flush=True)


class InTurns:
    """Hears of each step of the real loop, and takes one bare step in between: both meet the same machine.

    Before each look at the clock it waits for what the device still has to do.
    """

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.floor: Callable[[], None] = lambda: None
        self._wait = wait
        self.bare: list[float] = []
        self.loop: list[float] = []
        self._resumed = 0.0

    def __call__(self, event: Event) -> None:
        self._wait()
        now = time.perf_counter()
        if event["kind"] == "step":
            self.loop.append(now - self._resumed)
            self.floor()
            self._wait()
            self.bare.append(time.perf_counter() - now)
        self._resumed = time.perf_counter()


if __name__ == "__main__":
    for title, (recipe, changes) in CASES.items():
        measure(title, recipe, changes, rounds=100 if "small" in title else 12)
