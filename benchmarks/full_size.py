"""Bases of full size without weights: the configurations of the published models, and files that are holes.

They take no room on the disk. What only looks at shapes reads them as any base; weights can be made up afterwards.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fusain.models.bases import fresh, inferred
from fusain.models.bases.building import CLASSES, without_weights
from fusain.models.bases.opened import Component

PIPELINES = {"sd1": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
FILES = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}


def write(architecture: str, folder: Path) -> Path:
    """A diffusers folder of a published architecture; its tokenizer spells every word."""
    known = dict(inferred.published(architecture))
    networks = [name for name in CLASSES if name in known]
    index: dict[str, object] = {"_class_name": PIPELINES[architecture]}
    for name in networks:
        ((class_name, library),) = CLASSES[name].items()
        component = Component(name, class_name, known[name], {})
        with torch.device("meta"):
            shapes = {key: list(one.shape) for key, one in without_weights(component).state_dict().items()}
        (folder / name).mkdir(parents=True)
        config = dict(known[name]) | {"_class_name": class_name, "architectures": [class_name]}
        (folder / name / "config.json").write_text(json.dumps(config))
        _write_hole(shapes, folder / name / FILES[library])
        index[name] = [library, class_name]
    for name in ("tokenizer", "tokenizer_2")[: sum(part.startswith("text_encoder") for part in networks)]:
        fresh.letters().save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(known["scheduler"]))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write_hole(shapes: dict[str, list[int]], path: Path) -> None:
    """A safetensors file in fp16 whose numbers were never written: the disk keeps none, and reads zeros."""
    entries, start = {}, 0
    for name, shape in shapes.items():
        end = start + 2 * int(torch.Size(shape).numel())
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
        start = end
    head = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + start)
