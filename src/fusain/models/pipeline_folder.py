"""Writes a pipeline of Stable Diffusion as the folder that `DiffusionPipeline.from_pretrained` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusain.models import text


def save(pipeline: Any, folder: Path) -> None:
    """Part by part: the pipeline's own way would write its text encoders in a layout that few readers know."""
    for name, part in pipeline.components.items():
        if part is not None and name.startswith("text_encoder"):
            text.save_encoder(part, folder / name)
        elif part is not None:
            part.save_pretrained(folder / name)
    pipeline.save_config(folder)
