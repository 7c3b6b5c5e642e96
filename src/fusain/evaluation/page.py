"""The bones of a page in one file: tags that escape what they are given, images as data, and the page around them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from fusain.evaluation.style import STYLE

LARGEST_SIDE = 160
"""Larger images are shown at this size, so that a report stays small."""


class Html(str):
    """Markup; any other string is text from somewhere and is escaped."""


def tag(name: str, *children: str, **attributes: str) -> Html:
    """One element. `class_` is the attribute class, `aria_label` is aria-label."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value, quote=True)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{written}>{text(*children)}</{name}>")


def text(*children: str) -> Html:
    """Pieces one after the other."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


def picture(image: npt.NDArray[np.uint8], title: str, *, zoom: int = 3) -> Html:
    """One image as data; small ones are enlarged by whole pixels, and stay crisp."""
    height, width = image.shape[:2]
    if max(height, width) > LARGEST_SIDE:
        scale = LARGEST_SIDE / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    zoom = max(1, min(zoom, LARGEST_SIDE // max(height, width)))
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", optimize=True)
    title = html.escape(title, quote=True)
    data = base64.b64encode(content.getvalue()).decode()
    shown = f'width="{image.shape[1] * zoom}" height="{image.shape[0] * zoom}"'
    return Html(f'<img src="data:image/png;base64,{data}" {shown} alt="{title}" title="{title}">')


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, class_: str = "") -> Html:
    """A table whose first column names the row."""
    top = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    body = [
        tag("tr", *(tag("td", cell) if column else tag("th", cell, scope="row") for column, cell in enumerate(row)))
        for row in rows
    ]
    return tag("div", tag("table", top, tag("tbody", *body), class_=class_), class_="wide")


def page(title: str, *body: str) -> str:
    """The whole file."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="color-scheme" content="light dark">'
    )
    top = text(Html(head), tag("title", title), Html(f"<style>{STYLE}</style>"))
    return f'<!doctype html>\n<html lang="en"><head>{top}</head>\n<body>{text(*body)}</body></html>\n'
