"""The pictures of the concepts page: each has its drawing in `tests.diagrams`, and is what that draws."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from fusain.generation.samplers import SAMPLERS
from tests import diagrams
from tests.docs.test_readme import ROOT

TEXT = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
TRAINED = ("guidance", "samplers")
"""Drawn by the miniature, which takes minutes."""


def test_every_picture_is_drawn_and_shown() -> None:
    shown = re.findall(r"\]\(pictures/concepts/(\w+)\.png\)", TEXT)
    assert sorted(shown) == sorted(diagrams.ALL) == sorted(path.stem for path in diagrams.PICTURES.glob("*.png"))


@pytest.mark.parametrize("name", [name for name in diagrams.ALL if name not in TRAINED])
def test_pictures_are_what_the_functions_say(name: str) -> None:
    drawn = np.asarray(diagrams.ALL[name](), np.int16)
    with Image.open(diagrams.PICTURES / f"{name}.png") as kept:
        assert kept.size == drawn.shape[1::-1], "make it anew: python -m tests.diagrams"
        apart = np.abs(np.asarray(kept.convert("RGB"), np.int16) - drawn).mean()
    assert apart < 1, "make it anew: python -m tests.diagrams"


def test_every_sampler_loss_and_schedule_is_told() -> None:
    names = [*SAMPLERS, "constant", "linear", "cosine_with_restarts", "polynomial", "rex", "warmup_stable_decay"]
    assert [name for name in [*names, "l2", "l1", "huber", "epsilon", "v", "sample"] if f"`{name}`" not in TEXT] == []
