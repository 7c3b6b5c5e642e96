"""Weights that never learn, in fewer bits: unpacked when a layer needs them, in the forward and in the backward pass.

It needs no package, packs convolutions as well (which bitsandbytes leaves whole), runs on any device, and is
planned without weights. Libraries made for it have faster kernels.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Literal, Self, cast

import torch
from torch.nn import functional
from torch.nn.grad import conv2d_input

Bits = Literal[32, 16, 8, 4]
FEWEST_NUMBERS: Final = 4096
"""Smaller weights stay as they are: nothing is to be saved there."""
BLOCK: Final = 64
"""Numbers that share a scale in 4 bits (Dettmers et al. 2023, section 3)."""
QUANTILES: Final = (
    *(-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0),
)
"""The sixteen values of NormalFloat: each stands for as many numbers of a normal distribution (there, appendix E)."""


class Packing(torch.nn.Module):
    """A layer whose weight is packed; `weight` unpacks it. Made as any other layer it is a plain one, as PEFT wants
    the layers beside it to be."""

    bits: Bits = 32
    shape: torch.Size
    packed: torch.Tensor
    scales: torch.Tensor | None

    @classmethod
    def of(cls, plain: Any, bits: Bits) -> Self:
        made = cls.__new__(cls)
        torch.nn.Module.__init__(made)
        own = {name: value for name, value in vars(plain).items() if not name.startswith("_")}
        vars(made).update(own | {"bits": bits, "shape": plain.weight.shape})
        made.bias = plain.bias
        packed, scales = pack(plain.weight.detach(), bits)
        made.register_buffer("packed", packed)
        made.register_buffer("scales", scales)
        return made

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and self.bits != 32:
            return self.unpacked(torch.float32)
        return super().__getattr__(name)

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        return unpack(self.packed, self.scales, self.shape).to(dtype)


class PackedLinear(Packing, torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) if self.bits == 32 else _through(input, self)

    def ahead(self, given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(given, weight, bias)

    def back(self, gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return gradient @ weight


class PackedConv2d(Packing, torch.nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) if self.bits == 32 else _through(input, self)

    def ahead(self, given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.conv2d(given, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def back(self, gradient: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        form: Any = (self.stride, self.padding, self.dilation, self.groups)
        return cast(torch.Tensor, conv2d_input(shape, weight, gradient, *form))  # type: ignore[no-untyped-call]


def _through(given: torch.Tensor, layer: PackedLinear | PackedConv2d) -> torch.Tensor:
    return cast(torch.Tensor, _Through.apply(given, layer))  # type: ignore[no-untyped-call]


class _Through(torch.autograd.Function):
    """Keeps the packed weight for the backward pass in place of the unpacked one; the weight gets no gradient."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, layer: Any) -> torch.Tensor:
        kind = given.device.type
        has_autocast = kind != "meta" and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if has_autocast else given.dtype
        ctx.layer, ctx.shape, ctx.dtype = layer, given.shape, given.dtype
        bias = None if layer.bias is None else layer.bias.to(dtype)
        return cast(torch.Tensor, layer.ahead(given.to(dtype), layer.unpacked(dtype), bias))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        weight = ctx.layer.unpacked(gradient.dtype)
        return ctx.layer.back(gradient, weight, ctx.shape).to(ctx.dtype), None


def pack_layers(network: torch.nn.Module, bits: Bits, *, without: Collection[str] = ()) -> None:
    """Put packed layers in place of the large linear and convolution layers of the parts of a network."""
    for name, part in network.named_children():
        if name in without:
            continue
        for path, layer in list(part.named_modules()):
            made = _packed_class(layer)
            if made is not None:
                above, _, last = path.rpartition(".")
                setattr(part.get_submodule(above), last, made.of(layer, bits))


def count_weights(network: torch.nn.Module) -> int:
    """How many there are, of packed layers as well."""
    plain = sum(one.numel() for one in network.parameters())
    return plain + sum(one.shape.numel() for one in network.modules() if isinstance(one, Packing) and one.bits != 32)


def _packed_class(layer: torch.nn.Module) -> type[PackedLinear | PackedConv2d] | None:
    kinds: dict[Any, Any] = {torch.nn.Linear: PackedLinear, torch.nn.Conv2d: PackedConv2d}
    made: type[PackedLinear | PackedConv2d] | None = kinds.get(type(layer))
    is_large = made is not None and cast(torch.Tensor, layer.weight).numel() >= FEWEST_NUMBERS
    return made if is_large and getattr(layer, "padding_mode", "zeros") == "zeros" else None


def pack(weight: torch.Tensor, bits: Bits) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The numbers in few bits, and what they are scaled by: a row in 8 bits, a block of a row's in 4."""
    if bits == 16:
        return weight.to(torch.float16), None  # finer than bf16, and as most bases are published
    blocks = weight.flatten(1) if bits == 8 or weight.numel() % BLOCK else weight.reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    if bits == 8 or weight.numel() % BLOCK:
        return (blocks / scales * 127).round().to(torch.int8), scales / 127
    table = torch.tensor(QUANTILES, device=weight.device)
    codes = torch.bucketize(blocks / scales, (table[1:] + table[:-1]) / 2).to(torch.uint8)
    return codes[:, ::2] * 16 + codes[:, 1::2], scales


def unpack(packed: torch.Tensor, scales: torch.Tensor | None, shape: torch.Size) -> torch.Tensor:
    """The opposite of `pack`, roughly."""
    if scales is None:
        return packed
    if packed.dtype == torch.int8:
        return (packed * scales).reshape(shape)
    table = torch.tensor(QUANTILES, device=packed.device)
    pairs = torch.stack([packed >> 4, packed & 15], dim=2).flatten(1)
    return (table[pairs.int()] * scales).reshape(shape)
