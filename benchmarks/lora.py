"""What a LoRA of rank 8 on every layer costs before the first image: under a second more than the base alone.

The miniature is opened and draws one image, in turns without a LoRA file and with one of each style.
With --small a tiny base draws in two steps, as a test.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.worlds import empty_folder
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models import adapters
from fusain.models.bases import fresh
from fusain.models.families.sd import StableDiffusion, StableDiffusionSettings
from fusain.models.family import Facts
from fusain.training.methods.lora import FILES, Lora, LoraSettings

BASE, SIZE, RANK, STEPS, ROUNDS = "fusain:mini-sd", 64, 8, 20, 5
HEAD = "| file | size | base | with the LoRA | more (allowed 1 s) |"


def opened(base: str, size: int) -> StableDiffusion:
    return StableDiffusion(StableDiffusionSettings(base=base, size=size), Facts())


def written(base: str, size: int, folder: Path) -> None:
    """A LoRA of random numbers in both styles; what they are takes no time."""
    family, method = opened(base, size), Lora(LoraSettings(rank=RANK, targets="all"))
    with torch.no_grad():
        for parameter in method.prepare(family).values():
            torch.nn.init.normal_(parameter, std=0.01)
    method.save(family, folder)


def seconds(base: str, size: int, steps: int, file: Path | None) -> float:
    """From nothing to one image."""
    started = time.perf_counter()
    family = opened(base, size)
    if file is not None:
        parts = {part: family.network.get_submodule(part) for part in family.lora_targets}
        adapters.apply(adapters.read(file), parts)
    wanted = [Wanted(0, prompt="a face with a red hat")]
    list(generate(family, wanted, SamplerSettings(steps=steps, guidance=4.0), chunk=1))
    return time.perf_counter() - started


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lora", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a tiny base and two steps, to see that it works")
    given = parser.parse_args(arguments)
    base, size, steps, rounds = (BASE, SIZE, STEPS, ROUNDS)
    print(HEAD + "\n" + "|---" * HEAD.count(" |") + "|", flush=True)
    with empty_folder() as folder:
        if given.small:
            base, size, steps, rounds = str(folder / "base"), fresh.TINY.image, 2, 1
            fresh.write(fresh.TINY, folder / "base")
        written(base, size, folder / "lora")
        seconds(base, size, steps, None)  # imports, and files that the system has not read yet
        for name in FILES.values():
            file = folder / "lora" / name
            pairs = [(seconds(base, size, steps, None), seconds(base, size, steps, file)) for _ in range(rounds)]
            bare, more = (statistics.median(values) for values in zip(*pairs, strict=True))
            told = (f"{file.stat().st_size / 1e6:.2f} MB", f"{bare:.2f} s", f"{more:.2f} s", f"{more - bare:+.2f} s")
            print(f"| {name} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
