"""Opening a base: what a source means, diffusers folders, what is refused, other autoencoders, tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusain.errors import FusainError, SettingsError, StorageError, UnsafeFileError
from fusain.models import bases
from fusain.models.bases import content, fresh, opening
from tests.unit.originals import original_file, tiny, vae_tensors


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


def test_a_folder_is_read_exactly(whole):
    from diffusers import StableDiffusionPipeline

    base = bases.open_base(str(whole))
    theirs = StableDiffusionPipeline.from_pretrained(whole, safety_checker=None)
    assert (base.architecture, base.prediction, base.tokenizer) == ("sd1", "epsilon", whole / "tokenizer")
    for name, component in base.components.items():
        wanted, found = getattr(theirs, name).state_dict(), bases.build(component).state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    tokens = theirs.tokenizer("drawn in chalk").input_ids
    assert bases.load_tokenizer(base)("drawn in chalk").input_ids == tokens


def test_building_takes_no_chance(whole):
    """Nothing is drawn from torch's generator for weights that are overwritten."""
    base = bases.open_base(str(whole))
    before = torch.random.get_rng_state()
    for component in base.components.values():
        bases.build(component)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_both_layouts_of_a_text_encoder_and_old_buffers(folder):
    path = folder / "text_encoder" / "model.safetensors"
    tensors = {name.removeprefix("text_model."): value.clone() for name, value in load_file(path).items()}
    wanted = bases.open_base(str(folder)).components["text_encoder"].tensors()
    assert all(name.startswith("text_model.") for name in wanted)
    save_file(tensors | {"embeddings.position_ids": torch.arange(77)[None]}, path)
    found = bases.open_base(str(folder)).components["text_encoder"]
    assert found.tensors().keys() == wanted.keys()
    bases.build(found)


def test_old_names_of_an_autoencoders_attention(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    wanted = {name: value.clone() for name, value in load_file(path).items()}
    tensors = {}
    for name, value in wanted.items():
        leaf = next((own for own in old if f".attentions.0.{own}." in name), None)
        tensors[name.replace(leaf, old[leaf]) if leaf else name] = value
    assert tensors.keys() != wanted.keys()
    save_file(tensors, path)
    found = bases.open_base(str(folder)).components["vae"].tensors()
    assert found.keys() == wanted.keys()


def test_weights_over_several_files(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    wanted = bases.open_base(str(folder)).components["unet"].tensors()
    names = sorted(wanted)
    halves = {"a-1.safetensors": names[:50], "a-2.safetensors": names[50:]}
    for file, inside in halves.items():
        save_file({name: wanted[name].clone() for name in inside}, path.parent / file)
    path.unlink()
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {name: file for file, inside in halves.items() for name in inside}}))
    found = bases.open_base(str(folder)).components["unet"].tensors()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    edit(index, weight_map={"x": "../../../etc/passwd"})
    assert "E-SEC-002" in refused(folder, UnsafeFileError)


