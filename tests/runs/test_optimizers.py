"""Each optimizer in the real loop: stopped and gone on with, it ends in the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fusain.data.loader import held_out_batches
from fusain.runs import actions, assembly
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training import checkpoint
from fusain.training import engine as engines
from fusain.training.held_out import held_out_loss
from tests.runs.faults import refused
from tests.runs.training import assert_equal_runs, final_state, kinds, train_here, write_settings

PARTS = '[{ names = "*.bias", weight_decay = 0 }, { names = "down_blocks", learning_rate = 3e-4 }]'
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adafactor": {},
    "came": {},
    "prodigy": {"train.learning_rate": 1.0, "train.schedule": "cosine_with_restarts"},
    "schedule_free_adamw": {"train.warmup_steps": 2},
    "adamw_8bit": {},
    "pytorch_optimizer.ADOPT": {"train.optimizer_options": "{ betas = [0.8, 0.99] }"},
}
EIGHT = {"train.steps": 8, "checkpoint.every_steps": 4, "train.held_out_every_steps": 4}


def of(name: str) -> dict[str, Any]:
    return EIGHT | {"train.optimizer": name, "train.parts": PARTS} | OPTIMIZERS[name]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_ends_in_the_same_bits(settings: Path, runs: Path, name: str) -> None:
    """And neither drawing nor measuring changes a bit of it, whatever weights they are done with."""
    train_here(settings, "undisturbed", runs, of(name))
    often = of(name) | {"samples.every_steps": 2, "train.held_out_every_steps": 1}
    assert train_here(settings, "stopped", runs, often, report=stop_at_four(runs / "stopped" / "stop")).step == 4
    train_here(settings, "stopped", runs, often, resume="must")
    assert [row["step"] for row in kinds(runs / "stopped", "start")] == [0, 4]
    assert_equal_runs(runs / "undisturbed", runs / "stopped")


@pytest.fixture(scope="module")
def averaging(sprites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose optimizer keeps the average itself."""
    folder = tmp_path_factory.mktemp("averaging")
    train_here(write_settings(folder, sprites), "run", folder, of("schedule_free_adamw"))
    return folder / "run"


def stop_at_four(stop_file: Path) -> Any:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == 4:
            stop_file.touch()

    return stop


def test_samples_come_from_the_average_of_a_schedule_free_optimizer(averaging: Path) -> None:
    """The final weights and those that a checkpoint draws from are the average; those that learn lie beside it."""
    state = final_state(averaging)
    name = next(name for name in state if name.startswith("ema/") and name.endswith("conv_in.weight"))
    assert not torch.equal(state[name], state[name.replace("ema", "trainable")])
    for wanted in (None, "latest"):
        network = actions.open_run("run", checkpoint=wanted, runs_folder=averaging.parent).learner.family.network
        drawn = network.get_parameter(name.removeprefix("ema/")).detach()
        assert torch.equal(drawn, state[name]), wanted


def test_held_out_losses_are_those_of_the_average(averaging: Path) -> None:
    """The last one is measured again, with the weights that were saved."""
    opened = actions.open_run("run", runs_folder=averaging.parent)
    engine = engines.start(opened.settings.engine)
    dataset = assembly.prepare_data(opened.settings, folder=opened.folder, report=None)
    batches = list(held_out_batches(dataset, batch_size=assembly.HELD_OUT_BATCH, limit=assembly.HELD_OUT_IMAGES))
    opened.learner.family.network.eval()
    with torch.no_grad():
        again = held_out_loss(opened.learner.family, opened.learner.method, batches, engine)
    assert kinds(averaging, "held_out")[-1]["loss"] == pytest.approx(again, rel=1e-6)


def test_parts_and_options_reach_the_optimizer(settings: Path, runs: Path) -> None:
    changes = EIGHT | {"train.parts": PARTS, "train.optimizer_options": "{ eps = 1e-6 }"}
    train_here(settings, "run", runs, changes)
    groups = checkpoint.read(max((runs / "run" / "checkpoints").glob("step-*"))).state["optimizer"]["param_groups"]
    paces = {(round(group["factor"], 6), group["weight_decay"], group["eps"]) for group in groups}
    assert paces == {(1.0, 0.0, 1e-6), (1.0, 0.01, 1e-6), (0.3, 0.01, 1e-6)}


def test_an_optimizer_that_is_of_no_use_is_refused_before_anything_is_done(settings: Path, runs: Path) -> None:
    fault = refused(settings, runs, {"train.optimizer": "pytorch_optimizer.LOMO"})
    assert (fault.exit_code, fault.code) == (3, "E-TRAIN-008")
    fault = refused(settings, runs, {"train.optimizer": "paged_adamw"})
    assert (fault.exit_code, fault.code) == (5, "E-ENV-008")
    assert not (runs / "run").exists()


def test_a_misspelt_optimizer(settings: Path, runs: Path) -> None:
    assert str(refused(settings, runs, {"train.optimizer": "prodigi"})).endswith("Do: Did you mean 'prodigy'?")
    assert refused(settings, runs, {"train.optimizer": "torch.optim.SGD"}).code == "E-CFG-004"
    assert refused(settings, runs, {"train.parts": '[{ names = "x" }]'}).code == "E-CFG-006"


def told(**train: Any) -> list[str]:
    text = '[data]\npath = "images"\n[train]\nsteps = 9\n'
    overrides = [(f"train.{key}", str(value)) for key, value in train.items()]
    return [str(notice) for notice in resolve(RunSettings, text=text, overrides=overrides).notices]


def test_unusual_settings_of_optimizers_are_said() -> None:
    assert told(optimizer="prodigy") == [
        "W-TRAIN-005 Prodigy finds the learning rate itself and multiplies it by train.learning_rate = 0.0001; "
        "1 is usual. (train.learning_rate) Set train.learning_rate = 1."
    ]
    assert told(optimizer="prodigy", learning_rate=1) == []
    assert [text[:9] for text in told(learning_rate=1)] == ["W-CFG-001"]
    assert told(optimizer="schedule_free_adamw", schedule="cosine", ema_decay=0.9) == [
        "W-TRAIN-006 A schedule-free optimizer averages its steps in place of a schedule; "
        'train.schedule = "cosine" slows it down besides. (train.schedule) '
        'Leave train.schedule = "constant"; train.warmup_steps is welcome.',
        "W-CFG-002 'train.ema_decay' has no effect in this run: the optimizer keeps an average of its own "
        '(train.optimizer = "schedule_free_adamw"). (--train.ema_decay)',
    ]
    assert told(schedule="cosine", schedule_cycles=5, schedule_power=1.5, schedule_decay=0.1) == [
        f"W-CFG-002 'train.{key}' has no effect in this run: it needs train.schedule = \"{schedule}\", "
        f'which is "cosine". (--train.{key})'
        for key, schedule in (
            ("schedule_cycles", "cosine_with_restarts"),
            ("schedule_power", "polynomial"),
            ("schedule_decay", "warmup_stable_decay"),
        )
    ]
