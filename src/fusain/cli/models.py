"""`fusain models`: what a base is, where it lies, and how it becomes safe to load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fusain.cli import output
from fusain.errors import UsageError

if TYPE_CHECKING:
    from fusain.models.adapters import Adapter, Style
    from fusain.models.adapters.inspection import Facts
    from fusain.models.bases import Base, Weights
    from fusain.settings.notice import Notice

STYLES = click.Choice(["kohya", "diffusers"])
out_option = click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="Where to write."
)
style_option = click.option(
    "--to", "style", type=STYLES, help="The style of the LoRA file; by default the first one's."
)


@click.group()
def verb() -> None:
    """Inspect, find and convert models to start from.

    \b
    Examples:
      fusain models inspect model.safetensors
      fusain models convert old.ckpt new.safetensors
      fusain models convert lora.safetensors --to kohya -o lora-kohya.safetensors
      fusain models merge style.safetensors=0.8 --into fusain:mini-sd -o merged
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
    """Say what a model or a LoRA file is."""
    from fusain.models.adapters import inspection
    from fusain.models.bases import open_base, opening

    path = None if revision else opening.local_path(source)
    if path is not None and inspection.is_lora(path):
        _inspect_lora(source, inspection.inspect(path))
        return
    base = open_base(source, revision=revision)
    data = _facts(base)
    output.show(data, _lines(base), quiet=[base.architecture])
    for note in base.notes:
        output.talk(str(note))


@verb.command("convert")
@click.argument("source")
@click.argument("out", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "also_out", type=click.Path(path_type=Path), help="Another way to give OUT.")
@click.option("--ema/--raw", "ema", default=None, help="Keep only the averaged, or only the raw weights of the UNet.")
@click.option(
    "--to",
    "form",
    type=click.Choice(["folder", "single", "kohya", "diffusers"]),
    help="Of a model: a diffusers folder, or one .safetensors. Of a LoRA: the style of its file.",
)
@click.option("--tokenizer", help="Folder of tokenizer files for --to folder.")
@click.option("--prediction", type=click.Choice(["epsilon", "v"]), help="What a single file of version 2 predicts.")
@click.option("--allow-partial", is_flag=True, help="Leave out tensors of a LoRA that belong to no layer.")
@output.format_option
def convert(
    source: str,
    out: Path | None,
    also_out: Path | None,
    ema: bool | None,
    form: Literal["folder", "single", "kohya", "diffusers"] | None,
    tokenizer: str | None,
    prediction: Literal["epsilon", "v"] | None,
    allow_partial: bool,
) -> None:
    """Make a pickle (.ckpt, .pt, .bin) safe, a folder of a single file or back, or a LoRA readable elsewhere.

    A pickle is read in a closed-off process that refuses all but plain weights. Nothing is ever written over.
    """
    from fusain.models.adapters import inspection
    from fusain.models.bases import conversion

    out = out or also_out
    if out is None:
        raise click.MissingParameter(param_hint="'OUT'", param_type="argument")
    if form == "kohya" or form == "diffusers":
        _convert_lora(source, out, form, allow_partial=allow_partial)
        return
    if inspection.is_lora(Path(source)):
        raise UsageError("E-LORA-020", where=source, source=source, out=out.with_suffix(".safetensors"))
    weights: Weights | None = None if ema is None else "ema" if ema else "raw"
    done = conversion.convert(source, out, form=form, weights=weights, tokenizer=tokenizer, prediction=prediction)
    data = {"path": str(done.path), "form": done.form, "tensors": done.tensors, "left_behind": list(done.beside)}
    output.show(data, [f"{done.path}: {done.tensors:,} tensors"], quiet=[str(done.path)])
    if done.beside:
        output.talk(f"Not kept: {', '.join(done.beside[:10])}{' …' if len(done.beside) > 10 else ''}")
    for note in done.notes:
        output.talk(str(note))


@verb.command("merge")
@click.argument("files", nargs=-1, required=True)
@click.option("--into", "base", help="Put them into the weights of this model, and write it as a diffusers folder.")
@out_option
@style_option
@click.option(
    "--allow-partial",
    is_flag=True,
    help="Leave out tensors that belong to no layer, and layers that the model does not have.",
)
@click.option("--tokenizer", help="Folder of tokenizer files, for a single file with --into.")
@output.format_option
def merge(
    files: tuple[str, ...], base: str | None, out: Path, style: Style | None, allow_partial: bool, tokenizer: str | None
) -> None:
    """Make one LoRA of several, each as FILE or FILE=STRENGTH, or put them into a model."""
    from fusain.models import adapters
    from fusain.models.adapters import commands

    pairs = [commands.with_strength(text) for text in files]
    if base is None and len(pairs) < 2:
        raise UsageError("E-LORA-019")
    read = [(adapters.read(path, allow_partial=allow_partial), strength) for path, strength in pairs]
    for adapter, _ in read:
        _talk(adapter.notes)
    if base is None:
        made = adapters.combine(read)
        _save_lora(made, out, style or ("kohya" if read[0][0].style == "kohya" else "diffusers"))
        return
    counts = commands.write_merged(base, read, out, allow_partial=allow_partial, tokenizer=tokenizer)
    layers = [len(adapter.layers) for adapter, _ in read]
    data = {"path": str(out), "layers": layers, "matched": counts}
    told = (f"{path.name}: {n} of {of} layers" for (path, _), n, of in zip(pairs, counts, layers, strict=True))
    output.show(data, [f"{out}: {', '.join(told)}"], quiet=[str(out)])


