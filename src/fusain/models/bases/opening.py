"""Opens a base, wherever its weights are: what the user wrote is a miniature, a path, or a hub id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Final

from fusain.errors import SettingsError, StorageError
from fusain.models.bases import autoencoders, diffusers_folder, hub, layouts, single_file
from fusain.models.bases.opened import Base, Component, Weights
from fusain.models.bases.tokenizers import given_tokenizer, tokenizers_of
from fusain.settings import user_file

MINIATURE: Final = "fusain:"
HUB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
FILE_SUFFIXES: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".zip", ".json")


def open_base(
    source: str,
    *,
    revision: str | None = None,
    vae: str | None = None,
    weights: Weights = "ema",
    tokenizer: str | None = None,
    without: Sequence[str] = (),
) -> Base:
    """The model at `source`, opened but not loaded; `vae` and `tokenizer` take the place of its own.

    The components in `without` are neither read nor fetched.
    """
    left_out = (*without, "vae") if vae else without
    base = _opened(source, revision=revision, weights=weights, without=left_out)
    if vae and base.components:
        base = replace(base, components={**base.components, "vae": _autoencoder(vae, base, weights)})
    if tokenizer:
        given = {part: given_tokenizer(Path(tokenizer), part) for part in tokenizers_of(base)}
        base = replace(base, tokenizer=given.get("tokenizer"), tokenizer_2=given.get("tokenizer_2"))
    return base


def _opened(source: str, *, revision: str | None, weights: Weights, without: Sequence[str]) -> Base:
    path = local_path(source)
    if path is None:
        folder, commit = hub.fetch(source, revision, weights=weights, without=without)
        return replace(
            diffusers_folder.open_folder(folder, source=source, weights=weights, without=without), revision=commit
        )
    if revision is not None:
        raise SettingsError("E-MODEL-037", where=source, revision=revision)
    if path.is_dir():
        return diffusers_folder.open_folder(path, source=source, weights=weights, without=without)
    return single_file.open_file(path, source=source, weights=weights, without=without)


def _autoencoder(source: str, base: Base, weights: Weights) -> Component:
    path = local_path(source)
    if path is None:
        raise StorageError("E-MODEL-040", where=source)
    architecture = layouts.plain(base.architecture)
    return autoencoders.open_autoencoder(path, source=source, architecture=architecture, weights=weights)


def local_path(source: str) -> Path | None:
    """The file or folder that is meant; None for a hub id."""
    if source.startswith(MINIATURE):
        return miniature(source.removeprefix(MINIATURE))
    if "://" in source:
        raise SettingsError("E-MODEL-038", where=source)
    path = Path(source).expanduser()
    if path.exists():
        return path
    models = user_file.models_folder()
    if models is not None and path.name == source:
        found = next((one for one in (models / source, models / f"{source}.safetensors") if one.exists()), None)
        if found is not None:
            return found
    # `models/mine` beside a folder `models` is a mistyped path, not somebody's model on the hub.
    is_hub_id = HUB_ID.fullmatch(source) and not source.lower().endswith(FILE_SUFFIXES)
    if is_hub_id and not path.parent.exists():
        return None
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, n=1)
    if near:
        raise StorageError("E-MODEL-039", where=source, nearest=path.parent / near[0])
    if models is not None and path.name == source:
        raise StorageError("E-MODEL-059", where=source, models=models)
    raise StorageError("E-MODEL-040", where=source)


def miniature(name: str) -> Path:
    """The folder of a model that the package carries."""
    home = Path(str(resources.files("fusain"))) / "worlds" / "mini"
    known = sorted(path.parent.name for path in home.glob("*/model_index.json"))
    if name not in known:
        listed = ", ".join(MINIATURE + one for one in known) or "none in this installation"
        raise SettingsError("E-MODEL-041", where=MINIATURE + name, name=name, known=listed)
    return home / name


def lies_at(source: str) -> Path:
    """Where a model is on this machine; a hub id that is not in the hub's cache is an error."""
    path = local_path(source)
    if path is None:
        path = hub.cached(source, None)
    if path is None:
        raise SettingsError("E-MODEL-057", where=source, source=source)
    return path.absolute()
