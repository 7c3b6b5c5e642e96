"""Each weight moves within the backward pass: the same steps, two gradients at a time, faults that are never saved."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.errors import FusainError
from fusain.models.bases import fresh
from fusain.runs import assembly
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve, resolve_source
from fusain.training import checkpoint, muon
from fusain.training.events import EventLog
from fusain.training.optimizer_trial import check
from fusain.training.optimizers import KINDS, OptimizerSettings
from fusain.training.stopping import StopRequest
from fusain.training.trainer import Trainer
from fusain.worlds.caricatures import world, write_folder
from tests.runs import test_sdxl
from tests.runs.faults import SHORT, refused, replaced
from tests.runs.training import as_overrides, assert_equal_runs, final_state, kinds, losses, train_here, write_settings

FUSED = {"train.fused_backward": True}
WIDE = {"train.clip_norm": 1e6}
"""Clipping that does not bite."""
FIVE = {"train.steps": 5, "checkpoint.every_steps": 5} | WIDE
NOTICE = (
    "W-FUSE-001 Each weight moves within the backward pass, as soon as its gradient is there: in one process, without "
    "accumulation, and train.clip_norm holds for each weight by itself. (train.fused_backward)"
)


@pytest.fixture(scope="module")
def undisturbed(sprites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fused run that each disturbed one must equal."""
    folder = tmp_path_factory.mktemp("fused")
    train_here(write_settings(folder, sprites), "run", folder, SHORT | FUSED)
    return folder / "run"


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of the smallest XL, of which all weights learn."""
    folder = tmp_path_factory.mktemp("fused_xl")
    fresh.write(fresh.TINY_XL, folder / "base")
    write_folder(world(16, seed=4), folder / "faces")
    text = test_sdxl.SETTINGS.format(base=folder / "base", data=folder / "faces")
    (folder / "xl.toml").write_text(text.replace("every_steps = 4", "every_steps = 0"))  # no samples
    return folder / "xl.toml"


def trainer(settings: Path, folder: Path, changes: dict[str, Any]) -> Trainer:
    overrides = as_overrides({"runs_folder": str(folder)} | SHORT | changes)
    resolved = assembly.resolved_engine(resolve_source(RunSettings, settings, overrides).settings)
    run = RunFolder.named(folder, "counted")
    run.create()
    dataset = assembly.prepare_data(resolved, folder=None, report=None)
    return assembly.build_trainer(resolved, run, dataset, EventLog(run.events))


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "adafactor", "lion", "muon"])
def test_five_steps_are_those_of_the_unfused_run(
    settings: Path, runs: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, what the optimizer remembers, the average, and every loss.

    Muon turns its matrices in fp32 here: in bf16, where a processor has it, the last bits of a product hang on how many
    matrices are multiplied together, and a fused step has one at a time.
    """
    monkeypatch.setattr(muon, "has_bf16", lambda kind: False)
    assert_five_steps_agree(settings, runs, {"train.optimizer": name})


def test_five_steps_are_those_of_the_unfused_run_on_xl(xl: Path, runs: Path) -> None:
    """With the optimizer of the recipe for 10 GB, activations computed twice, and both text encoders."""
    changes = {"engine.gradient_checkpointing": True, "method.text_encoder": True, "train.learning_rate": 1e-3}
    assert_five_steps_agree(xl, runs, {"train.optimizer": "adafactor", **changes})


def assert_five_steps_agree(settings: Path, runs: Path, changes: dict[str, Any]) -> None:
    changes = FIVE | {"train.parts": '[{ names = "*.bias", weight_decay = 0 }]'} | changes
    train_here(settings, "plain", runs, changes)
    train_here(settings, "fused", runs, changes | FUSED)
    plain, fused = final_state(runs / "plain"), final_state(runs / "fused")
    weights = [key for key in plain if key.startswith(("trainable", "ema"))]
    assert weights
    assert all(torch.equal(plain[key], fused[key]) for key in weights)
    assert losses(runs / "plain") == losses(runs / "fused")
    told = [[row["norm"] for row in kinds(runs / run, "step")] for run in ("plain", "fused")]
    assert told[1] == pytest.approx(told[0], rel=1e-5), "the whole gradient's length is told in both"


