"""`fusain models`: what a base is, where it lies, and how it becomes safe to load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fusain.cli import output

if TYPE_CHECKING:
    from fusain.models.bases import Base, Weights


@click.group()
def verb() -> None:
    """Inspect, find and convert models to start from.

    \b
    Examples:
      fusain models inspect model.safetensors
      fusain models convert old.ckpt new.safetensors
      fusain models path fusain:mini-sd
    """


@verb.command("path")
@click.argument("name")
@output.format_option
def show_path(name: str) -> None:
    """Print where a model lies on this machine; nothing is downloaded."""
    from fusain.models.bases import opening

    path = str(opening.lies_at(name))
    output.show({"name": name, "path": path}, [path], quiet=[path])


@verb.command("inspect")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@output.format_option
def inspect(source: str, revision: str | None) -> None:
    """Say what a model is, without loading it."""
    from fusain.models.bases import open_base

    base = open_base(source, revision=revision)
    data = _facts(base)
    output.show(data, _lines(base), quiet=[base.architecture])
    for note in base.notes:
        output.talk(str(note))


@verb.command("convert")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--ema/--raw", "ema", default=None, help="Keep only the averaged, or only the raw weights of the UNet.")
@click.option("--to", "form", type=click.Choice(["folder", "single"]), help="A diffusers folder, or one .safetensors.")
@click.option("--tokenizer", help="Folder of tokenizer files for --to folder.")
@click.option("--prediction", type=click.Choice(["epsilon", "v"]), help="What a single file of version 2 predicts.")
@output.format_option
def convert(
    source: str,
    out: Path,
    ema: bool | None,
    form: Literal["folder", "single"] | None,
    tokenizer: str | None,
    prediction: Literal["epsilon", "v"] | None,
) -> None:
    """Make a pickle (.ckpt, .pt, .bin) safe, or a folder of a single file.

    A pickle is read in a closed-off process that refuses all but plain weights. Nothing is ever written over.
    """
    from fusain.models.bases import conversion

    weights: Weights | None = None if ema is None else "ema" if ema else "raw"
    done = conversion.convert(source, out, form=form, weights=weights, tokenizer=tokenizer, prediction=prediction)
    data = {"path": str(done.path), "form": done.form, "tensors": done.tensors, "left_behind": list(done.beside)}
    output.show(data, [f"{done.path}: {done.tensors:,} tensors"], quiet=[str(done.path)])
    if done.beside:
        output.talk(f"Not kept: {', '.join(done.beside[:10])}{' …' if len(done.beside) > 10 else ''}")
    for note in done.notes:
        output.talk(str(note))


def _facts(base: Base) -> dict[str, object]:
    return {
        "source": base.source,
        "architecture": base.architecture,
        "id": base.id if base.components else None,
        "revision": base.revision,
        "prediction": base.prediction,
        "tokenizer": None if base.tokenizer is None else str(base.tokenizer),
        "components": [
            {"name": name, "class": part.class_name, "parameters": part.parameters, "dtype": part.dtype}
            for name, part in base.components.items()
        ],
        "notes": [note.as_json() for note in base.notes],
    }


def _lines(base: Base) -> list[str]:
    from fusain.models.bases.layouts import in_words

    rows = [("architecture", f"{in_words(base.architecture)} ({base.architecture})")]
    rows += [
        (name, f"{part.class_name}, {part.parameters / 1e6:,.1f} M parameters, {part.dtype}")
        for name, part in base.components.items()
    ]
    rows.append(("prediction", base.prediction or "the model does not say"))
    rows.append(("tokenizer", str(base.tokenizer or "none in the model")))
    rows += [("revision", base.revision)] if base.revision else []
    rows += [("id", base.id)] if base.components else [("told by", base.evidence)]
    return [f"{name:<13} {text}" for name, text in rows]
