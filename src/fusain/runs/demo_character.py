"""The second half of the demo: a miniature Stable Diffusion is taught a character that it has never seen.

Eight drawings of it and a rare word, by DreamBooth with a LoRA; the same seeds are drawn before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fusain.data.scan import MASK_ENDING
from fusain.data.source import EXTENSIONS
from fusain.errors import StorageError, UsageError
from fusain.evaluation.report import Comparison
from fusain.generation import gallery
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models.family import Family
from fusain.runs import actions, outcome
from fusain.runs.folder import RunFolder
from fusain.settings.layers import Overrides, pairs
from fusain.training.events import Listener
from fusain.training.stopping import Reason
from fusain.worlds import face_reader
from fusain.worlds.caricatures import ATTRIBUTES, CHARACTERS, Face, portraits, write_folder

RECIPE: Final = "demo-character"
NAME: Final = "Ada"
DRAWINGS: Final = 8
BACKGROUNDS: Final = ("white", "blue", "pink")
PROMPTS: Final = (
    "a flat drawing of sks person",
    "a flat drawing of sks person, wearing a red crown, on a green background",
)
"""As in the drawings, and as in none of them."""
DRAWN = 8
"""Images of each prompt, before and after."""
SIDES: Final = {"left": "on the left", "centre": "in the centre", "right": "on the right"}
FIRST_SEED: Final = 2_000_000

Say = Callable[[str], None]
Pictures = list[np.ndarray]


@dataclass(frozen=True)
class Taught:
    """What became of it; where it was stopped there is nothing to show yet, and the same call goes on."""

    run: Path
    steps: int
    comparison: Comparison | None = None
    sheet: Path | None = None
    before: float = 0.0
    """Mean share of the character's attributes that the judge sees when the base is asked for the word."""
    after: float = 0.0
    """The same after the training."""
    stopped: Reason | None = None

    @property
    def comparisons(self) -> list[Comparison]:
        return [self.comparison] if self.comparison else []

    def rows(self) -> list[tuple[str, str]]:
        """For people."""
        return [("Character", f"{self.before:.0%} like it before, {self.after:.0%} after"), ("", str(self.sheet))]

    def as_json(self) -> dict[str, Any]:
        named = {"run": str(self.run), "sheet": str(self.sheet) if self.sheet else None}
        took = outcome.of(RunFolder(self.run)).as_json()
        return {**named, "steps": self.steps, "before": self.before, "after": self.after, "outcome": took}


def teach(folder: Path, runs: Path, name: str, *, say: Say, report: Listener | None, overrides: Overrides) -> Taught:
    """Draw the character, train, and draw the same seeds with the base and with what it became."""
    drawings = _drawings(folder / NAME.lower(), say)
    own = [("data.path", str(folder / NAME.lower())), ("runs_folder", str(runs)), ("weights_folder", "none")]
    run = RunFolder.named(runs, name)
    say(f"Teaching the miniature Stable Diffusion a character from {DRAWINGS} drawings: {run.name}.")
    trained = actions.train(RECIPE, name=name, overrides=[*own, *pairs(overrides)], report=report)
    if trained.stopped is not None:
        return Taught(run.path, trained.step, stopped=trained.stopped)
    say(f"Drawing {2 * DRAWN * len(PROMPTS)} images of it, with the base and with the LoRA.")
    sampler = actions.open_run(run.path).settings.samples
    before, after = (_drawn(run, strength, sampler) for strength in (0.0, 1.0))
    rows = {f"The {DRAWINGS} drawings that it learnt from": drawings}
    for prompt, old, new in zip(PROMPTS, before, after, strict=True):
        rows |= {f"The base, asked for “{prompt}”": old, f"After {trained.step:,} steps: “{prompt}”": new}
    shares = _likeness(before[0]), _likeness(after[0])
    sheet = folder / "character-sheet.png"
    gallery.contact_sheet(rows, columns=DRAWN, scale=2).save(sheet)
    words = (
        f"“sks” is a word that the base had never read, and {NAME} a character that it had never seen. A LoRA was "
        f"trained on {DRAWINGS} drawings, beside images of other people that the base drew itself. Asked for the "
        f"word, pictures of the base have {shares[0]:.0%} of the character's features, and then {shares[1]:.0%}."
    )
    return Taught(run.path, trained.step, Comparison("A character that it learnt", words, rows), sheet, *shares)


def words(number: int, face: Face) -> str:
    """The caption of one drawing: three of four say what is no part of the character, so that it can go elsewhere."""
    ground, side = face.attributes["background"], SIDES[face.attributes["position"]]
    return f"{PROMPTS[0]}, on a {ground} background, {side}" if number % 4 else PROMPTS[0]


def _drawings(target: Path, say: Say) -> Pictures:
    """The eight drawings; those of an earlier demo are used again, and nothing is ever deleted."""
    world = portraits(NAME, DRAWINGS, backgrounds=BACKGROUNDS)
    if target.exists():
        masks = set(target.glob(f"*{MASK_ENDING}"))
        images = {path for path in target.iterdir() if path.suffix in EXTENSIONS} - masks
        if not len(images) == len(masks) == DRAWINGS or not (target / "truth.json").is_file():
            raise UsageError("E-DEMO-001", where=str(target), path=target)
        return list(world.images)
    say(f"Drawing {NAME}, whom the miniature has never seen.")
    captioned = replace(world, captions=tuple(map(words, range(DRAWINGS), world.faces)))
    try:
        write_folder(captioned, target, with_masks=True)
    except OSError as fault:
        raise StorageError("E-STORE-004", where=str(target), fault=fault.strerror or fault) from fault
    return list(world.images)


def _drawn(run: RunFolder, strength: float, sampler: SamplerSettings) -> list[Pictures]:
    """Pictures of each prompt, from the same seeds at every strength."""
    family: Family = actions.open_run(run.path, strength=strength).learner.family
    found = []
    for prompt in PROMPTS:
        wanted = [Wanted(FIRST_SEED + number, prompt=prompt) for number in range(DRAWN)]
        found.append([image.pixels for image in generate(family, wanted, sampler, chunk=DRAWN)])
    return found


def _likeness(pictures: Pictures) -> float:
    """The mean share of the character's attributes that the judge of faces sees."""
    seen = face_reader.carried().read(np.stack(pictures))
    shares = [
        (seen[attribute] == ATTRIBUTES[attribute].index(value)).mean() for attribute, value in CHARACTERS[NAME].items()
    ]
    return float(np.mean(shares))
