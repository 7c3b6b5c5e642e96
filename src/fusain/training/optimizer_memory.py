"""What an optimizer remembers, as named tensors and JSON, and back to the last bit; nothing is pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

from fusain.training.optimizers import taken
from fusain.training.sharding import like, own_part

GROUP: Final = "group"
"""What tensors of a whole group are named by, before its number."""
SETTINGS: Final = frozenset({"params", "factor"})
"""Of a group's values those that Fusain sets, beside what the optimizer itself takes."""


def flatten(
    optimizer: Any, parameters: Mapping[str, torch.nn.Parameter]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's memory as named tensors and as JSON for the rest; parameters by their number, in named order."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    order = list(_in_order(optimizer))
    memory = {str(number): optimizer.state.get(parameter, {}) for number, parameter in enumerate(order)}
    groups = [{**group, "params": []} for group in optimizer.param_groups]
    memory |= {f"{GROUP}{number}": group for number, group in enumerate(groups)}
    tensors = _unshared(dict(_tensors(memory, "")))
    rest = {number: _without_tensors(values) for number, values in memory.items() if values}
    return tensors, {
        "names": [names[id(parameter)] for parameter in order],
        "param_groups": [rest.pop(f"{GROUP}{number}") | _members(optimizer, number) for number in range(len(groups))],
        "state": rest,
    }


def restore(
    optimizer: Any,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Mapping[str, torch.Tensor],
    rest: Mapping[str, Any],
) -> None:
    """The opposite of `flatten`, by names, whatever the groups are now; what is a setting stays as it is set today."""
    memory = {number: dict(values) for number, values in rest["state"].items()}
    groups: list[dict[str, Any]] = [dict(group) for group in rest["param_groups"]]
    memory |= {f"{GROUP}{number}": group for number, group in enumerate(groups)}
    held = {str(number): parameters[name] for number, name in enumerate(rest.get("names", ())) if name in parameters}
    for key, tensor in tensors.items():
        owner, *path = key.split(".")
        _put(memory.setdefault(owner, {}), path, like(tensor, held[owner]) if owner in held else tensor)
    by_name = {id(parameter): name for name, parameter in parameters.items()}
    order = list(_in_order(optimizer))
    now = [by_name[id(parameter)] for parameter in order]
    before = {name: place for place, name in enumerate(rest.get("names", now))}
    state = {place: memory[old] for place, name in enumerate(now) if (old := str(before[name])) in memory}
    packed: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    for group in packed:
        group |= _remembered(optimizer, groups, before[now[group["params"][0]]])
    optimizer.load_state_dict({"state": state, "param_groups": packed})
    for place, saved in state.items():
        _as_saved(optimizer.state[order[place]], saved)
        _as_laid_out(optimizer.state[order[place]], order[place])
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group |= {name: value.to(device) for name, value in group.items() if isinstance(value, torch.Tensor)}


def _in_order(optimizer: Any) -> Iterator[torch.nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _members(optimizer: Any, number: int) -> dict[str, list[int]]:
    start = sum(len(group["params"]) for group in optimizer.param_groups[:number])
    return {"params": list(range(start, start + len(optimizer.param_groups[number]["params"])))}


def _tensors(values: Mapping[str, Any] | Sequence[Any], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping | list | tuple):
            yield from _tensors(value, f"{prefix}{name}.")


def _without_tensors(value: Any) -> Any:
    """The rest of a memory; in a list an empty place stands for each tensor."""
    if isinstance(value, Mapping):
        return {name: _without_tensors(one) for name, one in value.items() if not isinstance(one, torch.Tensor)}
    if isinstance(value, list | tuple):
        return [None if isinstance(one, torch.Tensor) else _without_tensors(one) for one in value]
    return value


def _put(inner: Any, path: list[str], tensor: torch.Tensor) -> None:
    """Put a tensor back into its place in dictionaries and lists."""
    for name in path[:-1]:
        inner = inner[int(name)] if isinstance(inner, list) else inner.setdefault(name, {})
    if isinstance(inner, list):
        inner[int(path[-1])] = tensor
    else:
        inner[path[-1]] = tensor


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Some optimizers hold one tensor in several places, which safetensors does not store."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = own_part(tensor).untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return tensors


def _remembered(optimizer: Any, groups: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """What the group that held a parameter knew beside its settings: a step, a distance, a sum."""
    settings = SETTINGS.union(taken(type(getattr(optimizer, "optimizer", optimizer))))
    group = next(group for group in groups if number in group["params"])
    return {name: value for name, value in group.items() if name not in settings}


def _as_saved(now: dict[str, Any], saved: Mapping[str, Any]) -> None:
    """torch gives what it loads the precision of the weights; an optimizer may have had its reasons for another."""
    for name, value in saved.items():
        if isinstance(value, torch.Tensor) and (held := now.get(name)) is not None and held.dtype != value.dtype:
            now[name] = value.to(held.device)


def _as_laid_out(now: dict[str, Any], parameter: torch.nn.Parameter) -> None:
    """In memory as the weights are, where files are in plain order: a step in one kernel walks through both at once."""
    for name, held in now.items():
        is_alike = isinstance(held, torch.Tensor) and held.shape == parameter.shape
        if is_alike and held.stride() != parameter.stride():
            now[name] = torch.empty_like(parameter, dtype=held.dtype, device=held.device).copy_(held)
