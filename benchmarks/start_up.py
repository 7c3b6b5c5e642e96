"""`fusain --help` above bare Python, in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15


def main() -> None:
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "help": [str(Path(sys.executable).parent / "fusain"), "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - started)
    python, shown = (statistics.median(taken[name]) for name in commands)
    print(f"fusain --help {shown * 1000:.0f} ms, python {python * 1000:.0f} ms, above {(shown - python) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
