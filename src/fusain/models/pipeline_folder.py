"""Writes a Stable Diffusion pipeline as the folder that `DiffusionPipeline.from_pretrained` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusain.models import text

PARTS = ("unet", "vae", "scheduler", "tokenizer")


def save(pipeline: Any, folder: Path) -> None:
    """Part by part: the pipeline's own way would write its text encoder in a layout that few readers know."""
    for name in PARTS:
        getattr(pipeline, name).save_pretrained(folder / name)
    text.save_encoder(pipeline.text_encoder, folder / "text_encoder")
    pipeline.save_config(folder)
