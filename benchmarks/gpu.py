"""Steps of full-size Stable Diffusion 1.x and XL on a GPU.

Seconds, peak memory, TFLOP/s and their share of what the GPU can; networks have the published configurations and random
weights, so nothing is downloaded. LoRA (base in 8 bits) and all weights (Adafactor, fused backward), batch 1, bf16,
activations recomputed, encodings stored; each as it is and compiled, with --channels-last in that layout. Rows are
printed as in benchmarks/RESULTS.md. With --small the same runs on a CPU with tiny networks, as a test.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size, memory
from benchmarks.worlds import empty_folder
from fusain.data.loader import Loader
from fusain.models.bases import fresh
from fusain.runs import assembly, encoding, planning
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training import engine as engines
from fusain.training.optimizers import optimizer_of
from fusain.training.stepping import make_stepping

NETWORKS = {"sd1": ("Stable Diffusion 1.x", "sd", fresh.TINY), "sdxl": ("Stable Diffusion XL", "sdxl", fresh.TINY_XL)}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method.kind": "lora", "engine.base_bits": 8},
    "full": {"method.kind": "full", "train.optimizer": "adafactor", "train.fused_backward": True},
}
COMMON = {"train.steps": 9, "train.batch_size": 1, "train.ema_decay": 0, "engine.gradient_checkpointing": True}
SIZES, SMALL_SIZES = (512, 1024), (32,)
WARM = 3
HEAD = "| network | learns | px | compiled | ms a step | peak | foreseen | TFLOP/s | share of the matrix rate |"


@dataclass(frozen=True)
class Case:
    network: str
    method: str
    size: int
    is_compiled: bool
    layout: Literal["on", "off"]


def cases(sizes: tuple[int, ...], compiled: tuple[bool, ...], layout: Literal["on", "off"] = "off") -> Iterator[Case]:
    for network in NETWORKS:
        for method in METHODS:
            for size in sizes:
                yield from (Case(network, method, size, is_compiled, layout) for is_compiled in compiled)


def settings_of(case: Case, folder: Path, *, small: bool) -> RunSettings:
    """With a base of that network and one captioned image of that size in the folder."""
    base, data = folder / case.network, folder / f"images-{case.size}"
    if not base.exists():
        fresh.write(NETWORKS[case.network][2], base) if small else full_size.write(case.network, base)
    if not data.exists():
        data.mkdir()
        Image.new("RGB", (case.size, case.size), "teal").save(data / "one.png")
        (data / "one.txt").write_text("a teal square")
    where = {"engine.device": "cpu", "engine.precision": "fp32", "engine.threads": 1} if small else {}
    where = {"engine.channels_last": case.layout, **(where or {"engine.device": "cuda", "engine.precision": "bf16"})}
    family = {"family.kind": NETWORKS[case.network][1], "family.base": str(base), "family.size": case.size}
    overrides = {"data.path": str(data), "data.held_out": "none", **COMMON, **family, **METHODS[case.method], **where}
    recipe = {"method": {"kind": case.method}}
    return assembly.resolved_engine(resolve(RunSettings, recipe=recipe, overrides=overrides).settings)


def measure(case: Case, folder: Path, rate: float, *, small: bool, steps: int) -> str:
    """One row."""
    settings = settings_of(case, folder, small=small)
    dataset, engine = assembly.prepare_data(settings, folder=None, report=None), engines.start(settings.engine)
    foreseen = planning.foreseen_memory(settings, dataset).peak
    step, weights = prepared(case, settings, dataset, engine)
    with FlopCounterMode(display=False) as counter:
        step()
    for _ in range(1 if small else WARM):
        step()
    seconds, peak = timed(step, engine.device, weights, steps)
    speed = counter.get_total_flops() / seconds
    learns = {"lora": "a LoRA", "full": "all weights"}[case.method]
    cells = [NETWORKS[case.network][0], learns, str(case.size), "yes" if case.is_compiled else "no"]
    cells += [f"{seconds * 1000:.1f}", f"{peak / 1e9:.2f} GB", f"{foreseen / 1e9:.2f} GB"]
    return "| " + " | ".join([*cells, f"{speed / 1e12:.3g}", f"{speed / rate:.2f}"]) + " |"


def prepared(case: Case, settings: RunSettings, dataset: Any, engine: Any) -> tuple[Callable[[], None], int]:
    """A whole step of the loop's parts, and the bytes of the weights that it works with."""
    learner, train = assembly.build_trainee(settings, dataset.classes), settings.train
    family, method = learner.family, learner.method
    family.to(engine.device)
    with torch.no_grad():
        for one in family.network.parameters():
            one.normal_(std=0.02)
    batch = next(iter(Loader(dataset, settings.data, seed=0, batch_size=1))).to(engine.device)
    (batch,) = encoding.as_stored(family, method, dataset, iter([batch]))
    parameters = method.prepare(family)
    family.to(engine.device)
    unet = family.network.train().get_submodule("unet")
    assembly.ready_denoiser(learner, settings, lambda fault: None)
    optimizer = optimizer_of(train, parameters, method.rates(parameters))
    stepping = make_stepping(train, engine.accelerator, optimizer, parameters)
    if case.is_compiled:
        unet.compile()

    def step() -> None:
        with engine.accelerator.autocast():
            loss = method.loss(family, batch, seed=0)
        loss.value.backward()
        stepping.finish()
        stepping.step()

    kept = (*family.network.parameters(), *family.network.buffers())
    return step, sum(one.numel() * one.element_size() for one in kept)


def timed(step: Callable[[], None], device: torch.device, weights: int, steps: int) -> tuple[float, int]:
    """Seconds of a step, and the most memory that one takes."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if on_gpu else weights + memory.allocated(step)
    return statistics.median(taken), peak


def matrix_rate(*, small: bool) -> float:
    """FLOP/s of a large matrix product in the precision of the steps."""
    side, device, dtype = (256, "cpu", torch.float32) if small else (8192, "cuda", torch.bfloat16)
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    taken = []
    for _ in range(10):
        started = time.perf_counter()
        matrix @ matrix
        if not small:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(taken)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="tiny networks on a CPU, to see that it works")
    parser.add_argument("--channels-last", action="store_true", help='as engine.channels_last = "on"')
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled rows out")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed for each row (10)")
    given = parser.parse_args(arguments)
    if not given.small and not torch.cuda.is_available():
        sys.exit("No NVIDIA GPU is usable here, so nothing was measured; --small tries the same on a CPU.")
    rate = matrix_rate(small=given.small)
    what = "a CPU, tiny networks" if given.small else torch.cuda.get_device_name()
    print(f"{what}, torch {torch.__version__}, matrix products at {rate / 1e12:.3g} TFLOP/s\n")
    print(HEAD + "\n" + "|---" * HEAD.count(" |") + "|")
    compiled = (False,) if given.no_compile else (False, True)
    with empty_folder() as folder:
        layout: Literal["on", "off"] = "on" if given.channels_last else "off"
        for case in cases(SMALL_SIZES if given.small else SIZES, compiled, layout):
            print(measure(case, folder, rate, small=given.small, steps=given.steps), flush=True)
            torch._dynamo.reset()
            if not given.small:
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
