"""Steps of full-size Stable Diffusion 1.x and XL on a GPU: the real loop, and the bare step of its network.

Networks have the published configurations and random weights, so nothing is downloaded. What learns: a LoRA above a
base in 8 bits, all weights, and all weights kept in bf16 (both with Adafactor and a fused backward pass); batch 1,
bf16, activations recomputed, encodings stored. A LoRA also compiled, which a fused backward pass cannot be. Rows are
printed as in benchmarks/RESULTS.md:

- step: of the loop as `fusain train` has it, with data, loss and log, but without samples, checkpoints and average.
- bare step: forward, L2, backward and a step of the same optimizer over all gradients at once, on tensors that lie
  ready, in turns with the loop's; its share of the loop's step. Aim for a LoRA: 0.95.
- at the start: the most memory until the first step, of building and encoding; peak: of steps, without the bare one;
  foreseen: what `fusain plan` says of them, and its share of the peak. Aims for XL: a LoRA at 1024 px within 8 GB, all
  weights in bf16 within 10 GB.
- TFLOP/s: of a forward and a backward pass by their shapes. What is computed twice to save memory counts once, so the
  share of the rate of a large matrix product is lower than what the GPU is busy with.

With --channels-last all of it in that layout. With --small the same runs on a CPU with tiny networks, as a test.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size, memory
from benchmarks.loop import WARM, InTurns
from benchmarks.worlds import QUIET, BareStep, as_a_batch, empty_folder, make_trainer, our_optimizer
from fusain.data.batch import Batch
from fusain.errors import MemoryFault
from fusain.messages.quantities import size as in_words
from fusain.models.bases import fresh
from fusain.models.packed import Packing, pack
from fusain.runs import assembly, encoding, planning
from fusain.runs.assembly import Learner
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training.events import Event
from fusain.training.stopping import StopRequest
from fusain.training.trainer import Trainer

NETWORKS = {"sd1": ("Stable Diffusion 1.x", "sd", fresh.TINY), "sdxl": ("Stable Diffusion XL", "sdxl", fresh.TINY_XL)}
FULL = {"method.kind": "full", "train.optimizer": "adafactor", "train.fused_backward": True}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("a LoRA", {"method.kind": "lora", "engine.base_bits": 8}),
    "full": ("all weights", FULL),
    "full-bf16": ("all weights, in bf16", FULL | {"engine.weights": "bf16", "engine.precision": "bf16"}),
}
COMMON = {"train.steps": 9, "train.batch_size": 1, "train.ema_decay": 0, "engine.gradient_checkpointing": True}
SIZES, SMALL_SIZES = (512, 1024), (32,)
HEAD = (
    "| network | learns | px | compiled | step | bare step | its share | at the start | peak | foreseen | its share "
    "| TFLOP/s | of the matrix rate |"
)
NO_ROOM = "no room"


@dataclass(frozen=True)
class Case:
    network: str
    method: str
    size: int
    is_compiled: bool = False
    layout: Literal["on", "off"] = "off"

    @property
    def titles(self) -> list[str]:
        return [NETWORKS[self.network][0], METHODS[self.method][0], str(self.size)]


@dataclass(frozen=True)
class Measured:
    """Seconds and bytes; None where there was nothing to measure."""

    seconds: float
    bare: float | None
    start: int | None
    peak: int
    foreseen: int
    flops: int
    is_compiled: bool


def cases(sizes: tuple[int, ...], compiled: tuple[bool, ...], layout: Literal["on", "off"] = "off") -> Iterator[Case]:
    for network in NETWORKS:
        for method, (_, changes) in METHODS.items():
            fitting = [one for one in compiled if not (one and changes.get("train.fused_backward"))]
            for size in sizes:
                yield from (Case(network, method, size, is_compiled, layout) for is_compiled in fitting)


def settings_of(case: Case, folder: Path, *, small: bool) -> RunSettings:
    """With a base of that network and one captioned image of that size in the folder."""
    base, data = folder / case.network, folder / f"images-{case.size}"
    if not base.exists():
        fresh.write(NETWORKS[case.network][2], base) if small else full_size.write(case.network, base)
    if not data.exists():
        data.mkdir()
        Image.new("RGB", (case.size, case.size), "teal").save(data / "one.png")
        (data / "one.txt").write_text("a teal square")
    on_cpu = {"engine.device": "cpu", "engine.precision": "fp32", "engine.threads": 1}
    where = on_cpu if small else {"engine.device": "cuda", "engine.precision": "bf16"}
    where |= {"engine.channels_last": case.layout, "engine.compile": "on" if case.is_compiled else "off"}
    family = {"family.kind": NETWORKS[case.network][1], "family.base": str(base), "family.size": case.size}
    places = {"data.path": str(data), "data.held_out": "none", "runs_folder": str(folder / "runs")}
    overrides = {**QUIET, **places, **COMMON, **family, **where, **METHODS[case.method][1]}
    return assembly.resolved_engine(resolve(RunSettings, overrides=overrides).settings)


def measure(case: Case, folder: Path, *, small: bool, steps: int) -> Measured:
    name = f"{case.network}-{case.method}-{case.size}-{'compiled' if case.is_compiled else 'plain'}"
    os.environ["FUSAIN_CACHE"] = str(folder / "cache" / name)  # each case encodes anew
    settings, faults = settings_of(case, folder, small=small), list[str]()
    between = InTurns(torch.cuda.synchronize) if not small else InTurns()

    def hear(event: Event) -> None:
        if event.get("code") == "W-ENV-001":
            faults.append(event["text"])

    if not small:
        torch.cuda.reset_peak_memory_stats()
    trainer = make_trainer(settings, name, between, hear)
    start = None if small else torch.cuda.max_memory_allocated()
    fill(trainer.parts.family.network)
    batch = next(trainer.parts.batches(0))
    peak = peak_of(trainer, WARM)
    bare = None if case.is_compiled else bare_step(settings, trainer, batch)
    between.floor = bare or between.floor
    go_on(trainer, steps)
    assert len(between.loop) == WARM + steps, "a listener that fails is dropped with a warning"
    return Measured(
        seconds=statistics.median(between.loop[WARM:]),
        bare=statistics.median(between.bare[WARM:]) if bare else None,
        start=start,
        peak=peak,
        foreseen=planning.foreseen_memory(settings, assembly.prepare_data(settings, folder=None, report=None)).peak,
        flops=flops_of_a_step(settings, batch),
        is_compiled=case.is_compiled and not faults,
    )


def fill(network: torch.nn.Module) -> None:
    """Numbers in place of the zeros of a base that is all holes, of which a GPU may be done faster."""
    with torch.no_grad():
        for one in network.parameters():
            one.normal_(std=0.02)
        for layer in network.modules():
            if isinstance(layer, Packing) and layer.bits != 32:
                packed, scales = pack(torch.randn(layer.shape, device=layer.packed.device) * 0.02, layer.bits)
                layer.packed.copy_(packed)
                if layer.scales is not None and scales is not None:
                    layer.scales.copy_(scales)


def go_on(trainer: Trainer, steps: int) -> None:
    """So many steps more of the real loop, which saves nothing at their end."""
    trainer.plan = replace(trainer.plan, steps=trainer.step + steps, checkpoint_every=0)
    trainer.run(StopRequest(None))


def peak_of(trainer: Trainer, steps: int) -> int:
    """The most memory that steps take with what they work on: on a GPU as PyTorch says, else as `memory` has it."""
    if trainer.parts.engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        go_on(trainer, steps)
        return torch.cuda.max_memory_allocated()
    network = trainer.parts.family.network
    return memory.allocated(lambda: go_on(trainer, steps), (*network.parameters(), *network.buffers()))


def bare_step(settings: RunSettings, trainer: Trainer, batch: Batch) -> BareStep | None:
    """Taken once; None where there is no room for it beside the loop.

    Its network is one of its own, as the loop's is: in that of a fused step every gradient moves its weight at once.
    """
    engine = trainer.parts.engine
    try:
        learner = assembly.build_trainee(settings, trainer.parts.family.facts.classes)
        assembly.ready_denoiser(learner, settings, lambda fault: None)
        learner.family.rest(set(encoding.ENCODERS.values()))
        engine.brought(learner.family, learner.method.prepare(learner.family))
        fill(learner.family.network)
        optimizer = our_optimizer(settings.train.optimizer)
        bare = on_a_batch(learner, batch.to(engine.device), precision=engine.precision, optimizer=optimizer)
        bare()
    except torch.OutOfMemoryError:
        return None
    return bare


def on_a_batch(learner: Learner, batch: Batch, **more: Any) -> BareStep:
    return BareStep(learner.family, as_a_batch(learner.family, batch), **more)


def flops_of_a_step(settings: RunSettings, batch: Batch) -> int:
    """Of forward and backward by their shapes, with no activation computed twice."""
    once = settings.engine.model_copy(update={"gradient_checkpointing": False})
    learner = assembly.without_weights(settings.model_copy(update={"engine": once}), ())
    learner.method.prepare(learner.family)
    learner.family.rest(set(encoding.ENCODERS.values()))
    bare = on_a_batch(learner, batch.to(torch.device("meta")), precision="fp32")
    with FlopCounterMode(display=False) as counter:
        bare.gradients()
    return counter.get_total_flops()


def row(case: Case, found: Measured, rate: float) -> str:
    compiled = "yes" if found.is_compiled else "it failed" if case.is_compiled else "no"
    bare = ["", ""] if case.is_compiled else [NO_ROOM, ""]
    if found.bare is not None:
        bare = [f"{found.bare * 1000:.1f} ms", f"{found.bare / found.seconds:.2f}"]
    start = "" if found.start is None else in_words(found.start)
    shares = [in_words(found.peak), in_words(found.foreseen), f"{found.foreseen / found.peak:.2f}"]
    speed = found.flops / found.seconds
    speeds = [f"{speed / 1e12:.3g}", f"{speed / rate:.2g}"]
    return in_a_line(*case.titles, compiled, f"{found.seconds * 1000:.1f} ms", *bare, start, *shares, *speeds)


def in_a_line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def matrix_rate(*, small: bool) -> float:
    """FLOP/s of a large matrix product in the precision of the steps."""
    side, device, dtype = (256, "cpu", torch.float32) if small else (8192, "cuda", torch.bfloat16)
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    wait: Callable[[], object] = (lambda: None) if small else torch.cuda.synchronize
    taken = []
    for _ in range(10):
        started = time.perf_counter()
        matrix @ matrix
        wait()
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
            try:
                print(row(case, measure(case, folder, small=given.small, steps=given.steps), rate), flush=True)
            except (torch.OutOfMemoryError, MemoryFault):
                print(in_a_line(*case.titles, "yes" if case.is_compiled else "no", NO_ROOM), flush=True)
            torch.compiler.reset()
            gc.collect()
            if not given.small:
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
