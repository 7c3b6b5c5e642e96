"""Optimizers, learning-rate schedules and the moving average against their formulas."""

import math

import pytest
import torch

from fusain.training.averaging import Average
from fusain.training.muon import Muon
from fusain.training.optimizers import Lion, learning_rate, make_optimizer


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


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "muon"])
def test_every_optimizer_goes_downhill(name: str) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = make_optimizer(name, {"weight": weight}, learning_rate=0.02, weight_decay=0.0)  # type: ignore[arg-type]
    for _ in range(300):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert abs(weight.item()) < 0.5


def test_schedules_at_their_corners() -> None:
    def rate(name: str, step: int) -> float:
        return learning_rate(name, 1.0, step=step, total=110, warmup=10)  # type: ignore[arg-type]

    assert [rate("constant", step) for step in (0, 4, 9, 10, 109)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [rate("linear", step) for step in (10, 60, 109)] == pytest.approx([1, 0.5, 0.01])
    assert [rate("cosine", step) for step in (10, 60, 109)] == pytest.approx(
        [1, 0.5, 0.5 * (1 + math.cos(math.pi * 0.99))]
    )


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
