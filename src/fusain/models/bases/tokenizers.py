"""Where the tokenizers of a base are: beside its weights, given, in the hub cache, or on the hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from fusain.errors import NetworkFault, SettingsError
from fusain.models.bases import hub, layouts
from fusain.models.bases.diffusers_folder import holds_tokenizer, read_config
from fusain.models.bases.hub_faults import Unreachable
from fusain.models.bases.opened import Base

FIRST: Final = "tokenizer"
THIRD: Final = "tokenizer_3"
SOURCES: Final = {
    "sd1": {FIRST: ("openai/clip-vit-large-patch14", "")},
    "sd2": {FIRST: ("stabilityai/stable-diffusion-2", FIRST)},
    "sdxl": {
        FIRST: ("stabilityai/stable-diffusion-xl-base-1.0", FIRST),
        "tokenizer_2": ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer_2"),
    },
}
"""Where the tokenizers of each architecture are published: a repository and a folder of it."""
FILES: Final = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
PADDING_2: Final = "!"
"""What the second tokenizer of XL fills up with; in all else it is the first one."""


def tokenizers_of(base: Base) -> tuple[str, ...]:
    """The tokenizers that a base needs: one for each text encoder."""
    return tuple(name.replace("text_encoder", FIRST) for name in base.components if name.startswith("text_encoder"))


def find_tokenizer(base: Base, given: str | None = None, part: str = FIRST) -> Path:
    """A folder with the files of one of the base's tokenizers."""
    if given:
        return given_tokenizer(Path(given), part)
    own: Path | None = getattr(base, part)
    if own is not None:
        return own
    source = SOURCES.get(layouts.plain(base.architecture), {}).get(part)
    if source is None:
        raise SettingsError("E-MODEL-042", where=base.source)
    try:
        return hub.fetch_files(*source, FILES)
    except (Unreachable, NetworkFault) as fault:
        reason = str(fault.message.what) if isinstance(fault, NetworkFault) else str(fault)
        files = " ".join(f"{folder}/{name}".lstrip("/") for folder in _folders(base) for name in FILES)
        raise NetworkFault(
            "E-MODEL-046", where=base.source, source=source[0], files=files, reason=reason.rstrip(".")
        ) from fault


def _folders(base: Base) -> list[str]:
    return [folder for _, folder in SOURCES[layouts.plain(base.architecture)].values()]


def given_tokenizer(folder: Path, part: str = FIRST) -> Path:
    """A folder that the user named: it is a whole model that holds the files, or it holds them itself."""
    folder = folder.expanduser()
    for place in (folder / part, folder, folder / FIRST):
        if holds_tokenizer(place):
            return place
    raise SettingsError("E-MODEL-043", where=str(folder))


def load_tokenizer(base: Base, given: str | None = None, part: str = FIRST) -> Any:
    """The tokenizer itself: CLIP's, or T5's, which is the third."""
    from transformers import CLIPTokenizer, T5Tokenizer

    folder = find_tokenizer(base, given, part)
    for path in sorted(folder.glob("*.json")):
        if path.name not in ("vocab.json", "tokenizer.json"):
            read_config(path)  # refuses what asks for code
    if part == THIRD:
        return T5Tokenizer.from_pretrained(folder, local_files_only=True)
    if part != FIRST and folder.name != part:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, pad_token=PADDING_2)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def tokenizer_id(tokenizer: Any) -> str:
    """SHA-256 of everything that decides which tokens a text becomes; where its files lie is no part of it."""
    table = json.loads(tokenizer.backend_tokenizer.to_str())
    ruled = {name: part for name, part in table.items() if name not in ("truncation", "padding")}  # of the last call
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.model_max_length]
    return hashlib.sha256(json.dumps([ruled, ends], sort_keys=True).encode()).hexdigest()
