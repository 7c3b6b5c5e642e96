"""What a step of text to image costs: above the bare step of its network, and against diffusers' own script.

    python -m benchmarks.text_to_image [--precision fp32] [--script train_text_to_image.py --with DIR]

One small Stable Diffusion at 64 px (latents of 16 x 16 x 4, a UNet of 4 M parameters), batch 16, bf16, AdamW, only the
UNet learns, average on; `--precision fp32` where the processor has no bf16. Measured in one run:

1. The bare step of the UNet: forward, L2, backward, clipping, a plain AdamW step, on tensors that lie ready.
2. Our loop with stored encodings, in turns with the bare step. Aim: at most 1.05 of it. The same again above a bare
   step whose AdamW is one kernel as ours is, which leaves nothing but the loop. Neither encoder may stay in the memory
   of the training.
3. Our loop without stored encodings, in turns with the bare step.
4. Where the time of the bare step goes, by kind of operation: what could lift it.
5. With `--script`: diffusers' `examples/text_to_image/train_text_to_image.py`, unchanged, on the same base, images,
   batch, precision and threads, with `--use_ema`, each run of it after one of ours. Aim: ours makes at least 1.45 times
   as many images a second. Starting, storing encodings once and saving at the end count on neither side.

The script needs `datasets`, which is no dependency of ours: `pip install datasets --target DIR`, and `--with DIR`.
It imports torchvision too, which does not install beside every torch: where it is missing, the script gets
`torchvision_transforms.py` in its place, as a package in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from shutil import copy

import torch

from benchmarks.loop import WARM, InTurns
from benchmarks.worlds import BareStep, empty_folder, made_up, make_trainer, our_optimizer, resolved
from fusain.data.cores import usable_cores
from fusain.models.bases import fresh
from fusain.models.family import Family
from fusain.runs import assembly
from fusain.training.events import Event
from fusain.training.stopping import StopRequest
from fusain.worlds.caricatures import world, write_folder
from fusain.worlds.mini import vocabulary

BATCH, IMAGES = 16, 512
SIZES = fresh.Sizes(
    image=64,
    vae_channels=(32, 64, 64),
    vae_layers=1,
    latents=4,
    unet_channels=(64, 128),
    unet_attends=(False, True),
    unet_layers=1,
    unet_heads=2,
    text_width=128,
    text_layers=2,
    text_heads=2,
)
SETTINGS = {
    "family__size": str(SIZES.image),
    "train__batch_size": str(BATCH),
    "train__accumulation": "1",
    "engine__device": "cpu",
    "engine__precision": "bf16",
    "engine__gradient_checkpointing": "false",
}
HOW_DATASETS_COMES = (
    "The script needs the package datasets, which is no dependency of fusain:\n"
    "    pip install datasets --target DIR\n"
    "and then add --with DIR."
)
KINDS = {
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("mkldnn_convolution", "slow_conv", "thnn_conv"),
    "products of matrices": ("mm", "addmm", "bmm", "baddbmm", "linear"),
    "attention": ("softmax", "scaled_dot_product", "flash_attention"),
    "norms": ("native_group_norm", "native_layer_norm"),
    "optimizer": ("lerp", "addcmul", "addcdiv", "sqrt", "_fused"),
}
"""Operations by the beginnings of their names, without `aten::`; what is no such one is all else."""
TIMED_SCRIPT = """
import json, runpy, sys, time, torch
from accelerate.optimizer import AcceleratedOptimizer
from diffusers import StableDiffusionPipeline
script, times_file, stand_in, threads, more = sys.argv[1:6]
# Last, so that what is installed comes first; and only now, for transformers looks once whether it has torchvision
# and would take all of it.
sys.path += [more, stand_in]
torch.set_num_threads(int(threads))
times, step = [], AcceleratedOptimizer.step
def timed(self, closure=None):
    step(self, closure)
    times.append(time.perf_counter())
AcceleratedOptimizer.step = timed
sys.argv = [script, *sys.argv[6:]]
runpy.run_path(script, run_name="__main__")
with open(times_file, "w") as file:
    json.dump(times, file)
