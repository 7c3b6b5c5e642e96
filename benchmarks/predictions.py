"""What `fusain plan` foresees against what the training then takes, recipe by recipe.

Aims: the time from the first step to the last within 20 %, with held-out losses, samples and checkpoints; the most
memory of the process within 15 %. Each recipe is planned and trained by the command, each time in a process of its own,
on drawn images and the miniature bases; what is printed is what every run tells of itself, and whether it was near
enough. A process holds its libraries too, so what a step alone takes by its shapes stands beside. With --small one tiny
network in this process, as a test.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.worlds import drawn_world
from fusain.models.bases import fresh
from fusain.runs import actions, planning
from fusain.worlds import caricatures

ON_MINI = {"family.base": "fusain:mini-sd", "family.size": "64"}
ON_TINY_XL = {"family.base": "{folder}/base-xl", "family.size": "64"}
OF_A_SUBJECT = {
    "data.subject.class_word": "person",
    "data.class_images.count": "16",
    "data.class_images.steps": "10",
}
QUICK_SAMPLES = {"samples.steps": "4"}
"""Samples are drawn as the recipe has it, for they take memory; how often the network is asked takes time only."""


@dataclass(frozen=True)
class Case:
    """A recipe, the images it learns from, and what makes it one for two cores."""

    recipe: str
    data: str
    steps: int
    changes: dict[str, str] = field(default_factory=dict)

    def overrides(self, folder: Path) -> dict[str, str]:
        own = {key: value.format(folder=folder) for key, value in self.changes.items()}
        places = {"data.path": str(folder / self.data), "runs_folder": str(folder / "runs")}
        return {**places, "train.steps": str(self.steps), "engine.device": "cpu", **QUICK_SAMPLES, **own}


CASES = (
    Case("unconditional", "sprites", 30),
    Case("class-conditional", "sprites", 20),
    Case("demo", "sprites", 150),
    Case("text-to-image", "faces", 25, ON_MINI),
    Case("lora", "faces", 60, ON_MINI),
    Case("dreambooth", "ada", 60, ON_MINI | OF_A_SUBJECT),
    Case("dreambooth-lora", "ada", 60, ON_MINI | OF_A_SUBJECT),
    Case("demo-character", "ada-masked", 30, OF_A_SUBJECT),
    Case("textual-inversion", "ada", 60, ON_MINI),
    Case("sdxl-lora", "faces", 60, ON_TINY_XL),
)
TINY = {
    "family.channels": "[8, 16]",
    "family.layers_per_block": "1",
    "train.batch_size": "4",
    "engine.precision": "fp32",
    "engine.threads": "1",
    "samples.count": "2",
}
SMALL = (Case("unconditional", "sprites", 8, TINY),)
TIME, MEMORY = 0.20, 0.15
"""How far off may be what is taken, as a share of what was foreseen."""
COLUMNS = (
    *("recipe", "steps", "foreseen", "taken", "ratio", f"within {TIME:.0%}"),
    *("memory foreseen", "at the peak", "ratio", f"within {MEMORY:.0%}", "a step by its shapes"),
)
HEAD = f"| {' | '.join(COLUMNS)} |"

Ask = Callable[[str, Case, Path], dict[str, Any]]
"""What a verb answers."""


def by_command(verb: str, case: Case, folder: Path) -> dict[str, Any]:
    """In a process of its own."""
    words = [f"--{key}={value}" for key, value in case.overrides(folder).items()]
    done = subprocess.run(
        [sys.executable, "-m", "fusain", verb, case.recipe, *words, "--format", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"fusain {verb} {case.recipe} failed")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def here(verb: str, case: Case, folder: Path) -> dict[str, Any]:
    """In this process, which holds much else."""
    ask: Callable[..., Any] = {"plan": planning.plan, "train": actions.train}[verb]
    told: dict[str, Any] = ask(case.recipe, overrides=case.overrides(folder)).as_json()
    return told


def measure(case: Case, folder: Path, ask: Ask) -> str:
    """One row."""
    planned, taken = ask("plan", case, folder), ask("train", case, folder)["outcome"]
    assert taken["seconds_ratio"] is not None, "the run did not find the plan that was made for it"
    assert taken["seconds_compared"] == taken["seconds"], "something was not foreseen"
    cells = [case.recipe, f"{taken['steps']}", f"{taken['seconds_foreseen']:.2f} s", f"{taken['seconds']:.2f} s"]
    cells += judged(taken["seconds_ratio"], TIME)
    cells += [_megabytes(taken["memory_foreseen"]), _megabytes(taken["memory"])]
    cells += judged(taken["memory_ratio"], MEMORY)
    cells += [_megabytes(planned["memory_foreseen"]["peak"])]
    return f"| {' | '.join(cells)} |"


def judged(ratio: float, allowed: float) -> list[str]:
    """A ratio, and in words whether it is near enough to 1."""
    return [f"{ratio:.2f}", "ok" if abs(ratio - 1) <= allowed else "too far"]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def prepare(case: Case, folder: Path) -> None:
    """Draw or write what the case needs beside the sprites."""
    for name, make in MAKERS.items():
        is_needed = name == case.data or any(value.endswith(f"/{name}") for value in case.changes.values())
        if is_needed and not (folder / name).exists():
            make(folder / name)


def _faces(folder: Path) -> None:
    caricatures.write_folder(caricatures.world(120, seed=4), folder)


def _ada(folder: Path) -> None:
    """Eight pictures of one character, without captions."""
    folder.mkdir()
    for number, picture in enumerate(caricatures.portraits("Ada", 8).images):
        Image.fromarray(picture).save(folder / f"{number}.png")


def _ada_masked(folder: Path) -> None:
    """The same with masks beside them."""
    caricatures.write_folder(caricatures.portraits("Ada", 8), folder, with_masks=True)
    (folder / "metadata.jsonl").unlink()


MAKERS = {"faces": _faces, "ada": _ada, "ada-masked": _ada_masked, "base-xl": partial(fresh.write, fresh.TINY_XL)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predictions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipes", nargs="*", help="only these")
    parser.add_argument("--small", action="store_true", help="one tiny network in this process, to see that it works")
    given = parser.parse_args(arguments)
    print(HEAD + "\n" + "|---" * HEAD.count(" |") + "|", flush=True)
    with drawn_world() as folder:
        for case in SMALL if given.small else CASES:
            if not given.recipes or case.recipe in given.recipes:
                prepare(case, folder)
                print(measure(case, folder, here if given.small else by_command), flush=True)


if __name__ == "__main__":
    main()
