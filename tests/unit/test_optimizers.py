"""Optimizers and averages against their formulas, by themselves and in groups; what is refused."""

import json
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from fusain.errors import EnvironmentFault, FusainError, SettingsError
from fusain.training import optimizer_memory, optimizer_trial
from fusain.training.averaging import Average, make_average
from fusain.training.lion import Lion
from fusain.training.muon import Muon
from fusain.training.optimizers import KINDS, OptimizerSettings, kind_of, make_optimizer, require
from fusain.training.paces import PartSettings, covers

HERE = [name for name, kind in KINDS.items() if not kind.on]
"""The optimizers that run on a CPU."""
RATES = {"prodigy": 1.0, "muon": 0.05}


def test_lion_follows_its_algorithm() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Lion([weight], lr=0.1, weight_decay=0.5, betas=(0.9, 0.99))
    momentum, by_hand = torch.zeros(2), torch.tensor([1.0, -2.0])
    for gradient in (torch.tensor([0.5, -1.0]), torch.tensor([-3.0, 0.2])):
        weight.grad = gradient.clone()
        optimizer.step()
        by_hand = by_hand * (1 - 0.1 * 0.5) - 0.1 * torch.sign(0.9 * momentum + 0.1 * gradient)
        momentum = 0.99 * momentum + 0.01 * gradient
        torch.testing.assert_close(weight.detach(), by_hand)


