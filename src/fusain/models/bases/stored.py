"""What lies in a safetensors file, read from its header alone; a file that is no whole one is told in words."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from fusain.errors import StorageError, UnsafeFileError

LARGEST_HEADER: Final = 100 << 20
PICKLE_HEADS: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
PICKLE_SUFFIXES: Final = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: a key of a file, or one of several equal parts of it, and the shape it is wanted in."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str
    part: int = 0
    parts: int = 1
    is_turned: bool = False
    """Whether rows and columns change places; `shape` is what comes out."""


@dataclass(frozen=True)
class Header:
    """The tensors of one file, and what its writer noted."""

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, stored in self.tensors.items()}


def read_header(path: Path) -> Header:
    """The header of a whole safetensors file; anything else is an error that says what it is."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
            _refuse_other(path, head, size)
            length = int.from_bytes(head[:8], "little")
            file.seek(8)
            text = file.read(length)
    except OSError as fault:
        raise StorageError("E-MODEL-031", where=str(path), what=f"not readable ({fault.strerror or fault})") from fault
    if size < 8 + length:
        raise StorageError(
            "E-MODEL-032", where=str(path), have=in_words(size), need=f"more than {in_words(8 + length)}"
        )
    entries = _parsed(path, text)
    metadata = entries.pop("__metadata__", None)
    need = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if size < need:
        raise StorageError("E-MODEL-032", where=str(path), have=in_words(size), need=in_words(need))
    tensors = {name: Stored(path, name, tuple(entry["shape"]), str(entry["dtype"])) for name, entry in entries.items()}
    return Header(tensors, metadata if isinstance(metadata, dict) else {})


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    """The header as a table, in the form that it must have."""
    try:
        entries: dict[str, Any] = json.loads(text)
        is_sound = all(_is_sound(entry) for name, entry in entries.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_sound = False
    if not is_sound:
        raise StorageError("E-MODEL-031", where=str(path), what="damaged: its header makes no sense")
    return entries


def _is_sound(entry: Mapping[str, Any]) -> bool:
    start, end = entry["data_offsets"]
    numbers = [start, end, *entry["shape"]]
    return all(isinstance(number, int) and number >= 0 for number in numbers) and start <= end and bool(entry["dtype"])


def _refuse_other(path: Path, head: bytes, size: int) -> None:
    """Pickles, whatever their name is, and what downloads leave behind in place of weights."""
    start = head.lstrip()[:64].lower()
    length = int.from_bytes(head[:8], "little")
    if not size:
        what = "empty (0 bytes)"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        what = "an HTML page (a failed download?)"
    elif start.startswith(b"version https://git-lfs"):
        what = "a Git LFS pointer, not the weights themselves (git lfs pull fetches them)"
    elif is_pickle(path, head):
        raise pickled(path)
    elif size < 10:
        what = f"cut off ({size} bytes)"
    elif head[8:9] != b"{" or not 2 <= length <= LARGEST_HEADER:
        what = "no safetensors file"
    else:
        return
    raise StorageError("E-MODEL-031", where=str(path), what=what)


def is_pickle(path: Path, head: bytes) -> bool:
    """Told by its name or by its first bytes: a zip, a pickle of protocol 2 or newer, or an old tar.

    The first bytes of a safetensors file are a length, and may be those of a pickle; its header then begins with "{".
    """
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return True
    has_header = head[4:9] == b"\0\0\0\0{"
    return not has_header and (head.startswith(PICKLE_HEADS) or head[257:262] == b"ustar")


def pickled(path: Path, out: Path | None = None) -> UnsafeFileError:
    """The refusal of a pickle, with the command that makes it safe."""
    plain = path.with_suffix(".safetensors")
    out = out or (plain if plain != path else path.with_name(f"{path.stem}-converted.safetensors"))
    return UnsafeFileError(
        "E-SEC-001", where=str(path.parent), path=path, source=shlex.quote(str(path)), out=shlex.quote(str(out))
    )


def read_tensors(stored: Mapping[str, Stored]) -> dict[str, torch.Tensor]:
    """The tensors by name, memory-mapped where the file holds them as they are wanted."""
    by_file: dict[Path, list[str]] = defaultdict(list)
    for name, place in stored.items():
        by_file[place.file].append(name)
    found: dict[str, torch.Tensor] = {}
    for path, names in by_file.items():
        try:
            with safe_open(path, "pt") as file:
                for name in names:
                    found[name] = _as_wanted(file.get_tensor(stored[name].key), stored[name])
        except (SafetensorError, OSError) as fault:
            raise StorageError("E-MODEL-031", where=str(path), what=f"damaged ({fault})") from fault
    return {name: found[name] for name in stored}


def _as_wanted(tensor: torch.Tensor, place: Stored) -> torch.Tensor:
    part = tensor.chunk(place.parts)[place.part] if place.parts > 1 else tensor
    return part.T.contiguous() if place.is_turned else part.reshape(place.shape)


def in_words(size: int) -> str:
    """A number of bytes for people."""
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_each:
            return f"{size / bytes_each:.1f} {unit}"
    return f"{size} bytes"
