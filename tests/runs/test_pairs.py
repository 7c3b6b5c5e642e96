"""Every family with every method: what fits is trained, saved, resumed and drawn from; what does not is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusain.data.batch import Batch
from fusain.errors import FusainError
from fusain.generation.generator import Wanted, generate
from fusain.generation.samplers import SamplerSettings
from fusain.models.family import Condition, Facts, Family
from fusain.runs import actions, assembly
from fusain.runs.settings import FAMILIES, METHODS, RunSettings
from fusain.settings.read import resolve
from fusain.training.method import Method
from fusain.worlds import caricatures, sprites
from tests.runs.training import assert_equal_runs, flat, kinds, losses

CLASSES = ("cat", "dog")
PAIRS = [
    (family, method, condition)
    for family in FAMILIES.values()
    for method in METHODS.values()
    for condition in family.conditions()
    if condition in method.needs
]


STEPS = 3


def rate(method: type[Method]) -> float:
    """At which so few steps are seen in what is drawn; one word of a prompt changes little else."""
    return 1.0 if method.kind == "textual_inversion" else 0.02


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
    untaught = drawn(family)
    optimizer = torch.optim.Adam(parameters.values(), lr=rate(method_class))
    for step in range(STEPS):
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
    assert far(untaught, drawn(fresh)), "what is put back draws as if nothing had been learnt"


def far(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images differ by more than rounding ever makes them."""
    return int(np.abs(one.astype(int) - other).max()) > 4


def batch(size: int, step: int) -> Batch:
    draws = np.arange(step * 4, step * 4 + 4)
    pixels = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(step)) * 2 - 1
    return Batch(draws, draws, pixels, torch.ones(4), torch.eye(2)[[0, 1, 0, 1]], ("a <sks>", "b", "c", "d"))


def drawn(family: Family) -> np.ndarray:
    guidance = 4.0 if family.condition == "text" else 1.0
    return image_of(family, {"cat": 1.0}, SamplerSettings(steps=2, guidance=guidance), seed=3)


def image_of(family: Family, label: dict[str, float], sampler: SamplerSettings, *, seed: int) -> np.ndarray:
    prompt = "a <sks>" if family.condition == "text" else None
    wanted = Wanted(seed, label if family.condition == "class" else None, prompt=prompt)
    (image,) = generate(family, [wanted], sampler, chunk=1)
    return image.pixels


DREAMBOOTH = {
    "data.subject.class_word": "face",
    "data.subject.identifier": "sks",
    "data.class_images.count": "4",
    "data.class_images.steps": "2",
    "data.class_images.weight": "1.0",
}
"""Subject images beside class images, which are drawn from the base."""
RUNS = [(*pair, {}) for pair in PAIRS] + [
    (family, method, condition, DREAMBOOTH)
    for family, method, condition in PAIRS
    if condition == "text" and method.kind in ("full", "lora")
]
QUICK = {
    "train.batch_size": "2",
    "train.ema_decay": "0.5",
    "checkpoint.every_steps": "2",
    "samples.every_steps": "0",
    "samples.steps": "2",
    "engine.device": "cpu",
    "engine.precision": "fp32",
    "engine.threads": "1",
}


def title(family: type[Family], method: type[Method], condition: Condition, data: dict[str, str]) -> str:
    return f"{family.kind}-{method.kind}-{condition}{'-dreambooth' if data else ''}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sprites in their five classes, faces with captions, and the bases that families write beside them."""
    folder = tmp_path_factory.mktemp("pairs")
    sprites.write_folder(sprites.world(40, seed=3), folder / "sprites")
    caricatures.write_folder(caricatures.portraits("Ada", 6), folder / "faces")
    return folder


def told(family: type[Family], method: type[Method], condition: Condition, place: Path) -> dict[str, Any]:
    """A pair as settings name it, on data that suits the family."""
    tiny = family.tiny(condition, place / family.kind).model_dump(mode="json", exclude_unset=True)
    of_family = {f"family.{name}": value for name, value in tiny.items()} | {"family.kind": family.kind}
    data = {"data.path": str(place / ("faces" if condition == "text" else "sprites"))}
    word = {"data.captions.trigger_word": "<sks>", "samples.guidance": "4"}
    token = word if method.kind == "textual_inversion" else {}
    shown = {key: one if isinstance(one, str) else json.dumps(one) for key, one in of_family.items()}
    return {**QUICK, **shown, **data, **token, "method.kind": method.kind, "train.learning_rate": str(rate(method))}


@pytest.mark.parametrize(
    ("family_class", "method_class", "condition", "data"), RUNS, ids=[title(*each) for each in RUNS]
)
def test_a_run_of_it_is_resumed_and_drawn_from(
    family_class: type[Family],
    method_class: type[Method],
    condition: Condition,
    data: dict[str, str],
    place: Path,
    tmp_path: Path,
) -> None:
    """Three steps at once and with a stop after the second end in the same bits, and the images are the same."""
    own = told(family_class, method_class, condition, place) | data | {"runs_folder": str(tmp_path)}
    settings = tmp_path / "run.toml"
    settings.write_text("schema_version = 1\n")

    def train(name: str, steps: int) -> Path:
        overrides = [*own.items(), ("train.steps", str(steps))]
        return actions.train(settings, name=name, overrides=overrides).folder

    whole = train("whole", 3)
    assert len(losses(train("stopped", 2))) == 2
    stopped = train("stopped", 3)
    assert [row["step"] for row in kinds(stopped, "start")] == [0, 2]
    assert_equal_runs(whole, stopped)
    steers = {"text": {"prompts": "a <sks>"}, "class": {"labels": ["spell"]}}.get(condition, {})
    images = [actions.generate(run, count=1, runs_folder=tmp_path, **steers).images for run in (whole, stopped)]
    assert np.array_equal(*(flat(paths)[0] for paths in images))
    assert far(untaught(whole), flat(images[0])[0]), "what is drawn is what the run began with"


def untaught(run: Path) -> np.ndarray:
    """The same image of what the run began with."""
    settings = RunSettings.model_validate_json((run / "settings.json").read_text())
    learner = assembly.build_learner(settings, tuple(json.loads((run / "data.lock.json").read_text())["classes"]))
    learner.method.prepare(learner.family)
    return image_of(learner.family, {"spell": 1.0}, settings.samples, seed=0)


UNFIT = [
    (family, method, condition)
    for family in FAMILIES.values()
    for method in METHODS.values()
    for condition in family.conditions()
    if condition not in method.needs
]


def test_those_that_do_not_fit_are_known() -> None:
    assert len(UNFIT) == 6


@pytest.mark.parametrize(
    ("family_class", "method_class", "condition"), UNFIT, ids=[f"{f.kind}-{m.kind}-{c}" for f, m, c in UNFIT]
)
def test_what_does_not_fit_is_refused(
    family_class: type[Family], method_class: type[Method], condition: Condition, place: Path
) -> None:
    own = told(family_class, method_class, condition, place) | {"train.steps": "3"}
    with pytest.raises(FusainError) as caught:
        resolve(RunSettings, overrides=list(own.items()))
    assert str(caught.value) == (
        f"E-CFG-021 The settings do not fit together: method '{method_class.kind}' works with text, "
        f"not with condition '{condition}'.\n"
        "Do: Change one of the two; `fusain explain KEY` says what a setting means."
    )
