"""The pictures of the concepts page: each has its drawing in `tests.diagrams`, and is what that draws."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from fusain.generation.samplers import SAMPLERS
from fusain.models.flow import Density
from fusain.models.noise import Betas, Prediction
from fusain.settings.section import Section
from fusain.training.losses import LossSettings
from fusain.training.schedules import ScheduleName
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


PICTURED = {
    **dict.fromkeys(("kind", "huber_delta"), "losses"),
    **dict.fromkeys(("min_snr_gamma", "debiased", "p2_gamma"), "weights"),
    **dict.fromkeys(("noise_offset", "pyramid_discount", "input_perturbation"), "noises"),
    "time_bias": "times",
}
"""The picture of each setting of the loss."""


def kinds(section: type[Section], field: str) -> tuple[str, ...]:
    return get_args(section.model_fields[field].annotation)


def test_every_sampler_loss_and_schedule_is_told() -> None:
    names = [*SAMPLERS, *get_args(ScheduleName), *get_args(Betas), *get_args(Prediction), *get_args(Density)]
    assert [name for name in [*names, *kinds(LossSettings, "kind")] if f"`{name}`" not in TEXT] == []
    assert [name for name in LossSettings.model_fields if f"`method.loss.{name}`" not in TEXT] == []


def test_every_setting_of_the_loss_has_its_picture() -> None:
    assert set(PICTURED) == set(LossSettings.model_fields)
    drawn = {name: inspect.getsource(draw) for name, draw in diagrams.ALL.items()}
    assert [name for name, picture in PICTURED.items() if name not in drawn[picture]] == []


def test_pictures_show_all_that_there_is() -> None:
    """By the tables of the code, so that a new row is in the picture as soon as that is drawn anew."""
    drawn = {name: inspect.getsource(draw) for name, draw in diagrams.ALL.items()}
    of_tables = {"samplers": "SAMPLERS", "schedules": "get_args(ScheduleName)", "betas": "get_args(noise.Betas)"}
    of_tables |= {"predictions": "get_args(noise.Prediction)", "flow_times": "get_args(Density)"}
    assert [name for name, table in of_tables.items() if f"in {table}" not in drawn[name]] == []
