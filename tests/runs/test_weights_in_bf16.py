"""All weights may be kept in bf16: steps are rounded by chance, nothing small is lost, and a run goes on to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusain.errors import FusainError
from fusain.models.families.sd import StableDiffusion
from fusain.models.family import Facts
from fusain.runs import actions, measured_step, planning
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training import engine, rounding
from tests.runs.faults import SHORT, warnings
from tests.runs.training import as_overrides, assert_equal_runs, final_state, flat, losses, train_here

NARROW = {"train.fused_backward": True, "engine.weights": "bf16", "engine.precision": "bf16"}


def tiny_sd(folder: Path) -> StableDiffusion:
    return StableDiffusion(StableDiffusion.tiny("text", folder / "base"), Facts())


def test_the_mean_of_many_roundings_is_the_number() -> None:
    torch.manual_seed(0)
    number = torch.tensor([1.001, -3.3e-5, 1e20, 0.0, 257.0 / 256])
    found = torch.stack([rounding.by_chance(number) for _ in range(4000)]).double()
    below, above = found.amin(0), found.amax(0)
    assert found[:, 0].unique().tolist() == [1.0, 1.0078125], "its two neighbours and nothing else"
    error = (found.mean(0) - number.double()).abs()
    assert bool((error <= 4 * (above - below) / 2 / 4000**0.5 + 1e-12).all())
    assert bool((error[:3] < (above - below)[:3] / 30).all())


def test_what_bf16_can_hold_stays_and_so_does_what_is_no_number() -> None:
    held = torch.randn(1000).to(torch.bfloat16)
    assert torch.equal(rounding.by_chance(held.float()), held)
    odd = rounding.by_chance(torch.tensor([float("inf"), -float("inf"), float("nan")]))
    assert odd[:2].tolist() == [float("inf"), -float("inf")]
    assert bool(odd[2].isnan())


@pytest.mark.parametrize("narrow", [False, True])
def test_steps_too_small_to_see_add_up(narrow: bool) -> None:
    """A thousand steps of a thousandth of what bf16 tells apart at 1: to the nearest, none would be taken."""
    weight = torch.nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
    torch.manual_seed(0)
    for _ in range(1000):
        weight.grad = torch.full_like(weight, 2**-17)
        with rounding.in_full(weight) if narrow else torch.no_grad(), torch.no_grad():
            weight.sub_(weight.grad)
        weight.grad = None
    moved = 1 - float(weight.detach().float().mean())
    assert moved == pytest.approx(1000 * 2**-17, rel=0.1) if narrow else moved == 0


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "adafactor", "lion", "muon"])
def test_it_learns_as_in_fp32(settings: Path, runs: Path, name: str) -> None:
    changes = SHORT | {"train.optimizer": name}
    train_here(settings, "full", runs, changes | NARROW | {"engine.weights": "fp32"})
    train_here(settings, "narrow", runs, changes | NARROW)
    state = final_state(runs / "narrow")
    weights = {key: one for key, one in state.items() if key.startswith("trainable")}
    assert {(one.dim() > 1, one.dtype) for one in weights.values()} == {(True, torch.bfloat16), (False, torch.float32)}
    remembered = [one for key, one in state.items() if key.startswith("optimizer") and one.is_floating_point()]
    assert torch.bfloat16 not in {one.dtype for one in remembered}, "only the weights are narrow"
    assert losses(runs / "narrow") == pytest.approx(losses(runs / "full"), rel=0.05)


def test_a_stopped_run_goes_on_to_the_same_bits(settings: Path, runs: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 4:
            (runs / "stopped" / "stop").touch()

    train_here(settings, "undisturbed", runs, SHORT | NARROW)
    assert train_here(settings, "stopped", runs, SHORT | NARROW, report=stop).step == 4
    train_here(settings, "stopped", runs, SHORT | NARROW, resume="must")
    assert_equal_runs(runs / "undisturbed", runs / "stopped")


def test_it_draws_from_what_it_became(settings: Path, runs: Path) -> None:
    train_here(settings, "run", runs, SHORT | NARROW)
    assert actions.generate(runs / "run", count=1, runs_folder=runs).images


def test_samples_are_drawn_while_it_learns(settings: Path, runs: Path) -> None:
    """Narrow weights meet noise and times in full; the last samples are nearly what `generate` draws in fp32."""
    changes = SHORT | NARROW | {"samples.every_steps": 12, "samples.steps": 5}
    run = train_here(settings, "run", runs, changes).folder
    assert "W-SAMPLE-001" not in dict(warnings(run))
    sampled = flat(sorted((run / "samples" / "step-00000012").glob("0*.png")))
    drawn = flat(actions.generate(run, count=1, runs_folder=runs).images)
    apart = np.abs(np.stack(sampled).astype(int) - np.stack(drawn))
    assert apart.mean() < 8, "of 255"


def test_the_step_that_is_measured_has_narrow_weights(
    settings: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = measured_step.make_stepping, {}

    def spied(train: Any, accelerator: Any, optimizer: Any, parameters: Any) -> Any:
        seen.update({name: one.dtype for name, one in parameters.items() if one.dim() > 1})
        return real(train, accelerator, optimizer, parameters)

    monkeypatch.setattr(measured_step, "make_stepping", spied)
    changes = SHORT | NARROW | {"runs_folder": str(runs)}
    assert planning.plan(settings, overrides=as_overrides(changes)).seconds_per_step
    assert set(seen.values()) == {torch.bfloat16}


def test_weights_are_narrow_before_they_lie_on_the_device(tmp_path: Path) -> None:
    """In full XL would not fit on the GPU that it fits on in bf16."""
    model, at_work = (
        tiny_sd(tmp_path),
        engine.start(engine.resolve(engine.EngineSettings(device="cpu", weights="bf16"))),
    )
    learning = {name: one for name, one in model.network.named_parameters() if name.startswith("unet.")}
    elsewhere = replace(at_work, device=torch.device("meta"))
    on_the_way: list[torch.dtype] = []
    real = model.to

    def spied(device: torch.device) -> None:
        on_the_way.extend(one.dtype for one in learning.values() if one.dim() > 1)
        real(device)

    model.to = spied  # type: ignore[method-assign]
    assert elsewhere.brought(model, learning) is learning
    assert set(on_the_way) == {torch.bfloat16}
    assert {one.device.type for one in model.network.parameters()} == {"meta"}


def test_encoders_go_ahead_to_the_device_alone(tmp_path: Path) -> None:
    """While images and captions are encoded, the denoiser takes no room there."""
    model = tiny_sd(tmp_path)
    model.encoders_to(torch.device("meta"))
    assert model.device.type == "meta"
    where = {name.partition(".")[0]: one.device.type for name, one in model.network.named_parameters()}
    assert where == {"unet": "cpu", "text_encoder": "meta"}
    assert {one.device.type for beside in model.beside() for one in beside.parameters()} == {"meta"}


def test_auto_precision_is_bf16_then() -> None:
    wanted = engine.EngineSettings(device="cpu", weights="bf16")
    assert engine.resolve(wanted).precision == "bf16"


@pytest.mark.parametrize(
    ("method", "more", "told"),
    [
        (
            'kind = "full"',
            "[train]\nsteps = 1\n",
            'E-FUSE-007 engine.weights = "bf16" needs train.fused_backward.\nWhere: engine.weights\n'
            "Why: Each weight is brought into fp32 for its own step and rounded by chance afterwards; all at once "
            "would take the room that bf16 saves.\n"
            "Do: Set train.fused_backward = true, or leave engine.weights at fp32.",
        ),
        (
            'kind = "full"',
            'precision = "fp32"\n[train]\nsteps = 1\nfused_backward = true\n',
            'E-FUSE-008 engine.weights = "bf16" needs engine.precision = "bf16", and it is "fp32".\n'
            "Where: engine.weights\nWhy: A layer computes in what its weights are kept in.\n"
            "Do: Use --engine.precision bf16 or auto, or leave engine.weights at fp32.",
        ),
        (
            'kind = "lora"',
            "[train]\nsteps = 1\n",
            "E-CFG-051 Method 'lora' leaves the base as it is, and engine.weights = \"bf16\" is for weights of the "
            "base that learn.\nWhere: engine.weights\nWhy: What it trains is small and stays in fp32.\n"
            "Do: Leave engine.weights at fp32; engine.base_bits = 16 or 8 keeps the base in less room.",
        ),
    ],
)
def test_what_cannot_work_with_it_is_refused(method: str, more: str, told: str) -> None:
    text = f'[data]\npath = "images"\n[family]\nkind = "sd"\nbase = "x"\n[method]\n{method}\n'
    text += f'[engine]\nweights = "bf16"\n{more}'
    with pytest.raises(FusainError) as caught:
        resolve(RunSettings, text=text)
    assert str(caught.value) == told
