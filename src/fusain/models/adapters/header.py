"""What stands in the header of a LoRA file: ModelSpec, and the `ss_` fields that user interfaces show."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

import torch
from safetensors.torch import save

from fusain.models.adapters import names, parsing
from fusain.models.adapters.adapter import Adapter, LowRank
from fusain.models.bases import detection

PATH: Final = re.compile(r"(?<![\w.~:/<\\])(?:/[\w.@+-]+/[\w.@+-]|~(?:[a-z][\w.-]*)?/|\\\\[\w.-]+\\|[A-Za-z]:[\\/])")
"""A path from the root or from a home folder, as any system writes them."""
HASH: Final = "modelspec.hash_sha256"
OURS: Final = (parsing.PEFT_METADATA, parsing.FACTOR_WITHIN, HASH, "format", "sshs_model_hash", "sshs_legacy_hash")
"""Of a file that was read, what is no longer true of one that is written."""
MODELS: Final = {
    "sd1": ("stable-diffusion-v1/lora", "sd_v1"),
    "sd2": ("stable-diffusion-v2-512/lora", "sd_v2"),
    "sd2-v": ("stable-diffusion-v2-768-v/lora", "sd_v2_v"),
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
    "sd3": ("stable-diffusion-3/lora", ""),
}
"""As ModelSpec and as kohya's trainer call the model that a LoRA is for; what it calls 3 depends on its size."""


def for_model(architecture: str, prediction: str | None = None) -> dict[str, str]:
    """The entries that say which model a LoRA is for; none for models that have no such name."""
    names_ = MODELS.get(architecture + ("-v" if prediction == "v" else "")) or MODELS.get(architecture)
    found = {"modelspec.architecture": names_[0], "ss_base_model_version": names_[1]} if names_ else {}
    return {key: name for key, name in found.items() if name}


def composed(adapter: Adapter, given: Mapping[str, str]) -> dict[str, str]:
    """What is known of `adapter`, then what the caller knows; an entry that holds a local path is left out."""
    kept = {key: text for key, text in adapter.metadata.items() if key not in OURS}
    model = for_model(architecture(adapter))
    found = model | kept | _shown(adapter) | {key: str(text) for key, text in given.items()}
    return {key: text for key, text in sorted(found.items()) if not PATH.search(text)}


def _shown(adapter: Adapter) -> dict[str, str]:
    plain = [layer for layer in adapter.layers.values() if isinstance(layer, LowRank)]
    found = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "diffusers",
        "ss_network_module": "networks.lora",
    }
    if plain:
        found["ss_network_dim"] = str(_commonest([layer.rank for layer in plain]))
        found["ss_network_alpha"] = str(_commonest([round(layer.scale * layer.rank, 6) for layer in plain]))
    return found


def architecture(adapter: Adapter) -> str:
    """The kind of model that an adapter is for, by what its file says or by its layers; empty where nothing tells."""
    said = adapter.metadata.get("modelspec.architecture")
    noted = [kind for kind, (spelt, _) in MODELS.items() if spelt == said]
    if noted:
        return noted[0].partition("-")[0]
    if any(name.startswith(f"{names.TRANSFORMER}.") for name in adapter.layers):
        return names.SD3
    found = detection.BY_CONTEXT.get(context(adapter) or 0, "")
    reads_captions = any(".attn2." in name for name in adapter.layers)  # a UNet says more than a text encoder of it
    has_second = any(name.startswith("text_encoder_2.") for name in adapter.layers)
    return names.XL if has_second and not (found and reads_captions) else found


def context(adapter: Adapter) -> int | None:
    """The width of the text that the UNet attends to, or of the text encoder itself; None where no layer tells."""
    for name, layer in adapter.layers.items():
        tells = ".attn2.to_k" in name or ".attn2.to_v" in name
        if tells or (name.startswith(names.TEXT + ".") and ".self_attn." in name):
            return layer.matrix[1]
    return None


def _commonest(numbers: list[float] | list[int]) -> float | int:
    number = Counter(numbers).most_common(1)[0][0]
    return int(number) if number == int(number) else number


def whole(tensors: dict[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file, with the hash of its tensors in its header; the same adapter is always the same bytes."""
    plain = save(tensors)
    start = 8 + int.from_bytes(plain[:8], "little")
    found = hashlib.sha256(plain[start:]).hexdigest()
    noted = {**metadata, HASH: f"0x{found}", "sshs_model_hash": found}
    # The library itself writes entries in another order each time.
    header = json.dumps({"__metadata__": dict(sorted(noted.items())), **json.loads(plain[8:start])}, ensure_ascii=False)
    head = header.encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of eight
    return len(head).to_bytes(8, "little") + head + plain[start:]
