"""The networks of the recipes `unconditional` and `class-conditional` at batch 100, 16 x 16 pixels.

Images a second of the plain fp32 loop (zero the gradients, forward, L2 on random tensors, backward, step) against the
same step as the loop takes it here (bf16, one kernel for the optimizer), in turns in one run; and the share of the
machine's measured bf16 matrix rate that the step reaches, with where its time goes.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.worlds import BareStep, drawn_world, made_up, our_optimizer, resolved
from fusain.data.cores import usable_cores
from fusain.runs import assembly
from fusain.training.engine import has_bf16
from fusain.worlds.sprites import CLASSES

ROUNDS = 6
BATCH = 100


def matrix_rate() -> float:
    """FLOP/s of a large bf16 matrix product."""
    matrix = torch.randn(2048, 2048).bfloat16()
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / statistics.median(seconds)


def measure(recipe: str) -> None:
    with drawn_world(200) as folder:
        settings = resolved(recipe, folder)
    name = settings.train.optimizer
    optimizers = {
        "fp32": torch.optim.Adam if name == "adam" else torch.optim.AdamW,
        "bf16": our_optimizer(name),
    }
    steps = {}
    for precision, optimizer in optimizers.items():
        family = assembly.build_learner(settings, CLASSES).family
        steps[precision] = BareStep(family, made_up(family, BATCH), precision=precision, optimizer=optimizer)
    with FlopCounterMode(display=False) as counter:
        steps["fp32"]()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number:
                taken[name].append(time.perf_counter() - started)
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    rate, share = matrix_rate(), counter.get_total_flops() / seconds["bf16"]
    rates = "  ".join(f"{name} {BATCH / taken:6.1f} images/s" for name, taken in seconds.items())
    print(f"{recipe:<20} {rates}  ratio {seconds['fp32'] / seconds['bf16']:.2f}", flush=True)
    print(
        f"    bf16 reaches {share / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s = {share / rate:.2f}; its time goes to",
        flush=True,
    )
    print_profile(steps["bf16"])


def print_profile(step: BareStep) -> None:
    """Where the time of one step goes, by kind of operation."""
    with torch.profiler.profile() as profile:
        step()
    rows = sorted(profile.key_averages(), key=lambda row: row.self_cpu_time_total, reverse=True)
    total = sum(row.self_cpu_time_total for row in rows)
    for row in rows[:7]:
        print(f"    {row.self_cpu_time_total / total:6.1%}  {row.key}")


if __name__ == "__main__":
    torch.set_num_threads(usable_cores())
    print(f"torch {torch.__version__}, {usable_cores()} threads, bf16 in hardware: {has_bf16('cpu')}")
    for recipe in ("unconditional", "class-conditional"):
        measure(recipe)
