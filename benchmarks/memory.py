"""The peak memory that `plan` foresees from shapes against the one of real steps, on the miniatures and a tiny base.

Measured twice, each time in a process of its own: what PyTorch's allocator hands out, told by its profiler, and the
peak of the whole process above what it held before the first step (RSS), which libraries and the system round up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from benchmarks.worlds import QUIET
from fusain.data.loader import Loader
from fusain.models.bases import fresh
from fusain.runs import assembly, encoding, planning
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training import engine as engines
from fusain.training.averaging import make_average
from fusain.training.engine import has_bf16
from fusain.training.optimizers import optimizer_of
from fusain.training.stepping import make_stepping
from fusain.worlds.caricatures import world, write_folder

STEPS = 3
MINI = {"family.kind": "sd", "family.base": "fusain:mini-sd", "family.size": "64", "train.batch_size": "16"}
MINI_XL = MINI | {"family.kind": "sdxl", "family.base": "fusain:mini-sdxl"}
TINY_XL = MINI_XL | {"family.base": "{folder}/base-xl", "train.batch_size": "32"}
LORA = {"method.kind": "lora", "method.targets": "all"}
CHECKPOINTING = {"engine.gradient_checkpointing": "true"}
BF16 = {"engine.precision": "bf16"}
FUSED = {"train.fused_backward": "true"}
NARROW = FUSED | BF16 | {"engine.weights": "bf16"}
CASES: dict[str, dict[str, str]] = {
    "mini-sd, all weights": MINI,
    "the same, bf16": MINI | BF16,
    "the same, activations recomputed": MINI | CHECKPOINTING,
    "the same, fused backward": MINI | FUSED,
    "the same in bf16, weights too": MINI | NARROW,
    "mini-sd, LoRA, base in 8 bit": MINI | LORA | {"engine.base_bits": "8"},
    "mini-sdxl, all weights, fused backward": MINI_XL | FUSED,
    "mini-sdxl, the same in bf16, weights too": MINI_XL | NARROW,
    "mini-sdxl, LoRA": MINI_XL | LORA,
    "mini-sdxl, LoRA, base in 4 bit": MINI_XL | LORA | {"engine.base_bits": "4"},
    "tiny XL, LoRA, activations recomputed": TINY_XL | LORA | CHECKPOINTING,
}


def settings_of(changes: dict[str, str], folder: Path) -> RunSettings:
    here = {key: value.format(folder=folder) for key, value in changes.items()}
    fixed = {"data.path": str(folder / "faces"), "train.steps": "9", "engine.device": "cpu", "engine.threads": "1"}
    overrides = list({"engine.precision": "fp32", **fixed, **QUIET, **here}.items())
    return assembly.resolved_engine(
        resolve(RunSettings, recipe={"method": {"kind": "full"}}, overrides=overrides).settings
    )


def prepare(folder: Path) -> Path:
    """Faces, and the smallest base of XL."""
    write_folder(world(48, seed=4), folder / "faces")
    fresh.write(fresh.TINY_XL, folder / "base-xl")
    return folder


def foreseen(settings: RunSettings) -> int:
    dataset = assembly.prepare_data(settings, folder=None, report=None)
    return planning.foreseen_memory(settings, dataset).peak


def measured(settings: RunSettings, how: str) -> int:
    """Bytes at the peak of real steps, weights included: `allocated` by the profiler, `rss` of the process."""
    dataset, train = assembly.prepare_data(settings, folder=None, report=None), settings.train
    engine, learner = engines.start(settings.engine), assembly.build_trainee(settings, dataset.classes)
    family, method = learner.family, learner.method
    count = STEPS * train.accumulation
    loader = iter(Loader(dataset, settings.data, seed=0, batch_size=train.batch_size))
    batches = list(encoding.as_stored(family, method, dataset, (next(loader) for _ in range(count))))
    parameters = engine.brought(family, method.prepare(family))
    family.network.train()
    kept = (*family.network.parameters(), *family.network.buffers())

    def work() -> None:
        optimizer = optimizer_of(train, parameters, method.rates(parameters))
        stepping = make_stepping(train, engine.accelerator, optimizer, parameters)
        average = make_average(optimizer, parameters, train.ema_decay)
        for step in range(STEPS):
            for batch in batches[step * train.accumulation : (step + 1) * train.accumulation]:
                with engine.accelerator.autocast():
                    loss = method.loss(family, batch, seed=0)
                loss.value.backward()
                del loss
            stepping.finish()
            stepping.step()
            if average is not None:
                average.update(step)

    if how == "allocated":
        return allocated(work, kept)
    return _grown(work) + sum(one.numel() * one.element_size() for one in kept)


def allocated(work: Callable[[], None], kept: Iterable[torch.Tensor]) -> int:
    """The most that the allocator had handed out at once, with what is kept from before."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        for one in kept:  # laid anew, for the profiler does not see go what it did not see come
            one.data = one.data.clone()
        work()
    told = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(told, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _grown(work: Callable[[], None]) -> int:
    """How far the process grew above what it held."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    print("| | foreseen | allocated | share | process grown by (RSS) | share |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(Path(name))
        for title, changes in CASES.items():
            if BF16.items() <= changes.items() and not has_bf16("cpu"):
                print(f"| {title} | this processor has no bf16 |", flush=True)
                continue
            found: dict[str, int] = {}
            for how in ("allocated", "rss"):
                command = [sys.executable, "-m", "benchmarks.memory", how, json.dumps(changes), str(folder)]
                found |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            first = found["foreseen"]
            shares = (f"{found[how] / 1e6:.1f} MB | {first / found[how]:.2f}" for how in ("allocated", "rss"))
            print(f"| {title} | {first / 1e6:.1f} MB | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        how, changes, folder = sys.argv[1:]
        settings = settings_of(json.loads(changes), Path(folder))
        found = {"foreseen": foreseen(settings)} if how == "allocated" else {}
        print(json.dumps(found | {how: measured(settings, how)}))
    else:
        main()
