"""Which tool a configuration is of, and its values; nothing in it is ever run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusain.errors import SettingsError
from fusain.runs.imports import ai_toolkit, diffusers, kohya, onetrainer
from fusain.runs.imports.account import Account


@dataclass(frozen=True)
class Tool:
    """One tool whose files are read."""

    name: str
    fits: Callable[[Mapping[str, Any]], bool]
    other_model: Callable[[Mapping[str, Any]], str]
    """The kind of model that Fusain does not train, or ''."""
    read: Callable[[Mapping[str, Any]], Account]


TOOLS: Final = (
    Tool(onetrainer.NAME, onetrainer.fits, onetrainer.other_model, onetrainer.read),
    Tool(ai_toolkit.NAME, ai_toolkit.fits, ai_toolkit.other_model, ai_toolkit.read),
    Tool(diffusers.NAME, diffusers.fits, diffusers.other_model, diffusers.read),
    Tool(kohya.NAME, kohya.fits, kohya.other_model, kohya.read),
)
NAMES: Final = ", ".join((kohya.NAME, onetrainer.NAME, ai_toolkit.NAME, diffusers.NAME))
FORM_OF_KOHYA: Final = {
    "LoRA_type",
    "max_resolution",
    "stop_text_encoder_training",
    "lr_warmup",
    "pretrained_model_name_or_path",
}
"""Keys of what the page of kohya_ss saves, which is a form and no configuration."""


def read(path: Path) -> tuple[Tool, Account]:
    """The tool of a file, and what became of each of its keys."""
    values = _parsed(path)
    if isinstance(values, dict) and path.suffix.lower() == ".json" and len(FORM_OF_KOHYA & set(values)) >= 2:
        raise SettingsError("E-IMP-005", where=str(path), path=path.name)
    tool = next((tool for tool in TOOLS if isinstance(values, dict) and tool.fits(values)), None)
    if tool is None:
        raise SettingsError("E-IMP-004", where=str(path), path=path.name, known=NAMES)
    model = tool.other_model(values)
    if model:
        raise SettingsError("E-IMP-006", where=str(path), model=model)
    try:
        account = tool.read(values)
    except (TypeError, ValueError, KeyError, AttributeError) as fault:  # text for a number, a value for a table
        words = str(fault)[:200]
        raise SettingsError("E-IMP-008", where=str(path), path=path.name, tool=tool.name, fault=words) from fault
    account.settle()
    return tool, account


def _parsed(path: Path) -> Any:
    if not path.is_file():
        raise SettingsError("E-IMP-001", where=str(path), path=path.name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as fault:
        problem = "it is no UTF-8 text" if isinstance(fault, UnicodeError) else fault.strerror
        raise SettingsError("E-IMP-002", where=str(path), path=path.name, fault=problem) from fault
    form, parse = FORMS.get(path.suffix.lower(), ("", None))
    if parse is None:
        raise SettingsError("E-IMP-004", where=str(path), path=path.name, known=NAMES)
    try:
        return parse(text)
    except (ValueError, RecursionError) as fault:
        words = " ".join(str(fault).split()) or type(fault).__name__
        raise SettingsError("E-IMP-003", where=str(path), path=path.name, form=form, fault=words[:200]) from fault


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise ValueError(str(fault)) from fault


FORMS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    ".toml": ("TOML", tomllib.loads),
    ".json": ("JSON", json.loads),
    ".yaml": ("YAML", _yaml),
    ".yml": ("YAML", _yaml),
    **dict.fromkeys((".sh", ".bash", ".txt"), ("shell", diffusers.parse)),
}
