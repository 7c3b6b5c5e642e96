"""Models that are refused: code of their own, pickles, and files that are no whole weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusain.errors import FusainError, SettingsError, StorageError, UnsafeFileError
from fusain.models import bases
from fusain.models.bases import fresh
from fusain.models.bases.stored import read_header


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder as diffusers writes it, of the smallest real networks."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    fresh.write(fresh.TINY, folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(source: object, kind: type[FusainError] = SettingsError, **more: object) -> str:
    with pytest.raises(kind) as caught:
        bases.open_base(str(source), **more)
    return str(caught.value)


def config_of(folder: Path, part: str) -> Path:
    return folder / part / "config.json"


CODE = [
    (
        "`auto_map`",
        "text_encoder/config.json",
        lambda folder: edit(config_of(folder, "text_encoder"), auto_map={"AutoModel": "evil.Model"}),
    ),
    ("`custom_pipeline`", "model_index.json", lambda folder: edit(folder / "model_index.json", custom_pipeline="evil")),
    (
        "`_attn_implementation_internal`",
        "text_encoder/config.json",
        lambda folder: edit(config_of(folder, "text_encoder"), nested={"_attn_implementation_internal": "evil/kernel"}),
    ),
    (
        "a `_class_name` that is no name",
        "model_index.json",
        lambda folder: edit(folder / "model_index.json", _class_name=["pipeline", "X"]),
    ),
    ("unet = my_unet.MyUNet", "", lambda folder: edit(folder / "model_index.json", unet=["my_unet", "MyUNet"])),
    (
        "its vae is a 'AutoencoderTiny'",
        "vae",
        lambda folder: edit(folder / "model_index.json", vae=["diffusers", "AutoencoderTiny"]),
    ),
    ("pipeline.py", "", lambda folder: (folder / "pipeline.py").write_text("raise SystemExit")),
    ("unet/my_unet.py", "", lambda folder: (folder / "unet" / "my_unet.py").write_text("raise SystemExit")),
]


@pytest.mark.parametrize(("what", "where", "spoil"), CODE, ids=[what for what, *_ in CODE])
def test_a_folder_that_brings_code(what, where, spoil, folder):
    spoil(folder)
    assert refused(folder, UnsafeFileError) == (
        f"E-SEC-002 The model asks to run code of its own ({what}).\nWhere: {folder / where}\n"
        "Why: Fusain makes only the classes of diffusers and transformers that it knows by name.\n"
        "Do: Use a model without it."
    )


def test_a_folder_of_pickles(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    pickled = path.with_suffix(".bin")
    path.rename(pickled)
    assert refused(folder, UnsafeFileError) == (
        f"E-SEC-001 '{pickled}' is a pickle file, and reading such a file can run any code.\nWhere: {folder / 'unet'}\n"
        f"Do: Convert it once, in a closed-off process: fusain models convert {pickled} {path}"
    )


SPOILT = [
    (b"", "empty (0 bytes)"),
    (b"<!DOCTYPE html><html>not found</html>", "an HTML page (a failed download?)"),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "a Git LFS pointer, not the weights themselves (git lfs pull fetches them)",
    ),
    (b"abc", "cut off (3 bytes)"),
    (b"\x00" * 100, "no safetensors file"),
    (b"\x20" + b"\0" * 7 + b"{" + b"x" * 99, "damaged: its header makes no sense"),
]


@pytest.mark.parametrize(("data", "what"), SPOILT, ids=[what for _, what in SPOILT])
def test_a_file_that_is_no_weights(data, what, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert refused(path, StorageError) == (
        f"E-MODEL-031 The file of weights is {what}.\nWhere: {path}\n"
        "Do: Download it again, and compare its size with the one that its page tells."
    )


def test_a_file_that_is_cut_off(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1_000_000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:2_100_000])
    assert refused(path, StorageError) == (
        "E-MODEL-032 The file of weights is incomplete: 2.1 MB of 4.0 MB.\n"
        f"Where: {path}\nWhy: A download or a copy was cut off.\nDo: Download it again."
    )
    path.write_bytes(whole[:20])
    assert "is incomplete: 20 bytes of more than" in refused(path, StorageError)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x04\x95"])
def test_a_pickle_under_another_name(head, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(head + b"\0" * 100)
    text = refused(path, UnsafeFileError)
    assert text.startswith(f"E-SEC-001 '{path}' is a pickle file")
    assert text.endswith(f"fusain models convert {path} {tmp_path}/model-converted.safetensors")


def test_a_pickle(tmp_path):
    path = tmp_path / "my old.ckpt"
    path.write_bytes(b"anything at all, it is not looked into")
    assert refused(path, UnsafeFileError) == (
        f"E-SEC-001 '{path}' is a pickle file, and reading such a file can run any code.\nWhere: {tmp_path}\n"
        "Do: Convert it once, in a closed-off process: "
        f"fusain models convert '{path}' '{tmp_path}/my old.safetensors'"
    )


def test_parts_that_are_missing(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert refused(folder, StorageError).startswith("E-MODEL-034 The model lacks 'diffusion_pytorch_model.safetensors'")
    (folder / "unet" / "config.json").write_text("<html>")
    assert refused(folder, StorageError).startswith("E-MODEL-033 The configuration cannot be read: Expecting value")
    (folder / "model_index.json").unlink()
    assert refused(folder, StorageError).startswith("E-MODEL-034 The model lacks 'model_index.json'")


def test_another_pipeline(folder):
    edit(folder / "model_index.json", _class_name="KandinskyPipeline")
    assert refused(folder) == (
        f"E-MODEL-036 The folder is a 'KandinskyPipeline', which Fusain does not read.\nWhere: {folder}\n"
        "Do: Use a Stable Diffusion 1.x, 2.x, XL or 3 model; those are called StableDiffusionPipeline, "
        "StableDiffusionXLPipeline or StableDiffusion3Pipeline."
    )
    edit(folder / "model_index.json", _class_name="FluxPipeline")
    base = bases.open_base(str(folder))
    assert (base.architecture, base.components) == ("flux", {})
    with pytest.raises(SettingsError, match=r"This is Flux, but Stable Diffusion 1\.x is needed"):
        bases.expect(base, "sd1")


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_length_that_looks_like_a_pickle_is_none(tmp_path, length):
    """The first bytes of a safetensors file are the length of its header: 80 02 to 80 05 are possible."""
    path = tmp_path / "model.safetensors"
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + header + bytes(4))
    assert path.read_bytes()[:1] == b"\x80"
    assert list(read_header(path).tensors) == ["weight"]
