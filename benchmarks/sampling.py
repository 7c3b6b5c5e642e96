"""Ten DDIM steps against five hundred DDPM steps of one trained run: time in turns, class accuracy over paired seeds.

    python -m benchmarks.sampling RUN [--images 1000]

RUN is a run trained on sprites, such as the one that `fusain demo` leaves. Without it the demo's settings are trained
first.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.worlds import drawn_world
from fusain.data.cores import usable_cores
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.runs import actions
from fusain.worlds.sprite_reader import classify, train_reader
from fusain.worlds.sprites import CLASSES

CHUNK = 50
FAST = {"sampler": "ddim", "steps": 10}
SLOW = {"sampler": "ddpm", "steps": 500}


def main(run: Path, images: int) -> None:
    torch.set_num_threads(usable_cores())
    opened = actions.open_run(run)
    guidance = opened.settings.samples.guidance
    reader = train_reader()
    wanted = [Wanted(seed, {CLASSES[seed % len(CLASSES)]: 1.0}) for seed in range(images)]
    chunks = [wanted[start : start + CHUNK] for start in range(0, images, CHUNK)]
    taken: dict[str, list[float]] = {"fast": [], "slow": []}
    right: dict[str, int] = {"fast": 0, "slow": 0}
    for chunk in chunks:
        for name, settings in (("fast", FAST), ("slow", SLOW)):
            started = time.perf_counter()
            sampler = SamplerSettings(**settings, guidance=guidance)
            drawn = np.stack([one.pixels for one in generate(opened.learner.family, chunk, sampler, chunk=CHUNK)])
            taken[name].append(time.perf_counter() - started)
            labels = [CLASSES.index(next(iter(one.label or {}))) for one in chunk]
            right[name] += int((classify(reader, drawn).argmax(1) == labels).sum())
    fast, slow = statistics.median(taken["fast"]), statistics.median(taken["slow"])
    print(f"{images} paired seeds at guidance {guidance:g}")
    for name, settings in (("fast", FAST), ("slow", SLOW)):
        each = statistics.median(taken[name]) / CHUNK * 1000
        print(f"{settings}: {each:.1f} ms an image, accuracy {right[name] / images:.3f}")
    print(f"faster {slow / fast:.1f} times, accuracy differs by {(right['fast'] - right['slow']) / images:+.3f}")


if __name__ == "__main__":
    count = int(sys.argv[sys.argv.index("--images") + 1]) if "--images" in sys.argv else 1000
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        main(Path(sys.argv[1]), count)
    else:
        with tempfile.TemporaryDirectory() as folder, drawn_world(10_000) as world:
            overrides = [("data.path", str(world / "sprites")), ("runs_folder", folder)]
            main(actions.train("demo", name="sampling", overrides=overrides).folder, count)
