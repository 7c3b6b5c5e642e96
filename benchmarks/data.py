"""Measures what the data part promises: indexing, the cache, arrays, memory, and the cost of one batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, SIDE, CLASSES = 100_000, 16, 5
RAW_BYTES = IMAGES * SIDE * SIDE * 3

PREPARE = """
import json, multiprocessing, sys, threading, time, torch
from fusain.data.dataset import DataSettings, prepare
from fusain.data.loader import Loader
torch.set_num_threads(1)
def field(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
before, held_by_children, stopping = field("VmRSS"), 0, threading.Event()
def watch():
    global held_by_children
    while not stopping.wait(0.05):
        total = 0
        for child in multiprocessing.active_children():
            try:
                rows = open(f"/proc/{child.pid}/smaps_rollup").read().splitlines()
            except OSError:
                continue
            total += sum(int(row.split()[1]) * 1024 for row in rows if row.startswith("Private_Dirty"))
        held_by_children = max(held_by_children, total)
watcher = threading.Thread(target=watch)
watcher.start()
started = time.perf_counter()
settings = DataSettings(path=sys.argv[1])
dataset = prepare(settings, size=16, seed=0)
seconds = time.perf_counter() - started
stopping.set()
watcher.join()
peak = field("VmHWM") - before + held_by_children
assert len(dataset) == 100_000 and dataset.held is not None, len(dataset)
batches = iter(Loader(dataset, settings, seed=0, batch_size=100))
for _ in range(50):
    next(batches)
started = time.perf_counter()
for _ in range(900):
    next(batches)
batch = (time.perf_counter() - started) / 900
print(json.dumps({"seconds": seconds, "memory": peak, "batch": batch}))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = dict(os.environ, FUSAIN_CACHE=str(folder / "cache"))
        images, labels = _images()
        _write(folder, images, labels)
        rows = [
            ("PNGs, first time", "60 s", _measure(folder / "png", environment)),
            ("PNGs, from the cache", "5 s", _measure(folder / "png", environment)),
            (".npy pair", "5 s", _measure(folder / "npy", environment)),
        ]
    print(f"{IMAGES:,} images of {SIDE} x {SIDE}, {CLASSES} classes, {RAW_BYTES / 1e6:.0f} MB raw")
    print(f"{'':24}{'seconds':>10}{'allowed':>10}{'memory':>12}{'of raw':>8}{'a batch of 100':>18}")
    for title, allowed, found in rows:
        memory = f"{found['memory'] / 1e6:.0f} MB"
        share, batch = f"{found['memory'] / RAW_BYTES:.2f}", f"{found['batch'] * 1000:.2f} ms"
        print(f"{title:24}{found['seconds']:10.1f}{allowed:>10}{memory:>12}{share:>8}{batch:>18}")


def _images() -> tuple[np.ndarray, np.ndarray]:
    """Random blocks on white: they compress about as drawn sprites do."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (IMAGES, SIDE // 4, SIDE // 4, 3), dtype=np.uint8)
    images = small.repeat(4, axis=1).repeat(4, axis=2)
    images[:, :2], images[:, :, :2] = 255, 255
    return images, generator.integers(0, CLASSES, IMAGES)


def _write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    (folder / "npy").mkdir()
    np.save(folder / "npy" / "sprites.npy", images)
    np.save(folder / "npy" / "labels.npy", np.eye(CLASSES)[labels])
    for label in range(CLASSES):
        (folder / "png" / f"class-{label}").mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        Image.fromarray(image).save(folder / "png" / f"class-{label}" / f"{number:06d}.png", compress_level=1)


def _measure(path: Path, environment: dict[str, str]) -> dict[str, float]:
    """In a fresh process, so that memory and imports are its own."""
    time.sleep(1)
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(path)], env=environment, check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