def test_variants(folder):
    """fp32 before fp16; the weights before averaging only where they are asked for."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path.with_suffix(".fp16.safetensors"))
    assert bases.open_base(str(folder)).components["unet"].dtype == "F32"
    assert [note.code for note in bases.open_base(str(folder), weights="raw").notes] == ["W-MODEL-011"]
    path.rename(path.with_suffix(".non_ema.safetensors"))
    assert bases.open_base(str(folder)).components["unet"].dtype == "F16"
    raw = bases.open_base(str(folder), weights="raw")
    assert (raw.components["unet"].dtype, raw.notes) == ("F32", ())


def test_version_2_is_told_by_its_activation(folder):
    edit(folder / "text_encoder" / "config.json", hidden_act="gelu")
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    base = bases.open_base(str(folder))
    assert (base.architecture, base.prediction) == ("sd2", "v")


def test_the_identity_is_of_the_content(folder, tmp_path):
    base = bases.open_base(str(folder))
    moved = bases.open_base(str(shutil.copytree(folder, tmp_path / "moved")))
    assert moved.id == base.id
    assert len(base.id) == 64
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    changed = bases.open_base(str(folder))
    assert changed.id != base.id
    assert changed.id_of(["vae"]) != moved.id_of(["vae"])
    assert changed.id_of(["text_encoder"]) == moved.id_of(["text_encoder"])
    edit(folder / "vae" / "config.json", scaling_factor=0.5)
    assert bases.open_base(str(folder)).id not in (base.id, moved.id)


def test_an_unchanged_file_is_summed_once(folder, monkeypatch):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    wanted = content.sha256(path)
    monkeypatch.setattr(content, "_hashed", lambda path: pytest.fail("it was read again"))
    assert content.sha256(path) == wanted
    path.touch()
    with pytest.raises(pytest.fail.Exception):
        content.sha256(path)


# --- what a source means ---


def test_paths_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "dreamy").mkdir(parents=True)
    near = "E-MODEL-039 There is no such file or folder.\nWhere: models/dremy\nDo: Did you mean 'models/dreamy'?"
    assert refused("models/dremy", StorageError) == near
    for source in (
        "./some/model",
        "C:\\weights\\sd",
        "/no/such",
        "some/model.safetensors",
        "thing",
        "~/no/such",
        "a/b/c",
    ):
        assert refused(source, StorageError) == (
            f"E-MODEL-040 There is no such file or folder.\nWhere: {source}\n"
            "Do: Check the path. A model of the hub is named OWNER/NAME, one that the package carries fusain:NAME."
        )
    assert opening.local_path("owner/name") is None
    assert "E-MODEL-038 A web address is no base." in refused("https://huggingface.co/owner/name")


def test_a_revision_of_a_folder(folder):
    assert refused(folder, revision="main").startswith("E-MODEL-037 Revision 'main' has no meaning here")


def test_a_miniature(monkeypatch, tmp_path, whole):
    monkeypatch.setattr(opening.resources, "files", lambda package: tmp_path)
    shutil.copytree(whole, tmp_path / "worlds" / "mini" / "mini-sd")
    assert bases.open_base("fusain:mini-sd").folder == tmp_path / "worlds" / "mini" / "mini-sd"
    assert refused("fusain:maxi-sd") == (
        "E-MODEL-041 The package carries no model called 'maxi-sd'.\nWhere: fusain:maxi-sd\n"
        "Do: Use one of: fusain:mini-sd."
    )


# --- another autoencoder, and tokenizers ---


@pytest.mark.parametrize("layout", ["folder", "model", "original", "prefixed", "diffusers"])
def test_another_autoencoder(layout, folder, tmp_path):
    model = tiny("sd1")
    wanted = model.weights()["vae"]
    path = tmp_path / "vae.safetensors"
    if layout == "folder":
        model.vae.save_pretrained(path := tmp_path / "other")
    elif layout == "model":
        model.vae.save_pretrained((path := tmp_path / "model") / "vae")
    elif layout == "original":
        save_file(vae_tensors(wanted), path)
    elif layout == "prefixed":
        save_file({name: value.contiguous() for name, value in original_file("sd1").items()}, path)
    else:
        save_file(wanted, path)
    base = bases.open_base(str(folder), vae=str(path))
    found = base.components["vae"].tensors()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert base.id != bases.open_base(str(folder)).id
    bases.build(base.components["vae"])


def test_an_autoencoder_alone_is_scaled_as_the_base_has_it(whole, tmp_path):
    """A file does not say it; a folder does, and whether it overflows too."""
    fresh.write(fresh.TINY_XL, tmp_path / "xl")
    path = tmp_path / "vae.safetensors"
    save_file(vae_tensors(tiny("sd1").weights()["vae"]), path)
    scales = {}
    for folder in (whole, tmp_path / "xl"):
        config = bases.open_base(str(folder), vae=str(path)).components["vae"].config
        scales[folder.name] = (config["scaling_factor"], config.get("force_upcast"))
    assert scales == {"tiny": (0.18215, None), "xl": (0.13025, True)}
    tiny("sd1").vae.save_pretrained(tmp_path / "fixed")
    edit(tmp_path / "fixed" / "config.json", scaling_factor=0.13025, force_upcast=False)
    config = bases.open_base(str(tmp_path / "xl"), vae=str(tmp_path / "fixed")).components["vae"].config
    assert config["force_upcast"] is False


def test_the_tokenizers_of_xl(tmp_path):
    """A single file takes both of a folder with both; of one tokenizer alone the second differs in its padding."""
    fresh.write(fresh.TINY_XL, tmp_path / "xl")
    path = tmp_path / "xl.safetensors"
    save_file({name: value.contiguous() for name, value in original_file("sdxl").items()}, path)
    for given in ("xl", "xl/tokenizer"):
        base = bases.open_base(str(path), tokenizer=str(tmp_path / given))
        first, second = (bases.load_tokenizer(base, None, part) for part in ("tokenizer", "tokenizer_2"))
        assert (first.pad_token, second.pad_token) == ("<|endoftext|>", "!")
        assert first("a hat").input_ids == second("a hat").input_ids


def test_an_autoencoder_of_another_kind(folder, tmp_path):
    path = tmp_path / "ae.safetensors"
    tensors = vae_tensors(tiny("sd1").weights()["vae"]) | {"decoder.conv_in.weight": torch.zeros(64, 16, 3, 3)}
    save_file(tensors, path)
    assert refused(folder, vae=str(path)) == (
        "E-MODEL-047 This is an autoencoder with 16 latent channels, but an autoencoder with 4 latent channels is "
        f"needed.\nWhere: {path}\nWhy: The first that differs: decoder.conv_in.weight (64 x 16 x 3 x 3).\n"
        "Do: Use an autoencoder for the same kind of model, or leave it out."
    )
    save_file({"emb_params": torch.zeros(2, 8)}, path)
    assert refused(folder, vae=str(path)).startswith(
        "E-MODEL-044 This is a learnt token (textual inversion), but an autoencoder is needed.\n"
    )


def test_tokenizers(folder, whole, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in original_file("sd1").items()}, path)
    base = bases.open_base(str(path), tokenizer=str(whole))
    assert bases.find_tokenizer(base) == whole / "tokenizer"
    assert bases.find_tokenizer(bases.open_base(str(path)), str(whole / "tokenizer")) == whole / "tokenizer"
    assert refused(path, tokenizer=str(tmp_path)) == (
        f"E-MODEL-043 The folder holds no tokenizer.\nWhere: {tmp_path}\n"
        "Do: Give a folder that holds tokenizer.json, or vocab.json and merges.txt; a diffusers folder has one called "
        "tokenizer."
    )
    edit(folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": "evil.Tokenizer"})
    with pytest.raises(UnsafeFileError, match="`auto_map`"):
        bases.load_tokenizer(bases.open_base(str(folder)))