@verb.command("extract")
@click.argument("base")
@click.argument("tuned")
@click.option("--rank", type=int, default=16, show_default=True)
@out_option
@style_option
@output.format_option
def extract(base: str, tuned: str, rank: int, out: Path, style: Style | None) -> None:
    """Make a LoRA of the difference between two models."""
    from fusain.models import adapters
    from fusain.models.adapters import commands
    from fusain.models.bases import open_base

    commands.check_name(out)
    found = adapters.extract(open_base(base), open_base(tuned), rank=rank)
    _talk(found.notes)
    _save_lora(found.adapter, out, style or "diffusers", kept=found.kept)


@verb.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--base", required=True, help="The model that the LoRA is for.")
@output.format_option
def verify(file: Path, base: str) -> None:
    """Check that a LoRA file is whole, fits a model, and is as strong in both styles."""
    from fusain.models import adapters
    from fusain.models.adapters import commands
    from fusain.models.bases import open_base

    adapter = adapters.read(file)
    _talk(adapter.notes)
    found = adapters.verify_styles(adapter, commands.weights_of(open_base(base), adapter))
    styles = " and ".join(found.styles) or "no style: it can only be read"
    lines = [
        f"layers  {found.matched} of {found.layers} fit {base}",
        f"styles  written as {styles}; at most {found.largest:.1e} of a layer's change apart",
    ]
    output.show({"path": str(file), **found.as_json()}, lines, quiet=["ok"])


def _convert_lora(source: str, out: Path, style: Style, *, allow_partial: bool) -> None:
    from fusain.models import adapters
    from fusain.models.adapters import inspection

    path = Path(source)
    adapter = adapters.read(path, allow_partial=allow_partial)
    _talk(adapter.notes)
    _save_lora(adapter, out, style, dtype=inspection.dtype_of(path))


def _save_lora(adapter: Adapter, out: Path, style: Style, *, dtype: Any = None, kept: float | None = None) -> None:
    """Write it where nothing is, and read it back."""
    from fusain.models.adapters import commands

    done = commands.write_new(adapter, out, style, dtype=dtype)
    data = {"path": str(out), "style": style, "layers": done.layers, "difference": done.largest}
    line = f"{out}: {done.layers} layers in {style} style, read back and compared"
    if kept is not None:
        data["kept"] = kept
        line += f"; holds {kept:.1%} of the squared difference"
    output.show(data, [line], quiet=[str(out)])


def _inspect_lora(source: str, facts: Facts) -> None:
    from fusain.models.bases.layouts import in_words

    def counted(counts: Any) -> str:
        return ", ".join(f"{what} ({count})" for what, count in counts.items())

    def plain(text: str) -> str:
        """A stranger's words as one line that a terminal takes for nothing else."""
        clean = "".join(letter if letter.isprintable() else "?" for letter in text)
        return clean if len(clean) <= 200 else clean[:199] + "…"

    rows = [
        ("kind", f"LoRA file in {facts.style} style, {facts.dtype}, {facts.tensors:,} tensors"),
        ("made for", in_words(facts.architecture) if facts.architecture else "not told by its shapes"),
        *((name, counted(counts)) for name, counts in facts.counts.items() if counts),
        *(sorted((str(key), str(text)) for key, text in facts.metadata.items())),
    ]
    lines = [f"{plain(name):<13} {plain(text)}" for name, text in rows]
    output.show({"source": source, **facts.as_json()}, lines, quiet=[facts.architecture or "lora"])
    _talk(facts.notes)


def _talk(notes: tuple[Notice, ...]) -> None:
    for note in notes:
        output.talk(str(note))


def _facts(base: Base) -> dict[str, object]:
    return {
        "source": base.source,
        "architecture": base.architecture,
        "id": base.id if base.components else None,
        "revision": base.revision,
        "prediction": base.predicts,
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
    rows.append(("prediction", base.predicts or "the model does not say"))
    rows.append(("tokenizer", str(base.tokenizer or "none in the model")))
    rows += [("revision", base.revision)] if base.revision else []
    rows += [("id", base.id)] if base.components else [("told by", base.evidence)]
    return [f"{name:<13} {text}" for name, text in rows]
