"""Tells what a file is that pretends to be an image, so that the user learns what happened to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 4096
"""So much of the beginning is enough to tell."""


@dataclass(frozen=True)
class Finding:
    """What a file is instead of a readable image, and what to do about it."""

    found: str
    advice: str


_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
_HTML = re.compile(rb"<(!doctype html|html|head|body)[\s>]", re.IGNORECASE)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_MAGIC = (
    (b"%PDF", Finding("a PDF document", "export its pages as images")),
    (b"\x1aE\xdf\xa3", Finding("a video (Matroska or WebM)", "take single frames out of it")),
    (b"\0\0\x01\xba", Finding("a video (MPEG)", "take single frames out of it")),
    (b"FLV\x01", Finding("a video (Flash)", "take single frames out of it")),
    (b"PK\x03\x04", Finding("a ZIP archive", "unpack it first")),
    (b"\x1f\x8b", Finding("a gzip archive", "unpack it first")),
    (b"Rar!", Finding("a RAR archive", "unpack it first")),
    (b"8BPS", Finding("a Photoshop document", "export it as PNG")),
    (b"version https://git-lfs", Finding("a Git-LFS pointer", "run: git lfs pull")),
    (b"\x93NUMPY", Finding("a NumPy array", "set data.path to its folder with data.kind = 'arrays'")),
)


def image_format(head: bytes) -> str | None:
    """The name that Pillow has for the format of an image that starts so; None where the bytes are of no such image."""
    for magic, name in _IMAGES:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or b"avif" in head[16:64]):
        return "AVIF"
    if head[:2] == b"BM" and len(head) > 14:
        return "BMP"
    if head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6") and head[2:3].isspace():
        return "PPM"
    return None


def what_it_is(head: bytes) -> Finding:
    """What the beginning of a file that is no readable image shows."""
    for magic, finding in _MAGIC:
        if head.startswith(magic):
            return finding
    if head[4:8] == b"ftyp":
        if head[8:12] in _HEIF_BRANDS:
            return Finding("a HEIC photo, which cannot be read here", "convert it to JPEG or PNG")
        return Finding("a video (MP4 or QuickTime)", "take single frames out of it")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Finding("a video (AVI)", "take single frames out of it")
    return _as_text(head)


def _as_text(head: bytes) -> Finding:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    drawing, page = _SVG.search(text), _HTML.search(text)
    if drawing and not (page and page.start() < drawing.start()):
        return Finding("an SVG drawing", "export it as PNG")
    if page:
        return Finding("an HTML page (failed download?)", "download it again")
    if text[:1] in (b"{", b"["):
        return Finding("JSON text (failed download?)", "download it again")
    if text[:5] == b"<?xml":
        return Finding("an XML document (failed download?)", "download it again")
    if head.strip(b"\0") == b"":
        return Finding("nothing but zeros (failed download or disk fault?)", "download it again")
    if text and all(byte >= 32 or byte in b"\t\r\n\f" for byte in text):
        return Finding("plain text", "remove it")
    return Finding("not an image of a known format", "convert it to PNG or JPEG, or remove it")
