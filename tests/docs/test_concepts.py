"""The pictures of the concepts page: each has its drawing in `tests.diagrams`, and is what that draws."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from fusain.generation.samplers import SAMPLERS
from fusain.models.flow import Density
from fusain.models.noise import Betas, Prediction
from fusain.settings.section import Section
from fusain.training.losses import LossSettings
from fusain.training.schedules import ScheduleName
from tests import diagrams
from tests.docs.test_readme import ROOT

ANEW = "make it anew: python -m tests.diagrams"
TEXT = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")


def texts(name: str) -> dict[str, str]:
    """What a picture's file says of itself."""
    with Image.open(diagrams.PICTURES / f"{name}.png") as kept:
        assert isinstance(kept, PngImageFile)
        return dict(kept.text)


def test_every_picture_is_drawn_and_shown() -> None:
    shown = re.findall(r"\]\(pictures/concepts/(\w+)\.png\)", TEXT)
    assert sorted(shown) == sorted(diagrams.ALL) == sorted(path.stem for path in diagrams.PICTURES.glob("*.png"))


@pytest.mark.parametrize("name", [name for name in diagrams.ALL if name not in diagrams.BY_BASE])
def test_pictures_are_what_the_functions_say(name: str) -> None:
    drawn = diagrams.ALL[name]()
    assert texts(name)["shows"] == drawn.info["shows"], ANEW
    with Image.open(diagrams.PICTURES / f"{name}.png") as kept:
        assert kept.size == drawn.size, ANEW
        apart = np.abs(np.asarray(kept.convert("RGB"), np.int16) - np.asarray(drawn, np.int16)).mean()
    assert apart < 1, ANEW


@pytest.mark.parametrize("name", diagrams.BY_BASE)
def test_pictures_are_by_the_base_that_comes_with_fusain(name: str) -> None:
    assert texts(name)["base"] == diagrams.weights_of_base(), ANEW


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


@pytest.mark.parametrize(
    ("name", "there_is"),
    [
        ("samplers", SAMPLERS),
        ("schedules", get_args(ScheduleName)),
        ("betas", get_args(Betas)),
        ("signal", [*get_args(Betas), "zero terminal SNR"]),
        ("predictions", ["what it is given", *(f"asked for {name}" for name in get_args(Prediction))]),
        ("flow_times", [f"{name}, shift {shift}" for name in get_args(Density) for shift in (1, 3)]),
        ("losses", kinds(LossSettings, "kind")),
    ],
)
def test_pictures_show_all_that_there_is(name: str, there_is: Iterable[str]) -> None:
    """By what the kept files say: a new row is missing until its picture is drawn anew."""
    assert texts(name)["shows"].split("\n") == list(there_is), ANEW
