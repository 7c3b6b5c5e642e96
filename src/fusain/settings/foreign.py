"""Recognises settings files of other trainers, so that the error can name what was given and what reads it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from fusain.errors import SettingsError

_KOHYA: Final = {
    "pretrained_model_name_or_path",
    "network_module",
    "network_dim",
    "train_data_dir",
    "output_name",
    "max_train_steps",
    "save_every_n_epochs",
}
_DIFFUSION_PIPE: Final = {"micro_batch_size_per_gpu", "pipeline_stages", "save_every_n_epochs"}
WEIGHTS: Final = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""How the names of files end that are no text, and large."""


IMPORTED: Final = ("kohya", "OneTrainer", "ai-toolkit", "diffusers")


def fault(path: str, tool: str) -> SettingsError:
    """What to say of a file of another tool: for some of them there is `fusain import`."""
    code = "E-CFG-010" if any(name in tool for name in IMPORTED) else "E-CFG-041"
    return SettingsError(code, where=path, path=path, tool=tool, word=shlex.quote(path))


def tool_by_text(suffix: str, text: str) -> str:
    """The name of the tool that a YAML, JSON or shell file was written for, or ''."""
    if suffix in (".sh", ".bash") or re.search(r"^\s*(accelerate launch|python3?) .*\.py\b", text, re.MULTILINE):
        return "a command of one of diffusers' scripts (shell)" if "--" in text else "a shell script"
    if suffix in (".yaml", ".yml") or re.match(r"\s*(?:---\s*\n)?job\s*:", text):
        if re.search(r"^\s*job\s*:\s*\S+", text, re.MULTILINE) and re.search(r"^\s*process\s*:", text, re.MULTILINE):
            return "an ai-toolkit job (YAML)"
        return "a YAML file"
    if suffix == ".json" or text.lstrip().startswith("{"):
        if '"training_method"' in text:
            return "a OneTrainer preset (JSON)"
        if '"job"' in text and '"process"' in text:
            return "an ai-toolkit job (JSON)"
        if '"LoRA_type"' in text or '"pretrained_model_name_or_path"' in text:
            return "a form of kohya_ss (JSON)"
        if '"--' in text or '"model_family"' in text:
            return "a SimpleTuner configuration (JSON)"
        return "a JSON file"
    return ""


def tool_by_keys(values: Mapping[str, Any]) -> str:
    """The name of the tool that a TOML file was written for, or ''."""
    inner = {name for value in values.values() if isinstance(value, dict) for name in value}
    if len(_KOHYA & (set(values) | inner)) >= 2:
        return "a kohya sd-scripts configuration (TOML)"
    datasets = values.get("datasets")
    if isinstance(datasets, list) and any(isinstance(entry, dict) and "subsets" in entry for entry in datasets):
        return "a kohya sd-scripts data set configuration (TOML)"
    return "a diffusion-pipe configuration (TOML)" if len(_DIFFUSION_PIPE & set(values)) >= 2 else ""
