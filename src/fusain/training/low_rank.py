"""Low-rank layers beside the frozen ones of a network, through PEFT: chosen, put in, read out, taken away."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final

import torch

from fusain.data import chance
from fusain.models.adapters import LowRank
from fusain.models.text_names import PREFIX

TEXT: Final = "text_encoder"
"""What the names of networks that read captions begin with."""
ONE: Final = "default"
"""PEFT can hold several adapters by name; here there is one."""
NEAR_SHOWN: Final = 3
SMALL_IN_HALF: Final = 1e-3


@dataclass(frozen=True)
class Place:
    """Where a layer is: in which part of the network, and its path there."""

    part: str
    path: str

    @property
    def name(self) -> str:
        """The same in every version of the libraries, and as LoRA files name it."""
        is_plain = not self.part.startswith(TEXT) or self.path.startswith((PREFIX, "text_projection"))
        return f"{self.part}.{self.path}" if is_plain else f"{self.part}.{PREFIX}{self.path}"


def places(network: torch.nn.Module, parts: Iterable[str]) -> dict[str, Place]:
    """Every linear and every convolution layer of some parts of a network, by name."""
    found = [
        Place(part, path)
        for part in parts
        for path, module in network.get_submodule(part).named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    ]
    return {place.name: place for place in found}


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a pattern covers, whole or from any dot on: 'to_q' is every 'unet.….to_q'."""
    return [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")]


def near(names: Collection[str], pattern: str) -> list[str]:
    """Names that may have been meant: of kinds of layers, or else whole ones."""
    kinds = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdecimal()})
    wanted = pattern.rpartition(".")[2].strip("*")
    found = get_close_matches(wanted, kinds, NEAR_SHOWN) or get_close_matches(pattern, names, NEAR_SHOWN, cutoff=0.4)
    return found or kinds[:NEAR_SHOWN]


def put_in(network: torch.nn.Module, wanted: Sequence[Place], **form: Any) -> dict[str, Any]:
    """PEFT's layers around the wanted ones, by name, in fp32; the up matrices are zero, so nothing changes yet."""
    from peft import LoraConfig, inject_adapter_in_model

    for part in dict.fromkeys(place.part for place in wanted):
        paths = "|".join(re.escape(place.path) for place in wanted if place.part == part)
        inject_adapter_in_model(LoraConfig(target_modules=f"(?:{paths})", **form), network.get_submodule(part))
    layers = {place.name: network.get_submodule(f"{place.part}.{place.path}") for place in wanted}
    for name, layer in layers.items():
        for parameter in _learning(layer).values():
            parameter.data = parameter.data.float()
        _begin(name, _learning(layer)["lora_A.weight"])
    return layers


def _begin(name: str, down: torch.nn.Parameter) -> None:
    """Random numbers by the seed of the run and the name of the layer; nothing that was drawn before matters."""
    if down.device.type == "meta":
        return
    generator = torch.Generator().manual_seed(chance.key(torch.initial_seed(), 0, f"lora/{name}"))
    bound = 1 / math.sqrt(down[0].numel())  # as a linear layer begins, and as PEFT has it
    with torch.no_grad():
        down.copy_(torch.empty(down.shape).uniform_(-bound, bound, generator=generator))


def _learning(layer: Any) -> dict[str, torch.nn.Parameter]:
    kinds = ("lora_A", "lora_B", "lora_magnitude_vector")
    return {f"{kind}.weight": getattr(layer, kind)[ONE].weight for kind in kinds if ONE in getattr(layer, kind)}


def parameters(layers: Mapping[str, Any]) -> dict[str, torch.nn.Parameter]:
    """What learns, by names that stay the same."""
    return {f"{name}.{kind}": one for name, layer in layers.items() for kind, one in _learning(layer).items()}


def weight_of(layers: Mapping[str, Any], name: str) -> torch.Tensor | None:
    """The frozen weight that a layer learns beside; None where nothing learns by that name."""
    return layers[name].weight if name in layers else None


def scale_of(layer: Any) -> float:
    return float(layer.scaling[ONE])


def read_out(layers: Mapping[str, Any]) -> dict[str, LowRank]:
    """What was learnt, apart from the network that it belongs to."""
    found = {}
    for name, layer in layers.items():
        own = {kind: parameter.detach().clone() for kind, parameter in _learning(layer).items()}
        magnitude = own.get("lora_magnitude_vector.weight")
        found[name] = LowRank(
            down=own["lora_A.weight"],
            up=own["lora_B.weight"],
            scale=scale_of(layer),
            magnitude=None if magnitude is None else magnitude.flatten(),
        )
    return found


def balanced(layer: LowRank) -> LowRank:
    """The same change where the second matrix is hardly above zero, as after few steps: fp16 would round it away."""
    down, up = float(layer.down.abs().max()), float(layer.up.abs().max())
    if not 0 < up * layer.scale < SMALL_IN_HALF < down:
        return layer
    factor = 2.0 ** round(math.log2(down / up) / 2)  # a power of two: the product is the same to the last bit
    return replace(layer, down=layer.down / factor, up=layer.up * factor)


def begin_from(layer: Any, found: LowRank) -> None:
    """Put another adapter's numbers in place of the first ones; the change of the weights is the same at any scale."""
    values = {"lora_A.weight": found.down, "lora_B.weight": found.up.float() * (found.scale / scale_of(layer))}
    if found.magnitude is not None:
        values["lora_magnitude_vector.weight"] = found.magnitude
    with torch.no_grad():
        for kind, parameter in _learning(layer).items():
            parameter.copy_(values[kind].reshape(parameter.shape))


def take_away(network: torch.nn.Module, parts: Iterable[str]) -> None:
    """The network without PEFT's layers, as it was before."""
    for part in parts:
        module = network.get_submodule(part)
        for path, layer in list(_wrapped(module)):
            above, _, last = path.rpartition(".")
            setattr(module.get_submodule(above), last, layer.get_base_layer())
        module.__dict__.pop("peft_config", None)


def _wrapped(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, layer in module.named_modules():
        if isinstance(layer, BaseTunerLayer):
            yield path, layer
