"""Writes an opened base as a diffusers folder or as one original file, or a file of it anew; never over anything."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from fusain.errors import SettingsError, StorageError
from fusain.models import noise
from fusain.models import weights as storing
from fusain.models.bases import layouts, naming, single_file
from fusain.models.bases.building import CLASSES
from fusain.models.bases.diffusers_folder import STEMS, ZEROS
from fusain.models.bases.opened import Base, Component, Weights
from fusain.models.bases.pickles import beside, refuse_existing
from fusain.models.bases.single_file import averaged
from fusain.models.bases.stored import read_header, read_tensors
from fusain.models.bases.tokenizers import FIRST, find_tokenizer, load_tokenizer, tokenizers_of

PIPELINES: Final = {
    "sdxl": "StableDiffusionXLPipeline",
    "sd1-inpainting": "StableDiffusionInpaintPipeline",
    "sd2-inpainting": "StableDiffusionInpaintPipeline",
    "sdxl-inpainting": "StableDiffusionXLInpaintPipeline",
}
"""Those that are not a `StableDiffusionPipeline`."""
GUESSED: Final = (
    *("attention_head_dim", "transformer_layers_per_block", "addition_time_embed_dim", "norm_num_groups", "norm_eps"),
    *("num_attention_heads", "hidden_act", "layer_norm_eps", "scaling_factor", "act_fn"),
)
"""Entries of configurations that change what a network does and that no shape of a weight tells for sure."""
UNCHECKED: Final = {"requires_safety_checker": False, "safety_checker": [None, None]}
"""Entries of those that may look at what they draw; those of XL never do."""


def write_folder(base: Base, folder: Path, tokenizer: str | None = None, *, prediction: str | None = None) -> None:
    """What `DiffusionPipeline.from_pretrained` loads; weights stay as precise as they are, `tokenizer` may be given."""
    refuse_existing(folder)
    said = _said(prediction) or base.scheduler.get("prediction_type")
    if said is None:
        raise SettingsError("E-MODEL-054", where=base.source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as home:
        waiting = Path(home) / "unfinished"
        _write_all(base, waiting, tokenizer, dict(base.scheduler) | {"prediction_type": said})
        refuse_existing(folder)
        os.rename(waiting, folder)


def _said(prediction: str | None) -> str | None:
    return next((theirs for ours, theirs in noise.PREDICTIONS.items() if ours == prediction), None)


def _write_all(base: Base, folder: Path, tokenizer: str | None, scheduler: dict[str, Any]) -> None:
    for name, component in base.components.items():
        _write_component(component, folder / name)
    for part in tokenizers_of(base):
        _write_tokenizer(base, part, tokenizer, folder / part)
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    index: dict[str, Any] = {
        "_class_name": PIPELINES.get(base.architecture, "StableDiffusionPipeline"),
        "_diffusers_version": metadata.version("diffusers"),
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", scheduler.get("_class_name", "DDIMScheduler")],
        **{part: ["transformers", "CLIPTokenizer"] for part in tokenizers_of(base)},
        **({ZEROS: base.hides_by_zeros} if base.architecture.startswith("sdxl") else UNCHECKED),
    }
    named = {name: [CLASSES[name][part.class_name], part.class_name] for name, part in base.components.items()}
    _write_json(folder / "model_index.json", index | named)


def _write_tokenizer(base: Base, part: str, given: str | None, folder: Path) -> None:
    found = find_tokenizer(base, given, part)
    if part != FIRST and found.name != part:
        load_tokenizer(base, given, part).save_pretrained(folder)
        return
    folder.mkdir()
    for path in sorted(found.iterdir()):
        if path.suffix in (".json", ".txt"):
            shutil.copyfile(path, folder / path.name)


def _write_component(component: Component, folder: Path) -> None:
    folder.mkdir(parents=True)
    library = CLASSES[component.name][component.class_name]
    told: dict[str, Any] = {"_class_name": component.class_name}
    if library == "transformers":
        told = {"architectures": [component.class_name], "model_type": "clip_text_model"}
    _write_json(folder / "config.json", component.settings | told)
    # Parts of one tensor share memory, which safetensors refuses.
    tensors = {name: tensor.clone() for name, tensor in component.tensors().items()}
    storing.write(folder / f"{STEMS[library]}.safetensors", tensors)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")


def write_single(base: Base, out: Path, *, prediction: str | None = None) -> int:
    """One file in the original layout, as A1111, Forge and ComfyUI load it; how many tensors.

    Such files bring no configuration: what readers would not guess as it is, is an error.
    """
    refuse_existing(out)
    tensors: dict[str, torch.Tensor] = {}
    for component in base.components.values():
        tensors |= _original(component, layouts.plain(base.architecture), base.source)
    said = prediction or base.prediction
    if said == "sample":
        raise SettingsError("E-MODEL-060", where="prediction", own=said, guessed="epsilon")
    if said == "v":
        tensors["v_pred"] = torch.zeros(0)  # where other tools look for it
        if base.scheduler.get("rescale_betas_zero_snr"):
            tensors["ztsnr"] = torch.zeros(0)
    noted = {"modelspec.prediction_type": said} if said else {}
    with beside(out) as waiting:
        save_file(tensors, waiting, metadata={"format": "pt", **noted})
        _require_readable(base, waiting)
        refuse_existing(out)
        os.rename(waiting, out)
    return len(tensors)


def _original(component: Component, architecture: str, source: str) -> dict[str, torch.Tensor]:
    """The weights of one network under their original names and in their original form."""
    found, config = component.tensors(), component.config
    names = naming.original_names(component.name, config, found)
    unknown = sorted(found.keys() - names.keys())
    if unknown:
        raise StorageError("E-MODEL-002", where=source, matched=len(names), total=len(found), first=unknown[0])
    prefix = (naming.PREFIXES | naming.TEXT_PREFIXES[architecture])[component.name]
    owners = naming.diffusers_names(component.name, config, set(names.values()))
    return {prefix + name: _joined([found[own] for own in owns], name) for name, owns in sorted(owners.items())}


def _joined(parts: list[torch.Tensor], name: str) -> torch.Tensor:
    """As it lies there: query, key and value as one, attention of autoencoders as convolutions of one pixel."""
    whole = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    if name == "text_projection":
        return whole.T.contiguous()
    return whole[:, :, None, None] if ".mid.attn_1." in name and whole.ndim == 2 else whole


def _require_readable(base: Base, path: Path) -> None:
    """Whoever reads the file back finds the same networks."""
    read = single_file.open_file(path, source=str(path), weights="raw", without=())
    for name, component in base.components.items():
        guessed = read.components[name].config
        for key in GUESSED:
            own = component.config.get(key, guessed.get(key))
            if _as_list(own) != _as_list(guessed.get(key)):
                raise SettingsError("E-MODEL-060", where=f"{name}.{key}", own=own, guessed=guessed.get(key))


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def write_pruned(source: Path, out: Path, weights: Weights) -> int:
    """The original file `source` with one kind of UNet weights, under the names of the raw ones; how many tensors."""
    refuse_existing(out)
    header = read_header(source)
    prefix = naming.PREFIXES["unet"]
    unet = {name.removeprefix(prefix): at for name, at in header.tensors.items() if name.startswith(prefix)}
    kept = {name: at for name, at in header.tensors.items() if not name.startswith((prefix, naming.EMA_PREFIX))}
    kept |= {prefix + name: at for name, at in averaged(header, unet, weights, []).items()}
    tensors: dict[str, torch.Tensor] = {name: tensor.contiguous() for name, tensor in read_tensors(kept).items()}
    with beside(out) as waiting:
        save_file(tensors, waiting, metadata={"format": "pt", **header.metadata})
        refuse_existing(out)
        os.rename(waiting, out)
    return len(tensors)
