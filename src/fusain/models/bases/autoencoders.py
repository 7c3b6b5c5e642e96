"""Another autoencoder in place of a base's own: a diffusers folder or a single file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from fusain.errors import SettingsError, StorageError
from fusain.models.bases import detection, diffusers_folder, inferred, layouts, naming, single_file
from fusain.models.bases.opened import Component, Weights
from fusain.models.bases.stored import Header, Stored, read_header

LATENTS: Final = 4
"""Channels that the UNets of Stable Diffusion 1.x, 2.x and XL learn."""


def open_autoencoder(path: Path, *, source: str, architecture: str, weights: Weights) -> Component:
    """The autoencoder at `path`: of a folder, of a whole model's folder, or of a file in either layout.

    A file does not say what latents are multiplied with; then it is as in `architecture`.
    """
    if path.is_dir():
        inner = path / "vae"
        found = diffusers_folder.open_component(inner if inner.is_dir() else path, "vae", weights)
    else:
        found = _from_file(path, source, architecture)
    shape = next((at.shape for name, at in found.stored.items() if name == "decoder.conv_in.weight"), None)
    if shape is None or len(shape) != 4 or shape[1] != LATENTS:
        words = "an autoencoder" + (f" with {shape[1]} latent channels" if shape and len(shape) > 1 else "")
        spelt = f"decoder.conv_in.weight ({' x '.join(map(str, shape or ()))})"
        raise SettingsError("E-MODEL-047", where=source, found=words, wanted=LATENTS, key=spelt)
    return found


def _from_file(path: Path, source: str, architecture: str) -> Component:
    header = read_header(path)
    found = detection.look(header.shapes)
    if found is None or "vae" not in found.holds:
        first = next(iter(header.tensors), "")
        words, evidence = (found.words, found.evidence) if found else ("no known model", first)
        raise layouts.wrong(source, words, "an autoencoder", evidence)
    if any(".down_blocks." in name for name in header.tensors):
        header = _as_original(header)
    return single_file.open_part(header, "vae", architecture, "ema", [])


def _as_original(header: Header) -> Header:
    """The weights of a file in diffusers' layout, which brings no configuration, under their original names."""
    stored = {diffusers_folder.today(name): at for name, at in header.tensors.items()}
    levels = inferred.count(stored_shapes(stored), "encoder.down_blocks.")
    layers = 1 + max((int(found[1]) for found in map(LAYER.match, stored) if found), default=0)
    config = {"block_out_channels": [0] * levels, "layers_per_block": layers}
    names = naming.original_names("vae", config, stored)
    unknown = sorted(stored.keys() - names.keys())
    if unknown:
        where = str(stored[unknown[0]].file)
        raise StorageError("E-MODEL-002", where=where, matched=len(names), total=len(stored), first=unknown[0])
    return Header({names[name]: at for name, at in stored.items()}, header.metadata)


LAYER: Final = re.compile(r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")


def stored_shapes(stored: dict[str, Stored]) -> dict[str, tuple[int, ...]]:
    return {name: at.shape for name, at in stored.items()}