def test_muon_steps_along_orthogonal_matrices() -> None:
    """All directions of a matrix count alike, wide, tall or a convolution; vectors and embeddings learn by AdamW."""
    torch.manual_seed(0)
    shapes = {"wide": (4, 6), "tall": (6, 4), "kernel": (4, 3, 3, 3), "bias": (5,), "token_embedding.weight": (7, 3)}
    named = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    alone = {name: torch.nn.Parameter(named[name].detach().clone()) for name in ("bias", "token_embedding.weight")}
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    muon = Muon(named, lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW(alone.values(), lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    gradients = {name: torch.randn(shape) for name, shape in shapes.items()}
    for group in (named, alone):
        for name, parameter in group.items():
            parameter.grad = gradients[name].clone()
    muon.step()
    adamw.step()
    for name in alone:
        torch.testing.assert_close(named[name], alone[name])
    for name in ("wide", "tall", "kernel"):
        moved = (before[name] * (1 - 0.01 * 0.1) - named[name].detach()).flatten(1)
        lengths = torch.linalg.svdvals(moved / (0.01 * 0.2 * max(moved.shape) ** 0.5))
        assert lengths.min() > 0.6, name
        assert lengths.max() < 1.3, name
        assert (moved * gradients[name].flatten(1)).sum() > 0, name


def weights() -> dict[str, torch.nn.Parameter]:
    """Matrices large enough for 8 bit, a convolution and vectors, in two parts."""
    torch.manual_seed(0)
    shapes = {"weight": (64, 80), "kernel.weight": (6, 4, 3, 3), "bias": (7,)}
    named = {f"{part}.{name}": torch.randn(shape) for part in ("one", "other") for name, shape in shapes.items()}
    return {name: torch.nn.Parameter(values) for name, values in named.items()}


def trained(optimizer: Any, named: dict[str, torch.nn.Parameter], steps: range, rate: float) -> None:
    """Towards ones, with noise that is a function of the step; the rate is set as the loop sets it."""
    for step in steps:
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        for parameter in named.values():
            parameter.grad = parameter.detach() - 1 + 0.1 * torch.randn(parameter.shape)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def distance(named: dict[str, torch.nn.Parameter], part: str = "") -> float:
    return sum(float((one.detach() - 1).square().sum()) for name, one in named.items() if name.startswith(part))


@pytest.mark.parametrize("name", [*HERE, "pytorch_optimizer.ADOPT"])
def test_every_optimizer_goes_downhill(name: str) -> None:
    named, rate = weights(), RATES.get(name, 0.02)
    before, optimizer = distance(named), make_optimizer(name, named, learning_rate=rate, weight_decay=0.0)
    trained(optimizer, named, range(200), rate)
    average = make_average(optimizer, named, 0.0)
    tensors = named if average is None else average.tensors()
    assert distance(tensors) < 0.4 * before


@pytest.mark.parametrize("name", HERE)
def test_every_optimizer_has_groups_of_their_own_pace(name: str) -> None:
    """Twins of which one learns at a quarter of the rate; and weight decay where nothing pulls."""
    rate = RATES.get(name, 1e-3)
    named = weights() | {"still.weight": torch.nn.Parameter(torch.ones(64, 80))}
    for parameter in list(named):
        if parameter.startswith("other."):
            named[parameter] = torch.nn.Parameter(named[parameter.replace("other", "one")].detach().clone())
    before = {key: one.detach().clone() for key, one in named.items()}
    parts = [
        PartSettings(names="other", learning_rate=rate / 4),
        PartSettings(names="still", weight_decay=0.5),
    ]
    optimizer = make_optimizer(name, named, learning_rate=rate, weight_decay=0.0, parts=parts)
    steps = 1 if name == "prodigy" else 3  # its steps begin at almost nothing, and grow with the weights moved
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        for key, parameter in named.items():
            torch.manual_seed(step)
            is_still = key.startswith("still")
            parameter.grad = torch.zeros(parameter.shape) if is_still else torch.randn(parameter.shape)
        optimizer.step()
    for key in ("weight", "kernel.weight", "bias"):
        moved, slower = (
            float((named[f"{part}.{key}"].detach() - before[f"{part}.{key}"]).norm()) for part in ("one", "other")
        )
        assert slower == pytest.approx(moved / 4, rel=0.02 if name != "prodigy" else 0.2), key
    assert named["still.weight"].max() < 1, "its weight decay"


@pytest.mark.parametrize("name", [*HERE, "pytorch_optimizer.ADOPT", "pytorch_optimizer.Shampoo"])
def test_every_memory_comes_back_to_the_last_bit(name: str) -> None:
    """Through the bytes and the JSON of a checkpoint, with groups, and where the groups are other ones than before."""
    rate = RATES.get(name, 0.01)
    parts = [PartSettings(names="kernel", learning_rate=rate / 4), PartSettings(names="bias", weight_decay=0)]

    def made(named: dict[str, torch.nn.Parameter], parts: Any = parts) -> Any:
        return make_optimizer(name, named, learning_rate=rate, weight_decay=0.1, parts=parts)

    straight = weights()
    optimizer = made(straight)
    trained(optimizer, straight, range(5), rate)
    tensors, rest = optimizer_memory.flatten(optimizer, straight)
    stored, told = save({key: one.contiguous() for key, one in tensors.items()}), json.dumps(rest)

    def read() -> dict[str, torch.Tensor]:
        return {key: one.clone() for key, one in load(stored).items()}  # which are views of the bytes

    resumed = {key: torch.nn.Parameter(one.detach().clone()) for key, one in straight.items()}
    second = made(resumed)
    optimizer_memory.restore(second, resumed, read(), json.loads(told))
    again, _ = optimizer_memory.flatten(second, resumed)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) and again[key].dtype == tensors[key].dtype for key in tensors)
    trained(optimizer, straight, range(5, 12), rate)
    trained(second, resumed, range(5, 12), rate)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)

    assert rest["names"] != list(straight), "groups have an order of their own"
    regrouped = made(resumed, parts=())
    optimizer_memory.restore(regrouped, resumed, read(), json.loads(told))
    by_name = {id(one): key for key, one in resumed.items()}
    for number, key in enumerate(rest["names"]):
        kept = {name: tensor for name, tensor in read().items() if name.startswith(f"{number}.")}
        now = next(state for one, state in regrouped.state.items() if by_name[id(one)] == key)
        assert all(torch.equal(now[name.split(".")[1]], tensor) for name, tensor in kept.items() if name.count(".") < 2)


def test_a_checkpoint_of_before_is_read() -> None:
    """Those that name no parameters: by their order."""
    named = weights()
    optimizer = make_optimizer("adamw", named, learning_rate=0.1, weight_decay=0.1)
    trained(optimizer, named, range(3), 0.1)
    tensors, rest = optimizer_memory.flatten(optimizer, named)
    del rest["names"]
    fresh = make_optimizer("adamw", named, learning_rate=0.1, weight_decay=0.1)
    optimizer_memory.restore(fresh, named, tensors, rest)
    assert all(torch.equal(fresh.state[one]["exp_avg"], optimizer.state[one]["exp_avg"]) for one in named.values())


def test_settings_of_today_hold_after_a_resume() -> None:
    named = weights()
    optimizer = make_optimizer("adamw", named, learning_rate=0.1, weight_decay=0.1)
    trained(optimizer, named, range(3), 0.1)
    memory = optimizer_memory.flatten(optimizer, named)
    fresh = make_optimizer("adamw", named, learning_rate=0.1, weight_decay=0.5, options={"betas": [0.5, 0.6]})
    optimizer_memory.restore(fresh, named, *memory)
    (group,) = fresh.param_groups
    assert (group["weight_decay"], group["betas"]) == (0.5, (0.5, 0.6))