def test_a_stopped_run_goes_on_to_the_same_bits(settings: Path, runs: Path, undisturbed: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 4:
            (runs / "stopped" / "stop").touch()

    assert train_here(settings, "stopped", runs, SHORT | FUSED, report=stop).step == 4
    train_here(settings, "stopped", runs, SHORT | FUSED, resume="must")
    assert_equal_runs(undisturbed, runs / "stopped")


def test_a_run_may_change_over_to_it(settings: Path, runs: Path) -> None:
    """What the optimizer remembers is found again by the names of the weights, whatever its groups are."""
    train_here(settings, "plain", runs, SHORT | WIDE)
    train_here(settings, "run", runs, SHORT | WIDE | {"train.steps": 4})
    train_here(settings, "run", runs, SHORT | WIDE | FUSED, allow_change=["train.fused_backward"])
    plain, changed = final_state(runs / "plain"), final_state(runs / "run")
    weights = [key for key in plain if key.startswith("trainable")]
    assert all(torch.equal(plain[key], changed[key]) for key in weights)


@pytest.mark.parametrize("fused", [False, True])
def test_at_most_two_gradients_live_at_once(settings: Path, runs: Path, fused: bool) -> None:
    assert (live_gradients(settings, runs, {"train.fused_backward": fused}) <= 2) is fused


def test_at_most_two_gradients_of_xl_live_at_once(xl: Path, runs: Path) -> None:
    """Of the UNet and of both text encoders, where activations are computed twice."""
    changes = {"method.text_encoder": True, "engine.gradient_checkpointing": True}
    assert live_gradients(xl, runs, FUSED | changes) <= 2


def live_gradients(settings: Path, runs: Path, changes: dict[str, Any]) -> int:
    """Counted whenever a gradient arrives: those that a weight holds, and all that anything else still holds."""
    made = trainer(settings, runs, {"train.steps": 1, **changes})
    most, arrived = 0, []

    def count(gradient: torch.Tensor) -> None:
        nonlocal most
        arrived.append(weakref.ref(gradient))
        held = [one for one in made._parameters.values() if one.grad is not None]
        most = max(most, len(held) + 1, sum(one() is not None for one in arrived))

    for parameter in made._parameters.values():
        parameter.register_hook(count)
    made.run(StopRequest(runs / "counted" / "stop"))
    assert len(arrived) > 50
    return most


def test_each_weight_is_clipped_by_itself(settings: Path, runs: Path) -> None:
    """With plain gradient descent a weight moves by at most the rate times the longest gradient, each of them."""
    changes = {"train.clip_norm": 0.01, "train.optimizer": "pytorch_optimizer.SGD", "train.weight_decay": 0}
    made = trainer(settings, runs, changes | FUSED | {"train.steps": 1, "train.learning_rate": 0.5})
    before = {name: one.detach().clone() for name, one in made._parameters.items()}
    made.run(StopRequest(runs / "counted" / "stop"))
    moved = {name: float((one.detach() - before[name]).norm()) / 0.5 for name, one in made._parameters.items()}
    assert max(moved.values()) == pytest.approx(0.01, rel=1e-3)
    assert sum(length > 0.0099 for length in moved.values()) > 5, "not the whole gradient, but each"


def test_it_is_said_at_the_start(undisturbed: Path) -> None:
    assert [row["text"] for row in kinds(undisturbed, "warning") if "FUSE" in row["code"]] == [NOTICE]


def test_a_gradient_that_is_no_number_stops_without_saving(settings: Path, runs: Path, undisturbed: Path) -> None:
    """Other weights have moved by then; the run goes on from the checkpoint before, as if nothing had been."""
    real, hooked = Trainer._gradients, []

    def gradients(self: Trainer, micro: Any) -> Any:
        if self.step + 1 == 7 and not hooked:
            parameter = list(self._parameters.values())[3]
            hooked.append(parameter.register_hook(lambda gradient: gradient * float("nan")))
        return real(self, micro)

    with replaced(Trainer, "_gradients", gradients):
        fault = refused(settings, runs, FUSED)
    bundle = json.loads((runs / "run" / "diagnosis.json").read_text())
    assert (bundle["step"], bundle["what"]) == (7, "gradient")
    assert fault.exit_code == 7
    assert str(fault) == (
        f"E-FUSE-005 The gradient of '{bundle['parameter']}' is not finite, and other weights of this step had moved: "
        f"the training stopped without saving. Images in it: {', '.join(bundle['images'])}.\nWhere: step 7\n"
        "Why: A learning rate that is too high, an overflow in half precision, or a broken image makes such numbers.\n"
        "Do: The same command goes on from the last checkpoint, which is good; try --train.learning_rate at a tenth. "
        "diagnosis.json says more."
    )
    assert [checkpoint.read(path).step for path in (runs / "run" / "checkpoints").iterdir()] == [4]
    train_here(settings, "run", runs, SHORT | FUSED)
    assert_equal_runs(undisturbed, runs / "run")


def test_a_loss_that_is_no_number_stops_before_any_weight_moves(settings: Path, runs: Path) -> None:
    made = trainer(settings, runs, FUSED)
    before = {name: one.detach().clone() for name, one in made._parameters.items()}
    real = Trainer._gradients

    def gradients(self: Trainer, micro: Any) -> Any:
        micro[0].pixels_BCHW[0] = float("nan")
        return real(self, micro)

    with replaced(Trainer, "_gradients", gradients), pytest.raises(FusainError) as caught:
        made.run(StopRequest(runs / "counted" / "stop"))
    assert caught.value.code == "E-TRAIN-001"
    assert all(torch.equal(before[name], one) for name, one in made._parameters.items())


def test_what_cannot_work_with_it_is_refused(settings: Path, runs: Path) -> None:
    assert str(refused(settings, runs, FUSED | {"train.accumulation": 2})) == (
        "E-FUSE-001 train.fused_backward needs train.accumulation = 1, and it is 2.\nWhere: train.fused_backward\n"
        "Why: Each weight moves as soon as its gradient is there; gradients of several batches cannot be added up "
        "then.\nDo: Set train.accumulation = 1 and a larger train.batch_size, or leave train.fused_backward off."
    )
    text = '[data]\npath = "images"\n[train]\nsteps = 9\nfused_backward = true\n[engine]\nprecision = "fp16"\n'
    with pytest.raises(FusainError) as caught:
        resolve(RunSettings, text=text)
    assert str(caught.value) == (
        'E-FUSE-002 train.fused_backward does not work with engine.precision = "fp16".\nWhere: train.fused_backward\n'
        "Why: In fp16 a step is taken only once no gradient of it has overflowed, and here weights have moved by "
        "then.\nDo: Use --engine.precision bf16 or fp32, or leave train.fused_backward off."
    )
    assert str(refused(settings, runs, FUSED | {"train.optimizer": "prodigy", "train.learning_rate": 1})) == (
        "E-FUSE-003 train.fused_backward does not work with the optimizer 'prodigy'.\nWhere: train.fused_backward\n"
        "Why: It was tried on a few numbers: a step of all weights together is not what the steps of each by itself "
        "are.\nDo: Use adamw, adamw_8bit, adafactor or lion, or leave train.fused_backward off."
    )
    assert not (runs / "run").exists()


def test_several_processes_are_refused(settings: Path, runs: Path) -> None:
    assert str(refused(settings, runs, FUSED | {"engine.processes": 2})) == (
        "E-FUSE-004 train.fused_backward works in one process, and this run has 2.\nWhere: train.fused_backward\n"
        "Why: Processes take the mean of their gradients before a weight moves.\n"
        "Do: Train in one process, or leave train.fused_backward off."
    )


def works_fused(name: str) -> bool:
    try:
        check(OptimizerSettings(optimizer=name, fused_backward=True), "cpu")
    except FusainError as fault:
        return fault.code != "E-FUSE-003"
    return True


def test_which_optimizers_work_with_it() -> None:
    """Those that go by a distance or an average over all weights do not."""
    known = {name: works_fused(name) for name, kind in KINDS.items() if not kind.on}
    assert {name for name, works in known.items() if not works} == {"prodigy"}
    assert not works_fused("pytorch_optimizer.Prodigy")
    assert works_fused("pytorch_optimizer.ADOPT")
