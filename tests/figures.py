"""Draws the pictures of faces in the documentation, and of what a model learnt: `python -m tests.figures [BASE]`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusain.generation import gallery
from fusain.generation.generator import Wanted, generate
from fusain.models.bases.opening import lies_at
from fusain.models.family import Family
from fusain.runs import actions, pretraining
from fusain.runs import demo_character as demo
from fusain.worlds.caricatures import STYLES, world
from fusain.worlds.mini.miniature import MINI_SDXL
from tests.prove import style, subjects

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PROMPTS = (
    "a person with grey hair in a bun, wearing round glasses",
    "a chalk drawing of someone with a full red beard, wearing a blue top hat",
    "an ink drawing of someone with green skin and pointed ears, on a yellow background",
    "a caricature of a character with curly black hair and a big nose, wearing a crown",
)
COLUMNS = 10


def drawn_faces() -> None:
    """What the world draws in each style."""
    _save({style: list(world(COLUMNS, seed=1, styles=[style]).images) for style in STYLES}, "caricatures.png")


def mini_sd(base: str) -> None:
    """What the miniature makes of captions; the first seeds, none picked."""
    _save(_prompted(style.bare(base)), "mini-sd.png")


def mini_sdxl(base: str = f"fusain:{MINI_SDXL.name}") -> None:
    """The same captions and seeds from the miniature of XL, and what it makes of sizes and crops."""
    _save(_prompted(style.bare(base, MINI_SDXL.kind)), "mini-sdxl.png")
    pretraining.framings_sheet(MINI_SDXL, lies_at(base)).save(PICTURES / "framings.png")


def _prompted(family: Family) -> dict[str, list[np.ndarray]]:
    return {prompt: _drawn(family, [Wanted(seed, prompt=prompt) for seed in range(COLUMNS)]) for prompt in PROMPTS}


def taught_style(base: str) -> None:
    """The same captions and seeds before and after a training on the style that was kept back."""
    asked = world(COLUMNS, seed=12, styles=[style.STYLE], combinations="kept out")
    wanted = [Wanted(seed, prompt=caption) for seed, caption in enumerate(asked.captions)]
    with tempfile.TemporaryDirectory() as folder:
        bases = {"before": base, "after": str(style.taught(Path(folder), seed=1, base=base))}
        families = {title: style.bare(base) for title, base in bases.items()}
    rows = {title: _drawn(family, wanted) for title, family in families.items()}
    _save(rows | {"drawings of the same captions": list(asked.images)}, "style.png")


def taught_character(base: str) -> None:
    """One character learnt from eight drawings, where it never was, and the class with and without class images."""
    name, seeds = subjects.NAMES[0], range(COLUMNS)
    rows = {f"the eight drawings of {name}": list(subjects.drawings(name, 1).images)}
    rows[f"the base: {subjects.CLASS}"] = _of(style.bare(base), [subjects.CLASS], seeds)
    for title, weight in (("with class images", 1.0), ("without class images", 0.0)):
        with tempfile.TemporaryDirectory() as folder:
            changes = {"data.class_images.weight": weight}
            run = subjects.taught(Path(folder), name, seed=1, base=base, **changes).folder
            family = actions.open_run(run).learner.family
        if weight:
            endings = [f"{subjects.SUBJECT}, {ending}" for ending in subjects.ELSEWHERE]
            rows[f"after the training: {subjects.SUBJECT}"] = _of(family, [subjects.SUBJECT], seeds)
            rows[f"the same, {', '.join(list(subjects.ELSEWHERE)[::2])}"] = _of(family, endings[::2], seeds)
        rows[f"{title}: {subjects.CLASS}"] = _of(family, [subjects.CLASS], seeds)
    _save(rows, "dreambooth.png")


def demo_character() -> None:
    """What the second half of the demo shows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taught = demo.teach(folder, folder / "runs", "character", say=print, report=None, overrides={})
        assert taught.sheet is not None
        shutil.copy(taught.sheet, PICTURES / "demo-character.png")


def _of(family: Family, prompts: Sequence[str], seeds: Sequence[int]) -> list[np.ndarray]:
    wanted = [Wanted(seed, prompt=prompts[seed % len(prompts)]) for seed in seeds]
    return _drawn(family, wanted)


def _drawn(family: Family, wanted: list[Wanted]) -> list[np.ndarray]:
    return [one.pixels for one in generate(family, wanted, style.DRAWING, chunk=COLUMNS)]


def _save(rows: dict[str, list[np.ndarray]], name: str) -> None:
    gallery.contact_sheet(rows, columns=COLUMNS).save(PICTURES / name)


if __name__ == "__main__":
    base = sys.argv[1] if len(sys.argv) > 1 else style.BASE
    drawn_faces()
    mini_sd(base)
    mini_sdxl()
    taught_style(base)
    taught_character(base)
    demo_character()