"""


@contextmanager
def drawn_faces() -> Iterator[Path]:
    """A temporary folder with captioned images in `faces/` and a base in `base/`."""
    faces = world(IMAGES)
    with empty_folder() as folder:
        write_folder(faces, folder / "faces")
        fresh.write(SIZES, folder / "base", vocabulary.tokenizer(faces.captions))
        yield folder


@dataclass(frozen=True)
class Measured:
    """Median seconds of a step of our loop and of the bare step between, and what the run was like."""

    loop: float
    bare: float
    ready: float
    resident: set[str]

    @property
    def ratio(self) -> float:
        return self.loop / self.bare


def train(
    folder: Path, name: str, *, steps: int, cache: str = "auto", bare: Callable[[Family], BareStep] | None = None
) -> Measured:
    """A real training of ours, with a bare step after each of its steps where one is asked for."""
    places = {"data__path": str(folder / "faces"), "family__base": str(folder / "base"), "data__cache": cache}
    settings = resolved("text-to-image", folder, train__steps=str(steps + WARM), **places, **SETTINGS)
    between, resident = InTurns(), set[str]()

    def listen(event: Event) -> None:
        if event["kind"] == "step":
            resident.update(encoders_of(trainer.parts.family))
        between(event)

    started = time.perf_counter()
    trainer = make_trainer(settings, name, listen)
    ready = time.perf_counter() - started
    if bare is not None:
        between.floor = bare(assembly.build_learner(settings, ()).family)
    trainer.run(StopRequest(folder / "stop"))
    assert len(between.loop) == steps + WARM, "a listener that fails is dropped with a warning"
    return Measured(
        loop=statistics.median(between.loop[WARM:]),
        bare=statistics.median(between.bare[WARM:]),
        ready=ready,
        resident=resident,
    )


def encoders_of(family: Family) -> set[str]:
    """The encoders that are in memory."""
    text_encoders = set(family.text_encoders())
    return text_encoders if family.autoencoder is None else {"autoencoder", *text_encoders}


def above_the_bare_step(folder: Path, rounds: int) -> None:
    def plain(family: Family) -> BareStep:
        return BareStep(family, made_up(family, BATCH), precision=SETTINGS["engine__precision"], clip_norm=1.0)

    def in_one_kernel(family: Family) -> BareStep:
        precision = SETTINGS["engine__precision"]
        ready, optimizer = made_up(family, BATCH), our_optimizer("adamw")
        return BareStep(family, ready, precision=precision, clip_norm=1.0, optimizer=optimizer)

    stored = train(folder, "stored", steps=rounds, bare=plain)
    print(f"reading {IMAGES} images and captions, storing their encodings and building: {stored.ready:.1f} s")
    show("stored encodings (aim 1.05)", stored)
    print(f"    encoders in memory while it ran: {', '.join(sorted(stored.resident)) or 'none'}")
    assert not stored.resident, "the encoders rest while all that they make is stored"
    show("stored, bare step in one kernel", train(folder, "one-kernel", steps=rounds, bare=in_one_kernel))
    unstored = train(folder, "unstored", steps=rounds, bare=plain, cache="none")
    show("no stored encodings", unstored)
    # By their ratios to the bare step: the machine may have changed its pace between the two trainings.
    print(f"    {unstored.ratio / stored.ratio:.2f} times the step with stored encodings", flush=True)


def where_it_goes(folder: Path, steps: int = 10) -> None:
    """Shares of the time that the operations of a bare step take themselves."""
    places = {"data__path": str(folder / "faces"), "family__base": str(folder / "base")}
    settings = resolved("text-to-image", folder, **places, **SETTINGS)
    torch.set_num_threads(usable_cores())
    family = assembly.build_learner(settings, ()).family
    bare = BareStep(family, made_up(family, BATCH), precision=settings.engine.precision, clip_norm=1.0)
    bare()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(steps):
            bare()
    times = {one.key.removeprefix("aten::"): one.self_cpu_time_total for one in profile.key_averages()}
    shares = {
        kind: sum(time for name, time in times.items() if name.startswith(names)) / sum(times.values())
        for kind, names in KINDS.items()
    }
    parts = [f"{kind} {share:.0%}" for kind, share in sorted(shares.items(), key=lambda pair: -pair[1])]
    print(f"where the bare step goes: {', '.join(parts)}, all else {1 - sum(shares.values()):.0%}", flush=True)


def show(title: str, measured: Measured) -> None:
    times = f"bare {measured.bare * 1000:8.2f} ms  loop {measured.loop * 1000:8.2f} ms"
    print(f"{title:<32} {times}  ratio {measured.ratio:.3f}  {BATCH / measured.loop:6.1f} images/s", flush=True)


def against_the_script(folder: Path, script: Path, more: Path | None, *, steps: int, turns: int) -> None:
    speeds: dict[str, list[float]] = {"ours": [], "script": []}
    for turn in range(turns):
        speeds["ours"].append(BATCH / train(folder, f"turn-{turn}", steps=steps).loop)
        speeds["script"].append(BATCH / script_step(folder, script, more, steps=steps))
        both = "  ".join(f"{name} {each[-1]:6.1f} images/s" for name, each in speeds.items())
        print(f"turn {turn + 1}: {both}", flush=True)
    ours, theirs = (statistics.median(speeds[name]) for name in ("ours", "script"))
    print(f"script {theirs:.1f} images/s  ours {ours:.1f} images/s  ratio {ours / theirs:.2f} (aim 1.45)", flush=True)


def script_step(folder: Path, script: Path, more: Path | None, *, steps: int) -> float:
    """Median seconds from one optimizer step of the script to the next."""
    times, threads = folder / "times.json", str(usable_cores())
    wishes = {
        "pretrained_model_name_or_path": folder / "base",
        "train_data_dir": folder / "faces",
        "caption_column": "text",
        "resolution": SIZES.image,
        "train_batch_size": BATCH,
        "max_train_steps": steps + WARM,
        "checkpointing_steps": 100_000,
        "mixed_precision": {"fp32": "no"}.get(SETTINGS["engine__precision"], SETTINGS["engine__precision"]),
        "output_dir": folder / "script",
        "cache_dir": folder / "datasets-cache",
    }
    told = [str(each) for each in (script, times, stand_in(folder), threads, more or "")]
    options = ["--use_ema", *(f"--{name}={value}" for name, value in wishes.items())]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "ACCELERATE_USE_CPU": "true",
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TIMED_SCRIPT, *told, *options],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"The script failed:\n{done.stdout[-4_000:]}")
    ends = json.loads(times.read_text())
    return statistics.median(end - start for start, end in pairwise(ends[WARM - 1 :]))


def stand_in(folder: Path) -> Path:
    """A folder with a package `torchvision` that has what the script takes of it."""
    package = folder / "stand-in" / "torchvision"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    copy(Path(__file__).with_name("torchvision_transforms.py"), package / "transforms.py")
    return package.parent


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_to_image")
    parser.add_argument("--script", type=Path, help="diffusers' train_text_to_image.py")
    parser.add_argument("--with", type=Path, dest="more", metavar="DIR", help="where the package datasets lies")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="what all of them compute in")
    parser.add_argument("--rounds", type=int, default=40, help="steps measured in turns with the bare step")
    parser.add_argument("--steps", type=int, default=40, help="steps measured of each training beside the script")
    parser.add_argument("--turns", type=int, default=3, help="trainings of each side")
    arguments = parser.parse_args()
    for path in (arguments.script, arguments.more):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")
    if arguments.script and not (find_spec("datasets") or (arguments.more and (arguments.more / "datasets").is_dir())):
        parser.error(HOW_DATASETS_COMES)
    return arguments


def main(arguments: argparse.Namespace) -> None:
    SETTINGS["engine__precision"] = arguments.precision
    with drawn_faces() as folder:
        print(f"torch {torch.__version__}, {usable_cores()} threads, batch {BATCH}, {arguments.precision}")
        above_the_bare_step(folder, arguments.rounds)
        where_it_goes(folder)
        if arguments.script:
            script, more = arguments.script.resolve(), arguments.more and arguments.more.resolve()
            against_the_script(folder, script, more, steps=arguments.steps, turns=arguments.turns)
        else:
            print("For the comparison give diffusers' own script: --script PATH/TO/train_text_to_image.py")


if __name__ == "__main__":
    main(read_arguments())
