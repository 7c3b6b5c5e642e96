"""Bases in fewer bits: how near they are, what a layer then does and keeps, and that adapters know nothing of it."""

from typing import Any

import pytest
import torch

from fusain.models import packed

LAYERS = {
    "linear": (lambda: torch.nn.Linear(96, 80), (2, 5, 96)),
    "linear without a bias": (lambda: torch.nn.Linear(64, 64, bias=False), (3, 64)),
    "convolution": (lambda: torch.nn.Conv2d(16, 32, 3, stride=2, padding=1), (2, 16, 9, 9)),
}
NEAR = {16: 5e-4, 8: 0.015, 4: 0.12}
"""How far, in the mean, a number of a normal distribution may be off, as a share of the mean number."""


@pytest.mark.parametrize("bits", NEAR)
def test_what_is_unpacked_is_near(bits: Any) -> None:
    weight = torch.randn(320, 64, 3, 3) * torch.linspace(0.01, 1, 320)[:, None, None, None]
    stored, scales = packed.pack(weight, bits)
    again = packed.unpack(stored, scales, weight.shape).float()
    off = (again - weight).abs().mean(dim=(1, 2, 3)) / weight.abs().mean(dim=(1, 2, 3))
    assert off.max() < NEAR[bits]
    taken = stored.numel() * stored.element_size() + (0 if scales is None else scales.numel() * 4)
    assert taken <= weight.numel() * (bits / 8 + (0.0625 if bits == 4 else 0.01))
    again, _ = packed.pack(torch.zeros(64, 64), bits)
    assert again.isfinite().all(), "rows of zeros"


def test_half_precision_loses_nothing_of_what_is_published_so() -> None:
    weight = torch.randn(64, 64).half().float()
    assert torch.equal(packed.unpack(*packed.pack(weight, 16), weight.shape).float(), weight)


@pytest.mark.parametrize("bits", NEAR)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_computes_with_what_it_unpacks(kind: str, bits: Any) -> None:
    """Forward and backward are those of a plain layer with the unpacked weight; only the input gets a gradient."""
    make, shape = LAYERS[kind]
    network = torch.nn.Sequential(torch.nn.Sequential(make())).requires_grad_(False)
    packed.pack_layers(network, bits)
    layer, plain = network[0][0], make().requires_grad_(False)
    assert isinstance(layer, type(plain)), "whoever looks for such layers finds it"
    plain.weight.copy_(layer.weight)
    if plain.bias is not None:
        plain.bias.copy_(layer.bias)
    given = torch.randn(shape)
    results = []
    for one in (layer, plain):
        entering = given.clone().requires_grad_()
        made = one(entering)
        (made * torch.linspace(-1, 1, made.numel()).reshape(made.shape)).sum().backward()
        results.append((made.detach(), entering.grad))
    torch.testing.assert_close(results[0], results[1])
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(given).dtype == torch.bfloat16


def test_nothing_unpacked_is_kept_for_the_backward_pass() -> None:
    network = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False))).requires_grad_(False)
    packed.pack_layers(network, 8)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        network(torch.randn(2, 256, requires_grad=True))
    assert kept == []


def test_small_layers_and_other_parts_stay_as_they_are() -> None:
    network = torch.nn.ModuleDict(
        {
            "unet": torch.nn.ModuleList([torch.nn.Linear(64, 64), torch.nn.Linear(8, 8), torch.nn.LayerNorm(4096)]),
            "text_encoder": torch.nn.ModuleList([torch.nn.Linear(64, 64)]),
        }
    )
    packed.pack_layers(network, 8, without=["text_encoder"])
    kinds = [type(one).__name__ for part in network.values() for one in part]
    assert kinds == ["PackedLinear", "Linear", "LayerNorm", "Linear"]