def test_adafactor_is_that_of_its_authors() -> None:
    """Shazeer and Stern 2018, algorithm 4 with the rate given: rows and columns in place of squares."""
    named = {"weight": torch.nn.Parameter(torch.zeros(3, 4))}
    torch.manual_seed(0)
    gradient = torch.randn(3, 4)
    named["weight"].grad = gradient.clone()
    make_optimizer("adafactor", named, learning_rate=0.1, weight_decay=0.0).step()
    squares = gradient**2 + 1e-30
    update = gradient / (squares.mean(1, keepdim=True) * squares.mean(0, keepdim=True) / squares.mean()).sqrt()
    update /= max(1.0, float(update.square().mean().sqrt()))
    torch.testing.assert_close(named["weight"].detach(), -0.1 * update)


def test_schedule_free_average_is_the_mean_of_all_steps() -> None:
    """Defazio et al. 2024: samples come from the mean of the points z; the weights that learn lie beside it."""
    named = {"weight": torch.nn.Parameter(torch.tensor([[3.0, -2.0]]))}
    optimizer = make_optimizer("schedule_free_adamw", named, learning_rate=0.1, weight_decay=0.0)
    average = make_average(optimizer, named, 0.999)
    assert average is not None
    points = []
    for step in range(6):
        trained(optimizer, named, range(step, step + 1), 0.1)
        points.append(optimizer.state[named["weight"]]["z"].clone())
    before = named["weight"].detach().clone()
    mean = torch.stack(points).mean(0)
    torch.testing.assert_close(average.tensors()["weight"], mean)
    with average.in_place():
        torch.testing.assert_close(named["weight"].detach(), mean)
    assert torch.equal(named["weight"], before)
    torch.testing.assert_close(before, 0.9 * mean + 0.1 * points[-1])


def test_prodigy_finds_a_rate() -> None:
    """From a millionth it grows until the steps are as long as the way asks; one distance counts for all groups."""
    named = weights()
    parts = [PartSettings(names="other", learning_rate=0.5)]
    optimizer = make_optimizer("prodigy", named, learning_rate=1.0, weight_decay=0.0, parts=parts)
    trained(optimizer, named, range(60), 1.0)
    distances = {group["d"] for group in optimizer.param_groups}
    assert len(distances) == 1
    assert 1e-3 < distances.pop() < 1


def test_names_of_parts() -> None:
    name = "unet.up_blocks.1.attentions.0.to_q.lora_A.weight"
    assert all(covers(pattern, name) for pattern in (name, "unet", "to_q", "up_blocks.1", "*.weight", "up_*.to_q"))
    assert not any(covers(pattern, name) for pattern in ("net", "to", "weight.*", "up_blocks.0", "down*"))


