"""From weights to another form of them: a pickle to safetensors, one file to a diffusers folder and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fusain.errors import SettingsError, UsageError
from fusain.models.bases import layouts, pickles, single_file, writing
from fusain.models.bases.opened import Base, Weights
from fusain.models.bases.opening import local_path, open_base
from fusain.models.bases.stored import read_header
from fusain.settings.notice import Notice

Form = Literal["folder", "single"]


@dataclass(frozen=True)
class Converted:
    """What was written, and what was left behind."""

    path: Path
    form: Form
    tensors: int
    beside: tuple[str, ...] = ()
    notes: tuple[Notice, ...] = ()


def convert(
    source: str,
    out: Path,
    *,
    form: Form | None = None,
    weights: Weights | None = None,
    tokenizer: str | None = None,
    prediction: Literal["epsilon", "v"] | None = None,
) -> Converted:
    """`source` as `out`, which must not exist; without `weights` a single file keeps what there is."""
    path = local_path(source)
    form = form or ("single" if out.suffix.lower() == ".safetensors" else "folder")
    if path is None or (path.is_dir() and form == "folder"):
        raise UsageError("E-MODEL-055", where=source)
    pickles.refuse_existing(out)
    if form == "single" and out.suffix != ".safetensors":
        raise UsageError("E-MODEL-052", path=out, source=source, out=out.with_suffix(".safetensors"))
    if path.is_dir():
        return _single_of_folder(source, out, weights or "ema", prediction)
    if form == "single" and weights is None:
        return _as_it_is(path, source, out)
    with _as_safetensors(path, out) as (plain, left):
        if form == "single":
            return Converted(out, form, writing.write_pruned(plain, out, weights or "ema"), left)
        base = single_file.open_file(plain, source=source, weights=weights or "ema", without=())
        _refuse_unread(base)
        return _folder(base, out, tokenizer, prediction, left)


def _single_of_folder(source: str, out: Path, weights: Weights, prediction: str | None) -> Converted:
    base = open_base(source, weights=weights)
    _refuse_unread(base)
    return Converted(out, "single", writing.write_single(base, out, prediction=prediction), notes=base.notes)


def _refuse_unread(base: Base) -> None:
    if layouts.plain(base.architecture) not in single_file.READABLE:
        wanted = " or ".join(map(layouts.in_words, single_file.READABLE))
        raise layouts.wrong(base.source, layouts.in_words(base.architecture), wanted, base.evidence)


def _as_it_is(path: Path, source: str, out: Path) -> Converted:
    if not pickles.looks_pickled(path):
        read_header(path)
        raise UsageError("E-MODEL-056", where=source)
    done = pickles.convert(path, out)
    return Converted(out, "single", done.tensors, done.beside)


@contextmanager
def _as_safetensors(path: Path, out: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The file itself, or what a pickle becomes for the time within; and what the pickle held beside."""
    if not pickles.looks_pickled(path):
        yield path, ()
        return
    with pickles.beside(out) as waiting:
        done = pickles.convert(path, waiting)
        yield waiting, done.beside


def _folder(base: Base, out: Path, tokenizer: str | None, prediction: str | None, left: tuple[str, ...]) -> Converted:
    said = prediction or base.prediction
    if said is None:
        raise SettingsError("E-MODEL-054", where=base.source)
    writing.write_folder(base, out, tokenizer, prediction=said)
    count = sum(len(component.stored) for component in base.components.values())
    return Converted(out, "folder", count, left, tuple(note for note in base.notes if note.code != "W-MODEL-013"))
