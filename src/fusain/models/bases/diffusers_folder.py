"""A base in a diffusers folder: configurations checked, weights located; nothing of it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fusain.errors import StorageError, UnsafeFileError
from fusain.models import text_names
from fusain.models.bases import layouts
from fusain.models.bases.building import classes
from fusain.models.bases.opened import Base, Component, Weights
from fusain.models.bases.stored import PICKLE_SUFFIXES, Stored, pickled, read_header
from fusain.settings.notice import Notice

LIBRARIES: Final = ("diffusers", "transformers", "stable_diffusion", None)
"""Where the classes of a folder may come from; `stable_diffusion` is diffusers' own old name for its checker."""
ASKS_FOR_CODE: Final = ("auto_map", "custom_pipeline", "trust_remote_code", "_attn_implementation_internal")
ZEROS: Final = "force_zeros_for_empty_prompt"
"""An entry of pipelines of XL, which is true where it is left out."""
LARGEST_CONFIG: Final = 10 << 20
STEMS: Final = {"transformers": "model", "diffusers": "diffusion_pytorch_model"}
VARIANTS: Final[dict[Weights, tuple[str, ...]]] = {"ema": ("", "fp16"), "raw": ("non_ema", "", "fp16")}
"""The first that is there is read."""
TOKENIZERS: Final = ("tokenizer", "tokenizer_2", "tokenizer_3")
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")


def open_folder(folder: Path, *, source: str, weights: Weights, without: Sequence[str] = ()) -> Base:
    """What the folder holds; the components in `without` are left out, for another takes their place."""
    index = read_config(folder / "model_index.json")
    _refuse_files_with_code(folder, index)
    architecture = layouts.of_folder(index, folder, read_config)
    wanted = [name for name in layouts.components(architecture, index) if name not in without]
    components = {name: open_component(folder / name, name, weights, index, architecture) for name in wanted}
    scheduler = folder / "scheduler" / "scheduler_config.json"
    tokenizers = {name: folder / name for name in TOKENIZERS if holds_tokenizer(folder / name)}
    unsaid = {} if architecture == "sd3" else {"prediction_type": "epsilon"}
    is_raw = any("non_ema" in at.file.name for part in components.values() for at in part.stored.values())
    notes = (Notice("W-MODEL-011", where=source),) if weights == "raw" and not is_raw else ()
    return Base(
        source=source,
        architecture=architecture,
        components=components,
        scheduler=unsaid | read_config(scheduler) if scheduler.exists() else {},
        tokenizer=tokenizers.get("tokenizer"),
        tokenizer_2=tokenizers.get("tokenizer_2"),
        tokenizer_3=tokenizers.get("tokenizer_3"),
        hides_by_zeros=architecture == "sdxl" and index.get(ZEROS, True) is True,
        folder=folder,
        evidence=f"_class_name {index['_class_name']}",
        notes=notes,
    )


def open_component(
    folder: Path, name: str, weights: Weights, index: Mapping[str, Any] | None = None, architecture: str = ""
) -> Component:
    """One network of a folder."""
    config = read_config(folder / "config.json")
    named = (index or {}).get(name) or [None, None]
    class_name = named[1] or config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    library = classes(name, architecture).get(str(class_name))
    if library is None or named[0] not in (library, None):
        raise UnsafeFileError("E-SEC-002", where=str(folder), what=f"its {name} is a '{class_name}'")
    stored: Mapping[str, Stored] = _located(folder, STEMS[library], weights)
    stored = text_names.as_written(stored) if name in text_names.OF_CLIP else dict(stored)
    if name == "vae":
        stored = {today(key): value for key, value in stored.items()}
    return Component(name, str(class_name), config, stored)


def holds_tokenizer(folder: Path) -> bool:
    """Whether the files of a tokenizer lie there."""
    return (folder / "tokenizer.json").is_file() or all(
        (folder / name).is_file() for name in ("vocab.json", "merges.txt")
    )


