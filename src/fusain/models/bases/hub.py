"""Fetches a base from the hub, or finds it in the hub's cache: pinned to a commit, and only the files that are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusain.errors import NetworkFault, UnsafeFileError
from fusain.models.bases import hub_faults, layouts
from fusain.models.bases.building import CLASSES
from fusain.models.bases.diffusers_folder import (
    STEMS,
    TOKENIZERS,
    VARIANTS,
    choose,
    holds_tokenizer,
    read_config,
    shards_of,
)
from fusain.models.bases.opened import Weights
from fusain.models.bases.stored import PICKLE_SUFFIXES

INDEX: Final = "model_index.json"
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
SMALL: Final = re.compile(r"README\.md|tokenizer(_[23])?/[^/]+\.(json|txt)|scheduler/scheduler_config\.json")
"""The README tells the licence, which a model made from this one needs when it is published."""
FILES: Final = ("vocab.json", "merges.txt")
"""Of a CLIP tokenizer."""
LIKELY: Final = (INDEX, "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/…", "text_encoder/…")
"""What to say is missing where nothing tells what the model holds."""


@dataclass(frozen=True)
class Listing:
    """What the hub says that a repository holds."""

    commit: str
    sizes: Mapping[str, int | None]
    """Bytes of each file, where the hub tells them."""


def fetch(source: str, revision: str | None, *, weights: Weights, without: Sequence[str]) -> tuple[Path, str]:
    """The folder of a hub id in the hub's cache, whole, and the commit that it is of."""
    kept = cached(source, revision)
    if kept is not None and COMMIT.fullmatch(revision or "") and not _lacking(kept, weights, without, best=True):
        return kept, kept.name
    listing: Listing | None = None
    try:
        listing = _listed(source, revision)
        return _fetched(source, revision, listing, weights, without)
    except hub_faults.Unreachable as fault:
        kept = kept or cached(source, revision)
        lacking = _lacking(kept, weights, without) if kept else list(LIKELY)
        if kept is None or lacking:
            told = hub_faults.sized(lacking, listing.sizes if listing else {})
            raise hub_faults.not_here(source, revision, fault, told) from fault
        return kept, kept.name


def _fetched(
    source: str, revision: str | None, listing: Listing, weights: Weights, without: Sequence[str]
) -> tuple[Path, str]:
    commit, names = listing.commit, list(listing.sizes)
    folder = _download(source, revision or "main", INDEX).parent
    if folder.name != commit:  # the branch moved in this very moment
        folder = _download(source, commit, INDEX).parent
    for name in _wanted(names, read_config(folder / INDEX), source, weights, without):
        path = _download(source, commit, name)
        for shard in shards_of(path):
            _download(source, commit, f"{Path(name).parent.as_posix()}/{shard}")
    return folder, commit


def fetch_files(source: str, folder: str, names: Sequence[str]) -> Path:
    """A folder with some small files of a repository; those that are cached are not asked for again."""
    kept = cached(source, None, f"{folder}/{names[0]}" if folder else names[0])
    if kept is not None and all((kept / folder / name).is_file() for name in names):
        return kept / folder
    _asked(source, None)  # a download would try for half a minute before it says that nobody answers
    paths = [_download(source, "main", f"{folder}/{name}" if folder else name) for name in names]
    return paths[0].parent


def cached(source: str, revision: str | None, name: str = INDEX) -> Path | None:
    """The folder of a snapshot in the hub's cache, if `name` is in it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, name, revision=revision or "main")
    return Path(found).parents[name.count("/")] if isinstance(found, str) else None


def _asked(source: str, revision: str | None) -> Listing:
    """The commit that a revision means now, and its files."""
    from huggingface_hub import HfApi

    with hub_faults.told(source, revision):
        info = HfApi().model_info(source, revision=revision, files_metadata=True)
    return Listing(str(info.sha), {entry.rfilename: entry.size for entry in info.siblings or ()})


def _listed(source: str, revision: str | None) -> Listing:
    """As `_asked`, of a repository that keeps to its commits and holds a diffusers folder."""
    listing = _asked(source, revision)
    if COMMIT.fullmatch(revision or "") and listing.commit != revision:
        reason = f"asked for {revision}, it sends {listing.commit}"
        raise NetworkFault("E-NET-005", where=source, reason=reason, url=hub_faults.page(source))
    if INDEX not in listing.sizes:
        files = ", ".join(name for name in listing.sizes if name.endswith(".safetensors")) or "none of .safetensors"
        raise NetworkFault("E-NET-009", where=source, files=files)
    return listing


def _download(source: str, revision: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    with hub_faults.told(source, revision, name):
        return Path(hf_hub_download(source, name, revision=revision))


def _wanted(
    names: Sequence[str], index: dict[str, Any], source: str, weights: Weights, without: Sequence[str]
) -> list[str]:
    """The files of a repository that are read; a network that it holds as a pickle alone is refused."""
    found = [name for name in names if SMALL.fullmatch(name)]
    for part in _parts(index, without):
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        chosen = choose(inside, _stem(part), VARIANTS[weights])
        pickled = [name for name in inside if name.endswith(PICKLE_SUFFIXES)]
        if chosen is None and pickled:
            raise UnsafeFileError("E-SEC-006", where=source, part=part, name=f"{part}/{pickled[0]}", source=source)
        found += [f"{part}/{name}" for name in ("config.json", chosen) if name in inside]
    return found


def _lacking(folder: Path, weights: Weights, without: Sequence[str], *, best: bool = False) -> list[str]:
    """The files that a cached snapshot would need beside those it has; with `best`, for the first choice of weights."""
    index = read_config(folder / INDEX)
    lacking: list[str] = []
    for part in _parts(index, without):
        inside = [path.name for path in (folder / part).glob("*") if path.is_file()]
        variants = VARIANTS[weights][:1] if best else VARIANTS[weights]
        chosen = choose(inside, _stem(part), variants) or f"{_stem(part)}.safetensors"
        needed = ["config.json", chosen]
        if chosen in inside:
            needed += shards_of(folder / part / chosen)
        lacking += [f"{part}/{name}" for name in needed if name not in inside]
    scheduler = "scheduler/scheduler_config.json"
    lacking += [scheduler] if "scheduler" in index and not (folder / scheduler).is_file() else []
    for part in TOKENIZERS:
        if part not in without and layouts.is_there(index.get(part)) and not holds_tokenizer(folder / part):
            reads_pieces = part == "tokenizer_3"  # T5's
            lacking += [f"{part}/{name}" for name in (["tokenizer.json"] if reads_pieces else FILES)]
    return lacking


def _parts(index: dict[str, Any], without: Sequence[str]) -> list[str]:
    kind = layouts.PIPELINES.get(str(index.get("_class_name")), "")
    return [part for part in layouts.components("sd1" if kind == "sd" else kind, index) if part not in without]


def _stem(part: str) -> str:
    return STEMS[next(iter(CLASSES[part].values()))]
