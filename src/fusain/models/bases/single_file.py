"""A base in one safetensors file of the original layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fusain.errors import SettingsError, StorageError
from fusain.models import text_names
from fusain.models.bases import detection, inferred, layouts, naming
from fusain.models.bases.building import CLASSES
from fusain.models.bases.opened import Base, Component, Weights
from fusain.models.bases.stored import Header, Shapes, Stored, read_header
from fusain.settings.notice import Notice

READABLE: Final = ("sd1", "sd2", "sdxl")
CLASS_NAMES: Final = {name: next(iter(classes)) for name, classes in CLASSES.items()}
NEVER_NEEDED: Final = (
    naming.EMA_PREFIX,
    *("alphas_cumprod", "betas", "log_one_minus_", "logvar", "lvlb_weights", "posterior_", "scale_factor", "sqrt_"),
    *("first_stage_model.loss.", "first_stage_model.model_ema.", "v_pred", "ztsnr"),
    *("cond_stage_model.logit_scale", "cond_stage_model.text_projection", "denoiser."),
)
"""Schedules, averages and losses that training left in such files."""
NEVER_NEEDED_TEXT: Final = ("logit_scale", "attn_mask", "visual.", "vision_model.")
"""Of CLIP, what is not its text encoder."""

Infer = Callable[[Shapes, Mapping[str, Any]], dict[str, Any]]


def open_file(path: Path, *, source: str, weights: Weights, without: Sequence[str]) -> Base:
    """What the file holds; of architectures that are only told apart, no component is read."""
    header = read_header(path)
    found = detection.look(header.shapes)
    if found is None:
        raise SettingsError(
            "E-MODEL-048", where=source, count=len(header.tensors), first=next(iter(header.tensors), "")
        )
    if found.holds[0] not in detection.WHOLE:
        raise layouts.wrong(source, found.words, "a whole model", found.evidence)
    missing = [detection.WORDS[part] for part in detection.WHOLE if part not in (*found.holds, *without)]
    plain = layouts.plain(found.architecture)
    if missing and plain in ("", *READABLE):
        raise SettingsError("E-MODEL-045", where=source, missing=" and no ".join(missing), found=found.words)
    if plain not in READABLE:
        return Base(source, found.architecture, {}, evidence=found.evidence)
    notes: list[Notice] = []
    components = {
        part: open_part(header, part, plain, weights, notes)
        for part in layouts.COMPONENTS[plain]
        if part not in without
    }
    scheduler = {**inferred.published(plain)["scheduler"], **_prediction(header)}
    if "prediction_type" not in scheduler:
        notes.append(Notice("W-MODEL-013", where=source))
    notes += _unused(header, components, source)
    return Base(
        source,
        found.architecture,
        components,
        scheduler,
        hides_by_zeros=plain == "sdxl",
        evidence=found.evidence,
        notes=tuple(notes),
    )


def open_part(header: Header, part: str, architecture: str, weights: Weights, notes: list[Notice]) -> Component:
    """One network of the file, its weights named as diffusers names them."""
    try:
        if part.startswith("text_encoder"):
            return _text_encoder(header, part, architecture)
        config, stored = (_unet if part == "unet" else autoencoder)(header, architecture)
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as fault:
        name = detection.WORDS[part]
        raise StorageError("E-MODEL-053", where=str(_path(header)), part=name, name=fault.args[0]) from fault
    if part == "unet":
        told = notes if architecture != "sdxl" else []  # files of XL never hold both
        stored = averaged(header, stored, weights, told)
    return Component(part, CLASS_NAMES[part], config, _named(header, part, config, stored))


def _path(header: Header) -> Path:
    return next(iter(header.tensors.values())).file


def _under(header: Header, prefix: str) -> dict[str, Stored]:
    return {name.removeprefix(prefix): at for name, at in header.tensors.items() if name.startswith(prefix)}


def _shapes(stored: Mapping[str, Stored]) -> dict[str, tuple[int, ...]]:
    return {name: at.shape for name, at in stored.items()}


def _unet(header: Header, architecture: str) -> tuple[dict[str, Any], dict[str, Stored]]:
    stored = _under(header, naming.PREFIXES["unet"])
    config = inferred.unet(_shapes(stored), inferred.published(architecture)["unet"])
    pooled = header.tensors.get(naming.TEXT_PREFIXES["sdxl"]["text_encoder_2"] + "text_projection")
    if architecture == "sdxl" and pooled is not None:  # beside the pooled text there are six numbers, each so wide
        width = config["projection_class_embeddings_input_dim"] - pooled.shape[1]
        config["addition_time_embed_dim"] = width // 6
    return config, stored


def autoencoder(header: Header, architecture: str) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Of an original file, whole or of the autoencoder alone."""
    stored = _under(header, naming.PREFIXES["vae"]) or dict(header.tensors)
    stored = {name: at for name, at in stored.items() if not name.startswith(("loss.", "model_ema."))}
    return inferred.vae(_shapes(stored), inferred.published(architecture)["vae"]), stored