def read_config(path: Path) -> dict[str, Any]:
    """A JSON table that asks for no code."""
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise StorageError("E-MODEL-033", where=str(path), fault="too large")
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as fault:
        raise StorageError("E-MODEL-034", where=str(path.parent), name=path.name) from fault
    except (OSError, ValueError, RecursionError) as fault:
        raise StorageError("E-MODEL-033", where=str(path), fault=_short(fault)) from fault
    if not isinstance(config, dict):
        raise StorageError("E-MODEL-033", where=str(path), fault="not a table")
    for what in _asked(config):
        raise UnsafeFileError("E-SEC-002", where=str(path), what=what)
    return config


def _short(fault: BaseException) -> str:
    return (getattr(fault, "strerror", None) or str(fault)).splitlines()[0]


def _asked(config: Any) -> Iterator[str]:
    """Each entry by which a configuration asks for code of its own."""
    if isinstance(config, list):
        for entry in config:
            yield from _asked(entry)
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key in ASKS_FOR_CODE and value:
            yield f"`{key}`"
        elif key == "_class_name" and not isinstance(value, str):
            yield f"a `{key}` that is no name"
        else:
            yield from _asked(value)


def _refuse_files_with_code(folder: Path, index: Mapping[str, Any]) -> None:
    """Every component comes from a known library, and none brings a file of Python."""
    named = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    for name, (library, class_name) in named.items():
        if library not in LIBRARIES:
            raise UnsafeFileError("E-SEC-002", where=str(folder), what=f"{name} = {library}.{class_name}")
    for path in [folder / "pipeline.py", *(file for name in named for file in sorted((folder / name).glob("*.py")))]:
        if path.exists():
            raise UnsafeFileError("E-SEC-002", where=str(folder), what=path.relative_to(folder).as_posix())


def _located(folder: Path, stem: str, weights: Weights) -> Mapping[str, Stored]:
    """The weights of the best variant that is there."""
    names = [path.name for path in folder.glob("*")]
    chosen = choose(names, stem, VARIANTS[weights])
    if chosen is not None:
        shards = shards_of(folder / chosen)
        return _from_shards(folder / chosen, shards) if shards else read_header(folder / chosen).tensors
    for name in sorted(names):
        if name.endswith(PICKLE_SUFFIXES):
            raise pickled(folder / name, folder / f"{stem}.safetensors")
    raise StorageError("E-MODEL-034", where=str(folder), name=f"{stem}.safetensors")


def choose(names: Collection[str], stem: str, variants: Sequence[str]) -> str | None:
    """The file of weights to read among `names`, or the index of several; the first variant that is there."""
    for variant in variants:
        middle = f".{variant}" if variant else ""
        for name in (f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"):
            if name in names:
                return name
    return None


def shards_of(path: Path) -> list[str]:
    """The files beside it that an index of weights names; none for what is no index."""
    if path.suffix != ".json" or ".safetensors.index" not in path.name:
        return []
    names = sorted({str(name) for name in _weight_map(path).values()})
    for name in names:
        if not PLAIN_NAME.fullmatch(name):
            raise UnsafeFileError("E-SEC-002", where=str(path), what=f"a weight file outside the folder, '{name}'")
    return names


def _weight_map(index: Path) -> dict[str, Any]:
    found = read_config(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise StorageError("E-MODEL-033", where=str(index), fault="it names no weights")
    return found


def _from_shards(index: Path, shards: Sequence[str]) -> Mapping[str, Stored]:
    """Weights over several files; together they must hold exactly the keys that the index says."""
    wanted = _weight_map(index)
    found: dict[str, Stored] = {}
    for name in shards:
        found |= read_header(index.parent / name).tensors
    if found.keys() != wanted.keys():
        facts = {"matched": len(found.keys() & wanted.keys()), "total": len(wanted)}
        raise StorageError("E-MODEL-002", where=str(index), first=sorted(found.keys() ^ wanted.keys())[0], **facts)
    return found


OLD_ATTENTION: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def today(name: str) -> str:
    """The name of an autoencoder's attention, which diffusers before 0.12 called otherwise."""
    before, _, end = name.rpartition(".")
    start, _, leaf = before.rpartition(".")
    return f"{start}.{OLD_ATTENTION[leaf]}.{end}" if ".attentions." in name and leaf in OLD_ATTENTION else name
