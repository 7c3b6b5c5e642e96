"""How long drawing takes: 10,000 faces of 64 px with their captions, allowed 15 s on two cores.

python -m benchmarks.drawing [--count 10000]
"""

from __future__ import annotations

import argparse
import time

from fusain.data import cores
from fusain.worlds.caricatures import world

ALLOWED = 15.0
HEAD = "| faces | cores | seconds | an image | allowed for 10,000 |"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing")
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args(words).count
    started = time.perf_counter()
    world(count)
    seconds = time.perf_counter() - started
    print(f"{HEAD}\n|---|---|---|---|---|")
    print(f"| {count:,} | {cores.usable_cores()} | {seconds:.1f} | {1000 * seconds / count:.2f} ms | {ALLOWED:.0f} s |")


if __name__ == "__main__":
    main()
