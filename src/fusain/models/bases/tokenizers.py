"""Where the tokenizer of a base is: beside its weights, given, in the hub cache, or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fusain.errors import NetworkFault, SettingsError
from fusain.models.bases import hub
from fusain.models.bases.diffusers_folder import holds_tokenizer, read_config
from fusain.models.bases.hub_faults import Unreachable
from fusain.models.bases.opened import Base

SOURCES: Final = {
    "sd1": ("openai/clip-vit-large-patch14", ""),
    "sd2": ("stabilityai/stable-diffusion-2", "tokenizer"),
}
"""Where each architecture's tokenizer is published: a repository and a folder of it."""
FILES: Final = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")


def find_tokenizer(base: Base, given: str | None = None) -> Path:
    """A folder with the files of the base's tokenizer."""
    if given:
        return given_tokenizer(Path(given))
    if base.tokenizer is not None:
        return base.tokenizer
    source = SOURCES.get(base.architecture.partition("-")[0])
    if source is None:
        raise SettingsError("E-MODEL-042", where=base.source)
    try:
        return hub.fetch_files(*source, FILES)
    except (Unreachable, NetworkFault) as fault:
        reason = str(fault.message.what) if isinstance(fault, NetworkFault) else str(fault)
        files = " ".join(f"{source[1]}/{name}".lstrip("/") for name in FILES)
        raise NetworkFault(
            "E-MODEL-046", where=base.source, source=source[0], files=files, reason=reason.rstrip(".")
        ) from fault


def given_tokenizer(folder: Path) -> Path:
    """A folder that the user named: it holds the files, or is a whole model that does."""
    folder = folder.expanduser()
    for place in (folder, folder / "tokenizer"):
        if holds_tokenizer(place):
            return place
    raise SettingsError("E-MODEL-043", where=str(folder))


def load_tokenizer(base: Base, given: str | None = None) -> Any:
    """The tokenizer itself, of the one class there is for these models."""
    from transformers import CLIPTokenizer

    folder = find_tokenizer(base, given)
    for path in sorted(folder.glob("*.json")):
        if path.name not in ("vocab.json", "tokenizer.json"):
            read_config(path)  # refuses what asks for code
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
