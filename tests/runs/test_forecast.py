"""The memory that a plan foresees is that of real steps, part by part."""

from pathlib import Path

import pytest
import torch
from benchmarks import memory

from fusain.runs import assembly, forecast, planning
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve
from fusain.training.averaging import Average
from fusain.training.optimizers import KINDS, bytes_remembered, make_optimizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memory.prepare(tmp_path_factory.mktemp("faces"))


CASES = {
    "mini-sd, all weights": {"engine.gradient_checkpointing": "true"},
    "the same, fused backward": {},
    "mini-sd, LoRA, base in 8 bit": {"train.accumulation": "2"},
    "mini-sdxl, LoRA, base in 4 bit": {"method.targets": "attention"},
    "tiny XL, LoRA, activations recomputed": {},
}


@pytest.mark.parametrize("title", CASES)
def test_it_is_what_the_allocator_hands_out(title: str, folder: Path) -> None:
    """Within 15 %: the benchmark looks at more cases, and at the process as a whole."""
    few = {"train.batch_size": "4"} | CASES[title]
    settings = memory.settings_of(memory.CASES[title] | few, folder)
    assert memory.foreseen(settings) == pytest.approx(memory.measured(settings, "allocated"), rel=0.15)


def test_a_fused_step_needs_less_by_all_gradients_but_two(folder: Path) -> None:
    small = {"train.batch_size": "1", "train.ema_decay": "0"}
    plain, fused = (
        planning.foreseen_memory(settings, assembly.prepare_data(settings, folder=None, report=None))
        for settings in (
            memory.settings_of(memory.MINI | small | {"train.fused_backward": word}, folder)
            for word in ("false", "true")
        )
    )
    assert plain.weights == fused.weights
    assert plain.optimizer == fused.optimizer == 2 * plain.gradients
    assert fused.gradients < plain.gradients / 5
    assert fused.peak < plain.peak


def test_weights_in_bf16_take_half_and_are_foreseen(folder: Path) -> None:
    small = memory.MINI | {"train.batch_size": "4", "train.fused_backward": "true", "engine.precision": "bf16"}
    full, narrow = (
        planning.foreseen_memory(settings, assembly.prepare_data(settings, folder=None, report=None))
        for settings in (memory.settings_of(small | {"engine.weights": kind}, folder) for kind in ("fp32", "bf16"))
    )
    assert narrow.weights == pytest.approx(full.weights / 2, rel=0.05)
    assert narrow.optimizer == full.optimizer, "what it remembers stays in fp32"
    assert narrow.peak < full.peak
    settings = memory.settings_of(small | {"engine.weights": "bf16"}, folder)
    assert narrow.peak == pytest.approx(memory.measured(settings, "allocated"), rel=0.15)


@pytest.mark.parametrize("method", ["full", "lora", "textual-inversion"])
def test_it_is_foreseen_where_the_text_encoder_learns_and_captions_are_hidden(method: str, folder: Path) -> None:
    recipe = {"full": "text-to-image", "lora": "lora"}.get(method, method)
    own = {"data.path": str(folder / "faces"), "family.base": "fusain:mini-sd", "family.size": "64"}
    own |= {"method.condition_dropout": "0.2", "engine.device": "cpu", "engine.precision": "fp32"}
    own |= {"method.text_encoder": "true"} if method != "textual-inversion" else {"method.token": "<who>"}
    settings = resolve(RunSettings, recipe=recipe, overrides=list(own.items())).settings
    found = planning.foreseen_memory(settings, assembly.prepare_data(settings, folder=None, report=None))
    assert found.peak > found.weights > 10e6


def test_counting_forgets_what_is_gone_and_views_count_once() -> None:
    with forecast.Held() as held:
        one = torch.zeros(1000)
        views = [one[:10], one.reshape(10, 100)]
        assert held.now == 4000
        other = one + 1
        assert held.now == 8000
        del other
        assert held.now == 4000
        del one, views
        assert (held.now, held.peak) == (0, 8000)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.on])
def test_what_optimizers_remember_is_known_before(name: str) -> None:
    shapes = {"matrix": (96, 128), "kernel": (64, 32, 3, 3), "bias": (64,)}
    named = {key: torch.nn.Parameter(torch.randn(shape)) for key, shape in shapes.items()}
    optimizer = make_optimizer(name, named, learning_rate=1e-3, weight_decay=0.0)
    for one in named.values():
        one.grad = torch.randn(one.shape)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    expected = bytes_remembered(name, [one.shape for one in named.values()])
    assert sum(storages.values()) == pytest.approx(expected, rel=0.1)


def test_an_average_never_lies_on_a_gpu() -> None:
    """Of weights that pretend to lie on one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        weights = {name: torch.nn.Parameter(torch.empty(4, 4, device="cuda")) for name in ("one", "other")}
        average = Average(weights, 0.9)
        average.update(1)
        assert all(one.device.type == "cuda" for one in weights.values())
        assert [one.device.type for one in average.tensors().values()] == ["cpu", "cpu"]
