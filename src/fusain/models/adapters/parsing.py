"""From the tensors of a LoRA file to layers; what does not belong together is an error that names it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite, nan, sqrt
from typing import Any, Final

import torch

from fusain.errors import StorageError
from fusain.models.adapters import names
from fusain.models.adapters.adapter import Layer, LowRank
from fusain.models.adapters.lycoris import Hadamard, Kronecker, product
from fusain.settings.notice import Notice

PEFT_METADATA: Final = "lora_adapter_metadata"
"""Where diffusers notes rank and alpha, for all layers and by patterns."""
LONGEST_SHOWN: Final = 40
FACTOR_WITHIN: Final = "fusain.alpha"
"""Where a file that is written here says that the second matrix holds the factor, so that no alpha is missing."""

ROLES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"\.lora_(?:down|A)(?:\.default)?\.weight$"), "down"),
    (re.compile(r"\.lora_(?:up|B)(?:\.default)?\.weight$"), "up"),
    (re.compile(r"\.(?:lora|lora_linear_layer)\.down\.weight$|(?<=\.to_[qkv])_lora\.down\.weight$"), "down"),
    (re.compile(r"\.(?:lora|lora_linear_layer)\.up\.weight$|(?<=\.to_[qkv])_lora\.up\.weight$"), "up"),
    (re.compile(r"(?<=\.to_out)_lora\.down\.weight$"), "down"),
    (re.compile(r"(?<=\.to_out)_lora\.up\.weight$"), "up"),
    (re.compile(r"\.lora_mid\.weight$"), "mid"),
    (re.compile(r"\.alpha$"), "alpha"),
    (re.compile(r"\.lora_magnitude_vector(?:\.default)?(?:\.weight)?$"), "magnitude"),
    (re.compile(r"\.dora_scale$"), "dora_scale"),
    (re.compile(r"\.(?=(?:hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))$)"), "lycoris"),
)
"""How a key ends, and what its tensor is for the layer before it."""

Group = dict[str, torch.Tensor]
BESIDE: Final = frozenset({"alpha", "dora_scale", "magnitude"})
"""What belongs to a layer and is no matrix of it."""


def style_of(keys: list[str]) -> str:
    if any(key.startswith(tuple(names.KOHYA_READ)) for key in keys):
        return "kohya"
    return "diffusers" if any(".lora_A." in key for key in keys) else "old diffusers"


def grouped(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Group], list[str]]:
    """Tensors by layer and role, and the keys that say nothing to us, nor what is left of a layer without them."""
    groups: dict[str, Group] = {}
    keys: dict[str, list[str]] = {}
    unknown = []
    for key, tensor in tensors.items():
        layer, role = _placed(key)
        if layer is None:
            unknown.append(key)
        else:
            groups.setdefault(layer, {})[role] = tensor
            keys.setdefault(layer, []).append(key)
    for layer in [layer for layer, group in groups.items() if group.keys() <= BESIDE]:
        del groups[layer]
        unknown += keys[layer]
    return groups, unknown


def _placed(key: str) -> tuple[str | None, str]:
    for pattern, role in ROLES:
        found = pattern.search(key)
        if found:
            name = key[: found.start()]
            if "_lora." in found[0]:
                name = names.old_projection(name)
            layer = names.from_kohya(name) if "." not in name else None
            return layer or names.from_diffusers(name), key[found.end() :] if role == "lycoris" else role
    return None, ""


def _noted(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        noted = json.loads(metadata.get(PEFT_METADATA) or "{}")
    except (ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


class Alphas:
    """The factor of each layer: from its own alpha, else from diffusers' notes, else 1."""

    def __init__(self, style: str, metadata: Mapping[str, str], where: str) -> None:
        self.style = style
        self.where = where
        self.noted = _noted(metadata)
        self.is_within = FACTOR_WITHIN in metadata
        self.missing = 0

    def scale(self, layer: str, own: torch.Tensor | None, rank: int) -> float:
        if own is not None:
            return self._number(layer, own.flatten()[0] if own.numel() else "nothing") / rank
        part, _, path = layer.partition(".")
        if f"{part}.lora_alpha" in self.noted:
            alpha = self._number(layer, self._noted_for(part, path))
            return alpha / (sqrt(rank) if self.noted.get(f"{part}.use_rslora") else rank)
        self.missing += not self.is_within
        return 1.0

    def _noted_for(self, part: str, path: str) -> Any:
        """The first pattern that is the path or its end; PEFT's patterns are names, diffusers marks whole ones by ^."""
        patterns = self.noted.get(f"{part}.alpha_pattern") or {}
        if not isinstance(patterns, dict):
            return patterns
        for pattern, alpha in patterns.items():
            if path == pattern.removeprefix("^") or path.endswith(f".{pattern}"):
                return alpha
        return self.noted[f"{part}.lora_alpha"]

    def _number(self, layer: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = nan
        if not isfinite(number):
            raise StorageError("E-LORA-023", where=self.where, layer=layer, value=str(value)[:LONGEST_SHOWN])
        return number

    def notes(self, total: int) -> tuple[Notice, ...]:
        return (Notice("W-LORA-001", where=self.where, count=self.missing, total=total),) if self.missing else ()


def layer_of(name: str, group: Group, alphas: Alphas) -> Layer:
    """One layer of its tensors; a pair without its other half is an error."""
    where = alphas.where
    if any(role.startswith("hada_") for role in group):
        return _hadamard(name, group, alphas)
    if any(role.startswith("lokr_") for role in group):
        return _kronecker(name, group, alphas)
    down, up = _needed(name, group, ("down", "up"), where)
    mid = group.get("mid")
    if not _is_pair(down, up, mid):
        raise StorageError("E-LORA-005", where=where, layer=name, down=_spelt(down), up=_spelt(up))
    scale = alphas.scale(name, group.get("alpha"), down.shape[0])
    return LowRank(down, up, scale, _lengths(group, up.shape[0]), mid)


def _is_pair(down: torch.Tensor, up: torch.Tensor, mid: torch.Tensor | None) -> bool:
    if {down.ndim, up.ndim} - {2, 4} or not down.numel() or not up.numel():
        return False
    return (
        up.shape[1] == down.shape[0] if mid is None else up.shape[1] == mid.shape[0] and mid.shape[1] == down.shape[0]
    )


def _lengths(group: Group, outputs: int) -> torch.Tensor | None:
    """(out,) where each output has a length, whatever ones stand around it; of inputs as it is.

    PEFT measures outputs always; of LyCORIS' `dora_scale` the first number tells, as its other readers see it.
    """
    if "magnitude" in group:
        return group["magnitude"].flatten()
    found = group.get("dora_scale")
    return found if found is None or found.shape[0] != outputs else found.flatten()


def _hadamard(name: str, group: Group, alphas: Alphas) -> Hadamard:
    a1, b1, a2, b2 = _needed(name, group, ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), alphas.where)
    scale = alphas.scale(name, group.get("alpha"), b1.shape[0])
    cores = group.get("hada_t1"), group.get("hada_t2")
    outputs = a1.shape[0] if cores[0] is None else a1.shape[1]
    return Hadamard(a1, b1, a2, b2, scale, *cores, _lengths(group, outputs))


def _kronecker(name: str, group: Group, alphas: Alphas) -> Kronecker:
    left = group.get("lokr_w1")
    right = group.get("lokr_w2")
    parts = [
        *(_needed(name, group, ("lokr_w1_a", "lokr_w1_b"), alphas.where) if left is None else ()),
        *(_needed(name, group, ("lokr_w2_a", "lokr_w2_b"), alphas.where) if right is None else ()),
    ]
    # Alpha counts only where a factor is stored as a product; the right one's rank goes before.
    rank = parts[-1].shape[0] if parts else None
    scale = 1.0 if rank is None else alphas.scale(name, group.get("alpha"), rank)
    left = product(parts[0], parts[1], None) if left is None else left
    right = product(parts[-2], parts[-1], group.get("lokr_t2")) if right is None else right
    magnitude = _lengths(group, left.shape[0] * right.shape[0])
    return Kronecker(left, right, scale, rank or max(right.shape[:2]), magnitude)


def _needed(name: str, group: Group, roles: tuple[str, ...], where: str) -> list[torch.Tensor]:
    for role in roles:
        if role not in group:
            raise StorageError("E-LORA-004", where=where, layer=name, missing=role, found=", ".join(sorted(group)))
    return [group[role] for role in roles]


def _spelt(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