def test_the_first_part_that_covers_a_parameter_counts() -> None:
    named = weights()
    parts = [
        PartSettings(names="one.bias", learning_rate=0.02),
        PartSettings(names="one", learning_rate=0.4, weight_decay=0.3),
        PartSettings(names="*.bias", weight_decay=0.0),
    ]
    optimizer = make_optimizer("adamw", named, {"one.weight": 8.0}, learning_rate=0.1, weight_decay=0.1, parts=parts)
    by_name = {id(parameter): name for name, parameter in named.items()}
    found = {
        by_name[id(parameter)]: (round(group["factor"], 9), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "one.weight": (32.0, 0.3),
        "one.kernel.weight": (4.0, 0.3),
        "one.bias": (0.2, 0.1),
        "other.weight": (1.0, 0.1),
        "other.kernel.weight": (1.0, 0.1),
        "other.bias": (1.0, 0.0),
    }


def refused(name: str, **more: Any) -> FusainError:
    with pytest.raises(FusainError) as caught:
        optimizer_trial.check(OptimizerSettings(optimizer=name, **more), "cpu")
    return caught.value


def test_a_part_that_covers_nothing_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        make_optimizer(
            "adamw", weights(), learning_rate=1.0, weight_decay=0, parts=[PartSettings(names="kernal", weight_decay=0)]
        )
    assert str(caught.value) == (
        "E-TRAIN-004 No parameter that learns has 'kernal' in its name.\n"
        "Where: train.parts[0].names\n"
        "Do: Did you mean 'kernel'? A pattern covers a stretch of the name between dots; * stands for anything."
    )


def test_an_unknown_optimizer_of_another_package_is_refused() -> None:
    assert str(refused("pytorch_optimizer.Lionn")) == (
        "E-TRAIN-005 'pytorch_optimizer.Lionn' is no optimizer of pytorch_optimizer.\n"
        "Where: train.optimizer\n"
        "Do: Did you mean 'pytorch_optimizer.Lion'?"
    )


def test_options_are_checked() -> None:
    assert str(refused("lion", optimizer_options={"beta": [0.9, 0.99]})) == (
        "E-TRAIN-006 lion has no option 'beta'.\n"
        "Where: train.optimizer_options\n"
        "Why: Its options are betas; the learning rate and weight decay are settings of their own.\n"
        "Do: Did you mean 'betas'?"
    )
    assert refused("adamw", optimizer_options={"lr": 1}).code == "E-TRAIN-006"
    assert str(refused("adamw", optimizer_options={"betas": [0.9, 2.0]})) == (
        "E-TRAIN-007 adamw cannot be made with fused = True, betas = (0.9, 2.0): "
        "Invalid beta parameter at index 1: 2.0.\n"
        "Where: train.optimizer_options\n"
        "Do: Change train.optimizer_options."
    )


def test_optimizers_that_want_more_than_gradients_are_refused() -> None:
    assert str(refused("pytorch_optimizer.AdaLOMO")) == (
        "E-TRAIN-008 pytorch_optimizer.AdaLOMO cannot train here: "
        "AttributeError: 'list' object has no attribute 'named_parameters'.\n"
        "Where: train.optimizer\n"
        "Why: The training loop hands an optimizer parameters and their gradients, and nothing else; some need more.\n"
        "Do: Use another one; which to choose is told in docs/how-to/optimizers.md."
    )


@pytest.mark.parametrize("name", ["MADGRAD", "AdaShift"])
def test_optimizers_that_do_not_resume_are_refused(name: str) -> None:
    """One that keeps numbers out of its state, and one whose state has no place in a checkpoint."""
    assert str(refused(f"pytorch_optimizer.{name}")) == (
        f"E-TRAIN-009 pytorch_optimizer.{name} cannot be stopped and resumed without a change of its result.\n"
        "Where: train.optimizer\n"
        "Why: It was tried on a few numbers: saved after some steps and loaded, it could not be put back as it was.\n"
        "Do: Use another one, or other options of it; which to choose is told in docs/how-to/optimizers.md."
    )


@pytest.mark.parametrize("name", ["ADOPT", "AdEMAMix", "DAdaptAdam", "Lion", "ScheduleFreeRAdam", "Shampoo"])
def test_optimizers_of_another_package_are_tried(name: str) -> None:
    optimizer_trial.check(OptimizerSettings(optimizer=f"pytorch_optimizer.{name}"), "cpu")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("prodigy", "pytorch_optimizer", "optimizers"),
        ("came", "pytorch_optimizer", "optimizers"),
        ("pytorch_optimizer.Lion", "pytorch_optimizer", "optimizers"),
        ("adamw_8bit", "bitsandbytes", "gpu"),
    ],
)
def test_a_missing_package_is_said(name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python has it where nothing is to be found
    with pytest.raises(EnvironmentFault) as caught:
        require(name, "cpu")
    assert str(caught.value) == (
        f"E-ENV-007 The optimizer '{name}' needs the package {package}, which is not installed.\n"
        "Where: train.optimizer\n"
        f"Do: pip install 'fusain[{extra}]', or use adamw."
    )


@pytest.mark.parametrize("name", ["paged_adamw", "paged_adamw_8bit"])
def test_paged_optimizers_need_a_gpu(name: str) -> None:
    assert str(refused(name)) == (
        f"E-ENV-008 The optimizer '{name}' runs on an NVIDIA GPU only; this run is on cpu.\n"
        "Where: train.optimizer\n"
        "Why: It moves its memory between a GPU and the machine, page by page.\n"
        "Do: Use adamw, or adamw_8bit, which runs there too."
    )


@pytest.mark.parametrize("name", HERE)
def test_the_table_knows_what_each_keeps(name: str) -> None:
    """At most so many numbers for each weight of matrices and small convolutions."""
    named = {
        "weight": torch.nn.Parameter(torch.randn(128, 256)),
        "kernel": torch.nn.Parameter(torch.randn(64, 64, 3, 3)),
    }
    optimizer = make_optimizer(name, named, learning_rate=0.1, weight_decay=0.0)
    trained(optimizer, named, range(1), 0.1)
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    assert kept / 4 / sum(one.numel() for one in named.values()) <= kind_of(name).states * 1.01


def test_average_warms_up_and_gives_back() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    average = Average({"w": weight}, decay=0.9)
    by_hand = 0.0
    for step in range(1, 30):
        weight.data.fill_(float(step))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * step
    assert average.tensors()["w"].item() == pytest.approx(by_hand, rel=1e-5)
    with average.in_place():
        assert weight.item() == pytest.approx(by_hand, rel=1e-5)
    assert weight.item() == 29.0