def averaged(header: Header, stored: dict[str, Stored], weights: Weights, notes: list[Notice]) -> dict[str, Stored]:
    """The averaged weights in place of the others, where they are asked for and there."""
    if weights == "raw":
        return stored
    ema = {name: header.tensors.get(naming.ema_name(name)) for name in stored}
    if not any(ema.values()):
        notes.append(Notice("W-MODEL-012", where=str(_path(header))))
        return stored
    lacking = sorted(name for name, at in ema.items() if at is None)
    if lacking:
        facts = {"missing": len(lacking), "total": len(ema), "first": naming.ema_name(lacking[0])}
        raise StorageError("E-MODEL-051", where=str(_path(header)), weights="ema", other="raw", **facts)
    return {name: at for name, at in ema.items() if at is not None}


def _named(header: Header, part: str, config: Mapping[str, Any], stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Under their diffusers names; a weight that has none is an error, never silence."""
    names = naming.diffusers_names(part, config, stored)
    unknown = sorted(stored.keys() - names.keys())
    if unknown:
        facts = {"matched": len(names), "total": len(stored), "first": stored[unknown[0]].key}
        raise StorageError("E-MODEL-002", where=str(_path(header)), **facts)
    return {own: _cut(stored[name], owns, own) for name, owns in names.items() for own in owns}


def _cut(at: Stored, owns: Sequence[str], own: str) -> Stored:
    """One part of what several weights share; a convolution of one pixel as the matrix that diffusers makes of it."""
    shape = at.shape
    if ".mid_block.attentions." in own and own.startswith(("encoder.", "decoder.")):
        shape = shape[:2] if len(shape) == 4 else shape
    if len(owns) > 1:
        shape = (shape[0] // len(owns), *shape[1:])
    is_turned = own == naming.TURNED
    return Stored(at.file, at.key, shape[::-1] if is_turned else shape, at.dtype, owns.index(own), len(owns), is_turned)


def _text_encoder(header: Header, part: str, architecture: str) -> Component:
    """CLIP as transformers saves it, or OpenCLIP; of that in 2.x the last layer is left out as in training."""
    known = inferred.published(architecture)[part]
    stored = _under(header, naming.TEXT_PREFIXES[architecture][part])
    stored = {name: at for name, at in stored.items() if not name.startswith(NEVER_NEEDED_TEXT)}
    # Files without a projection were written back from diffusers, which does not keep that layer.
    drops_last = architecture == "sd2" and "text_projection" in stored
    if CLASS_NAMES[part] == "CLIPTextModel":
        stored = {name: at for name, at in stored.items() if not name.startswith("text_projection")}
    if known["hidden_act"] == "quick_gelu":
        named = text_names.as_written(stored)
    else:
        layers = inferred.count(_shapes(stored), "transformer.resblocks.")
        if drops_last:
            last = f"transformer.resblocks.{layers - 1}."
            stored = {name: at for name, at in stored.items() if not name.startswith(last)}
        named = _named(header, part, {**known, "num_hidden_layers": layers}, stored)
    return Component(part, CLASS_NAMES[part], inferred.text_encoder(_shapes(named), known), named)


def _prediction(header: Header) -> dict[str, Any]:
    """What the file says of its prediction: by the key that trainers of v models leave, or in its metadata."""
    said = header.metadata.get("modelspec.prediction_type", "")
    if "v_pred" in header.tensors or said == "v":
        zero = {"rescale_betas_zero_snr": True} if "ztsnr" in header.tensors else {}
        return {"prediction_type": "v_prediction", **zero}
    return {"prediction_type": "epsilon"} if said == "epsilon" else {}


def _unused(header: Header, components: Mapping[str, Component], source: str) -> Iterator[Notice]:
    """What the file holds beside the networks and what such files always hold."""
    used = {at.key for part in components.values() for at in part.stored.values()}
    texts = [prefix for of in naming.TEXT_PREFIXES.values() for prefix in of.values()]
    prefixes = (*NEVER_NEEDED, *naming.PREFIXES.values(), *texts)
    rest = sorted(name for name in header.tensors if name not in used and not name.startswith(prefixes))
    if rest:
        yield Notice("W-MODEL-014", where=source, count=len(rest), first=rest[0])
