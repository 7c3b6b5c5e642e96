"""One network over several processes (FSDP2): each holds its part of all weights, of their gradients and their memory.

The weights of a block are brought together in every process while it is at work, and given back after it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def learning_parts(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The parts of a network in which something learns; all others stay whole in each process."""
    return [part for part in network.children() if any(one.requires_grad for one in part.parameters())]


def units(part: torch.nn.Module) -> list[torch.nn.Module]:
    """What is brought together at once, innermost first: the blocks that its library names, and what is outside."""
    blocks = getattr(part, "_no_split_modules", None) or ()
    return [*reversed([one for one in part.modules() if one is not part and type(one).__name__ in blocks]), part]


def split(
    network: torch.nn.Module, learning: Mapping[str, torch.nn.Parameter], *, device: str, processes: int
) -> dict[str, torch.nn.Parameter]:
    """Keep of a network this process's part only; what learns, as the parts that now take its place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Nothing is done in place to what a part gives back; a view is harmless then.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    mesh = init_device_mesh(device, (processes,))
    places = {id(one): (module, name) for module in network.modules() for name, one in _own(module)}
    for part in learning_parts(network):
        for unit in units(part):
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)  # else drawing would leave old weights in place
    return {name: getattr(*places[id(one)]) for name, one in learning.items()}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All parts of a tensor as one; of one that is not split itself. All processes must come."""
    from torch.distributed.tensor import DTensor

    with torch.no_grad():
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor lies in this process."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, torch.Tensor], *, keep: bool) -> dict[str, torch.Tensor]:
    """Whole tensors in the machine's memory, where they are kept; elsewhere none. All processes must come."""
    found = {}
    for name, tensor in tensors.items():
        together = whole(tensor)
        if keep:
            found[name] = together.detach().cpu()
    return found


def like(tensor: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Of a whole tensor this process's part, where that of `held`, which is as large, is what it has."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(held, DTensor) or tensor.shape != held.shape:
        return tensor
    return distribute_tensor(tensor.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


@contextmanager
def brought_together(network: torch.nn.Module, *, here: bool) -> Iterator[None]:
    """Within, the network is whole and plain in one process, to be saved and not to be run. All processes must come."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    kinds: list[tuple[Any, type]] = [
        (module, type(module)) for module in network.modules() if isinstance(module, FSDPModule)
    ]
    held = [(module, name, one) for module in network.modules() for name, one in _own(module)]
    held = [(module, name, one) for module, name, one in held if isinstance(one, DTensor)]
    together = gathered({str(number): one for number, (_, _, one) in enumerate(held)}, keep=here)
    try:
        if here:
            for module, kind in kinds:
                module.__class__ = kind.__bases__[1]  # files name the class, and FSDP has put one of its own before it
            for number, (module, name, one) in enumerate(held):
                setattr(module, name, torch.nn.Parameter(together.pop(str(number)), requires_grad=one.requires_grad))
        yield
    finally:
        for module, kind in kinds:
            module.__class__ = kind
        for module, name, one in held:
            setattr(module, name, one)


def share(shape: torch.Size, processes: int) -> torch.Size:
    """The shape of the largest part of a tensor; rows are shared out."""
    return torch.Size((math.ceil(shape[0] / processes), *shape[1:]))


def groups(part: torch.nn.Module) -> Iterator[list[torch.nn.Parameter]]:
    """The weights of each unit, in the order of `units`."""
    seen: set[int] = set()
    for unit in units(part):
        yield [one for one in unit.parameters() if id(one) not in seen]
        seen.update(map(id, unit.parameters()))


def _own(module: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return list(module.named_parameters(recurse=False))
