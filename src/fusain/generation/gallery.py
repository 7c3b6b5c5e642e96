"""Writes images as PNGs that carry their facts, and lays them out as a contact sheet."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from fusain.generation.generator import Drawn

PAPER = (250, 249, 246)
INK = (40, 40, 44)
SLUG_LENGTH = 60


def write_png(drawn: Drawn, path: Path, facts: Mapping[str, Any]) -> None:
    """One image; `facts` and its own seed and label stand in the PNG's text, in our form and in the usual one."""
    wanted = drawn.wanted
    own = {"seed": wanted.seed, "label" if wanted.prompt is None else "prompt": wanted.title}
    if wanted.negative:
        own["negative"] = wanted.negative
    if wanted.framing:
        height, width, top, left = wanted.framing
        own |= {"original_size": [width, height], "crop": [left, top]}
    text = PngImagePlugin.PngInfo()
    text.add_text("fusain", json.dumps({**facts, **own}, ensure_ascii=False))
    lines = [wanted.title, *([f"Negative prompt: {wanted.negative}"] if wanted.negative else [])]
    usual = {"Steps": facts.get("steps"), "Sampler": facts.get("sampler"), "CFG scale": facts.get("guidance")}
    parameters = ", ".join(f"{name}: {value}" for name, value in {**usual, "Seed": wanted.seed}.items())
    text.add_itxt("parameters", "\n".join([*lines, parameters]))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn.pixels).save(path, pnginfo=text)


def slug(title: str) -> str:
    """A title as a part of a file name."""
    return re.sub(r"(?:[^\w=.,+-]|[,.](?=\s))+", "-", title)[:SLUG_LENGTH].strip("-.")


def contact_sheet(rows: Mapping[str, Sequence[np.ndarray]], *, columns: int, scale: int = 0) -> Image.Image:
    """Images in titled rows on paper; small ones are enlarged by whole pixels so that they stay crisp."""
    first = next(image for images in rows.values() for image in images)
    height, width = first.shape[:2]
    zoom = scale or max(1, 72 // max(height, width))
    cell_width, cell_height, gap, margin = width * zoom, height * zoom, 8, 16
    title_height = 22 if any(rows) else 0
    lines = {title: -(-len(images) // columns) for title, images in rows.items()}
    sheet_height = margin * 2 + sum(title_height + count * (cell_height + gap) for count in lines.values())
    sheet = Image.new("RGB", (margin * 2 + columns * (cell_width + gap) - gap, sheet_height), PAPER)
    pen, top = ImageDraw.Draw(sheet), margin
    for title, images in rows.items():
        pen.text((margin, top + 4), _fitting(title, pen, sheet.width - 2 * margin), fill=INK)
        top += title_height
        for position, image in enumerate(images):
            row, column = divmod(position, columns)
            enlarged = Image.fromarray(image).resize((cell_width, cell_height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (margin + column * (cell_width + gap), top + row * (cell_height + gap)))
        top += lines[title] * (cell_height + gap)
    return sheet


def _fitting(title: str, pen: ImageDraw.ImageDraw, width: int) -> str:
    """As much of a title as the sheet is wide; one that is cut says so."""
    if pen.textlength(title) <= width:
        return title
    shown = next(end for end in range(len(title), -1, -1) if pen.textlength(f"{title[:end]}…") <= width or end == 0)
    return f"{title[:shown].rstrip(' ,')}…"
