"""`fusain models`: what people and scripts see, and files in other forms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from fusain.cli import models
from fusain.errors import FusainError, SettingsError, UsageError
from fusain.models import bases
from fusain.models.bases import conversion, fresh
from tests.unit.originals import original_file, tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    fresh.write(fresh.TINY, folder)
    return folder


@pytest.fixture
def single(tmp_path):
    def write(architecture: str, **more: bool) -> Path:
        path = tmp_path / f"{architecture}.safetensors"
        save_file({key: value.contiguous() for key, value in original_file(architecture, **more).items()}, path)
        return path

    return write


def run(*words: object) -> tuple[str, str]:
    done = CliRunner().invoke(models.verb, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done.stdout, done.stderr


def test_help_needs_no_torch():
    code = "import sys, fusain.cli.models as m; m.verb(['convert', '--help'], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_path(whole):
    assert run("path", whole) == (f"{whole}\n", "")
    with pytest.raises(SettingsError, match="E-MODEL-057 The model is not on this machine"):
        run("path", "owner/not-fetched")


def test_inspect_a_folder(whole):
    base = bases.open_base(str(whole))
    out, talk = run("inspect", whole)
    assert out.splitlines() == [
        "architecture  Stable Diffusion 1.x (sd1)",
        "unet          UNet2DConditionModel, 0.1 M parameters, F32",
        "vae           AutoencoderKL, 0.0 M parameters, F32",
        "text_encoder  CLIPTextModel, 0.0 M parameters, F32",
        "prediction    epsilon",
        f"tokenizer     {whole / 'tokenizer'}",
        f"id            {base.id}",
    ]
    assert talk == ""
    facts = json.loads(run("inspect", whole, "--format", "json")[0])
    assert (facts["architecture"], facts["id"]) == ("sd1", base.id)
    assert facts["components"][0] == {
        "name": "unet",
        "class": "UNet2DConditionModel",
        "parameters": base.components["unet"].parameters,
        "dtype": "F32",
    }


def test_inspect_what_cannot_be_read(tmp_path, single):
    path = tmp_path / "xl.safetensors"
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    names = {
        key: (2, 1280),
        "conditioner.embedders.0.model.x": (1,),
        "first_stage_model.decoder.conv_in.weight": (2, 4, 1, 1),
    }
    save_file({name: torch.zeros(shape) for name, shape in names.items()}, path)
    assert run("inspect", path)[0].splitlines() == [
        "architecture  the refiner of Stable Diffusion XL (sdxl-refiner)",
        "prediction    the model does not say",
        "tokenizer     none in the model",
        f"told by       {key} (2 x 1280)",
    ]
    assert "W-MODEL-013" in run("inspect", single("sd2"))[1]


@pytest.mark.parametrize("architecture", ["sd1", "sd2"])
def test_a_single_file_becomes_a_folder_that_diffusers_loads(architecture, single, whole, tmp_path):
    from diffusers import DiffusionPipeline

    path, out = single(architecture, ema=True), tmp_path / "folder"
    more = ["--prediction", "v"] if architecture == "sd2" else []
    said, _ = run("convert", path, out, "--to", "folder", "--tokenizer", whole, "--raw", *more)
    pipeline = DiffusionPipeline.from_pretrained(out)
    for name, wanted in (("unet", tiny(architecture).unet), ("text_encoder", tiny(architecture).text_encoder)):
        found = getattr(pipeline, name).state_dict()
        assert all(torch.equal(found[key], value) for key, value in wanted.state_dict().items())
    again, first = bases.open_base(str(out)), bases.open_base(str(path), weights="raw")
    assert said == f"{out}: {sum(len(part.stored) for part in again.components.values()):,} tensors\n"
    assert (again.architecture, again.prediction) == (architecture, "v" if more else "epsilon")
    for name, part in first.components.items():
        assert part.settings.items() <= {**again.components[name].settings, "model_type": None}.items()
        wanted, found = part.tensors(), again.components[name].tensors()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_what_a_file_of_version_2_predicts_must_be_said(single, whole, tmp_path):
    path = single("sd2")
    with pytest.raises(SettingsError) as caught:
        run("convert", path, tmp_path / "folder", "--tokenizer", whole)
    assert str(caught.value) == (
        f"E-MODEL-054 A single file of Stable Diffusion 2 does not say what it predicts.\nWhere: {path}\n"
        "Do: Add --prediction v for a 768 model, or --prediction epsilon for a 512 one."
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("choice", "added"), [("--ema", 1), ("--raw", 0)])
def test_one_kind_of_weights_is_kept(choice, added, single, tmp_path):
    path, out = single("sd1", ema=True), tmp_path / "small.safetensors"
    run("convert", path, out, choice)
    wanted, found = original_file("sd1"), load_file(out)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value + added if name.startswith("model.diffusion_model.") else value)


def test_a_pickle_becomes_a_folder(whole, tmp_path):
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": original_file("sd1"), "global_step": 7}, path)
    out, talk = run("convert", path, tmp_path / "new", "--tokenizer", whole)
    assert out.startswith(f"{tmp_path / 'new'}: ")
    assert "Not kept: global_step\n" in talk
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new", "old.ckpt"]
    assert bases.open_base(str(tmp_path / "new")).architecture == "sd1"


@pytest.mark.parametrize("architecture", ["sd1", "sd2", "sdxl"])
def test_a_folder_becomes_the_single_file_that_it_was(architecture, single, whole, tmp_path):
    """Every tensor as it lies in original files, under its name there."""
    path, folder, out = single(architecture), tmp_path / "folder", tmp_path / "again.safetensors"
    more = ["--prediction", "v"] if architecture == "sd2" else []
    run("convert", path, folder, "--to", "folder", "--tokenizer", whole, *more)
    run("convert", folder, out)
    wanted, found = load_file(path), load_file(out)
    marks = {"v_pred"} if architecture == "sd2" else set()
    assert not found.keys() - wanted.keys() - marks
    assert all(torch.equal(found[name], wanted[name]) for name in found.keys() - marks)
    left = {name.rpartition(".")[2] if "." in name else name for name in wanted.keys() - found.keys()}
    last = {"weight", "bias", "in_proj_weight", "in_proj_bias", "text_projection"} if architecture == "sd2" else set()
    assert left <= {"betas", "alphas_cumprod", "logvar", "position_ids", "logit_scale"} | last
    assert bases.open_base(str(out)).prediction == ("v" if architecture == "sd2" else "epsilon")


def test_a_single_file_says_what_it_predicts_and_that_nothing_of_the_image_is_left(single, whole, tmp_path):
    folder, out = tmp_path / "folder", tmp_path / "again.safetensors"
    run("convert", single("sdxl"), folder, "--to", "folder", "--tokenizer", whole)
    path = folder / "scheduler" / "scheduler_config.json"
    said = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    run("convert", folder, out)
    assert bases.open_base(str(out)).scheduler.items() >= said.items()
    path.write_text(json.dumps(said | {"prediction_type": "sample"}))
    with pytest.raises(SettingsError) as caught:
        run("convert", folder, tmp_path / "none.safetensors")
    assert str(caught.value) == (
        "E-MODEL-060 The model cannot be a single file: such files bring no configuration, and readers would take "
        "epsilon where it has sample.\nWhere: prediction\nDo: Use it as a folder, which says what it is."
    )


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        (["{whole}", "x"], UsageError, "E-MODEL-055 A folder is converted to a single file alone"),
        (
            ["{whole}", "x.safetensors"],
            SettingsError,
            "E-MODEL-060 The model cannot be a single file: such files bring no configuration, and readers would take "
            "8 where it has 2.\nWhere: unet.attention_head_dim\n",
        ),
        (["{single}", "x.safetensors"], UsageError, "E-MODEL-056 The file is safetensors already."),
        (["{single}", "x.ckpt", "--to", "single"], UsageError, "E-MODEL-052 'x.ckpt' does not end with .safetensors."),
        (["{single}", "{whole}"], FusainError, "E-MODEL-049 '{whole}' exists already; nothing is written over."),
        (["{single}", "x"], FusainError, "E-MODEL-046 The tokenizer is not at hand"),
    ],
)
def test_what_is_not_converted(words, kind, text, whole, single, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"whole": whole, "single": single("sd1")}
    with pytest.raises(kind) as caught:
        run("convert", *[word.format(**places) for word in words])
    assert str(caught.value).startswith(text.format(**places))
    assert [entry.name for entry in tmp_path.iterdir()] == ["sd1.safetensors"]


def test_another_architecture_makes_no_folder(tmp_path):
    path = tmp_path / "flux.safetensors"
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(3, 1)}, path)
    with pytest.raises(SettingsError, match=r"This is Flux, but Stable Diffusion 1\.x or Stable"):
        conversion.convert(str(path), tmp_path / "folder")
