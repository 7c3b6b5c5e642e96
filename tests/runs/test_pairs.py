"""Every family with every method that fits it: two steps, saved, attached to a fresh one and drawn from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fusain.data.batch import Batch
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models.family import Condition, Facts, Family
from fusain.runs.settings import FAMILIES, METHODS
from fusain.training.method import Method

CLASSES = ("cat", "dog")
PAIRS = [
    (family, method, condition)
    for family in FAMILIES.values()
    for method in METHODS.values()
    for condition in family.conditions()
    if condition in method.needs
]


def test_the_plug_folders_hold_what_we_know() -> None:
    assert (sorted(FAMILIES), sorted(METHODS), len(PAIRS)) == (
        ["pixel", "sd", "sd3", "sdxl"],
        ["autoencoder", "full", "lora", "textual_inversion"],
        14,
    )


@pytest.mark.parametrize(
    ("family_class", "method_class", "condition"), PAIRS, ids=[f"{f.kind}-{m.kind}-{c}" for f, m, c in PAIRS]
)
def test_pair(family_class: type[Family], method_class: type[Method], condition: Condition, tmp_path: Path) -> None:
    settings = family_class.tiny(condition, tmp_path / "base")
    family, method = family_class(settings, Facts(CLASSES)), method_class(method_class.Settings())
    family.network.train()
    parameters = method.prepare(family)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    for step in range(2):
        method.loss(family, batch(settings.size, step), seed=0).value.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert any(not torch.equal(before[name], parameter) for name, parameter in parameters.items()), "nothing learnt"
    method.save(family, tmp_path / "weights")
    fresh = family_class(settings, Facts(CLASSES))
    method_class(method_class.Settings()).attach(fresh, tmp_path / "weights")
    apart = np.abs(drawn(family).astype(int) - drawn(fresh).astype(int))
    assert apart.max() <= 1, "what is put into the weights may round one number otherwise"
    assert apart.mean() < 1e-3


def batch(size: int, step: int) -> Batch:
    draws = np.arange(step * 4, step * 4 + 4)
    pixels = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(step)) * 2 - 1
    return Batch(draws, draws, pixels, torch.ones(4), torch.eye(2)[[0, 1, 0, 1]], ("a <sks>", "b", "c", "d"))


def drawn(family: Family) -> np.ndarray:
    label = {"cat": 1.0} if family.condition == "class" else None
    wanted = Wanted(3, label, prompt="a <sks>" if family.condition == "text" else None)
    (image,) = generate(family, [wanted], SamplerSettings(steps=2), chunk=1)
    return image.pixels
