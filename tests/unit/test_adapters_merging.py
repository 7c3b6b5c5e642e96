"""LoRAs put into weights, into each other, made of two models, and checked; and what `fusain models` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from fusain.cli import models
from fusain.errors import FusainError, StorageError
from fusain.models import adapters, bases
from fusain.models.adapters import Adapter, LowRank
from fusain.models.bases import fresh

TO_K = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"
PROJ_IN = "unet.mid_block.attentions.0.proj_in"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    fresh.write(fresh.TINY, folder)
    return folder


@pytest.fixture(scope="module")
def weights(base):
    """Every weight of the base by our names."""
    found = bases.open_base(str(base)).components
    return {f"{part}.{name}": at for part in ("unet", "text_encoder") for name, at in found[part].tensors().items()}


def adapter(weights, *names, scale=1.0, seed=0, rank=2, dora=False):
    chance, layers = torch.Generator().manual_seed(seed), {}
    for name in names or (TO_K, CONV, PROJ_IN, TEXT):
        shape = weights[f"{name}.weight"].shape
        down, up = torch.randn(rank, *shape[1:], generator=chance), torch.randn(shape[0], rank, generator=chance)
        lengths = torch.rand(shape[0], generator=chance) + 1 if dora else None
        layers[name] = LowRank(down, up.reshape(*up.shape, *[1] * (len(shape) - 2)), scale, lengths)
    return Adapter(layers)


def networks(base):
    found = bases.open_base(str(base)).components
    return {part: bases.build(found[part]) for part in ("unet", "text_encoder")}


@pytest.fixture
def file(tmp_path):
    def write(made, name="lora", style="kohya", **more):
        path = tmp_path / f"{name}.safetensors"
        adapters.write(made, path, style, **more)
        return path

    return write


def run(*words: object) -> tuple[str, str]:
    done = CliRunner().invoke(models.verb, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done.stdout, done.stderr


def as_json(*words: object) -> dict:
    return json.loads(run(*words, "--format", "json")[0])


def test_apply_adds_each_change_once(base, weights):
    parts, made = networks(base), adapter(weights)
    assert adapters.apply(made, parts, strength=0.5) == 4
    after = parts["unet"].get_submodule(CONV.removeprefix("unet.")).weight
    wanted = weights[f"{CONV}.weight"] + 0.5 * made.layers[CONV].change()
    assert torch.allclose(after, wanted, atol=1e-6)
    untouched = parts["unet"].conv_in.weight
    assert torch.equal(untouched, weights["unet.conv_in.weight"])


def test_nothing_is_changed_unless_all_layers_fit(base, weights):
    parts, made = networks(base), adapter(weights)
    wide = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    layers = dict(made.layers) | {
        wide: LowRank(torch.ones(2, 1024), torch.ones(16, 2), 1.0),
        "unet.down_blocks.9.resnets.0.conv1": LowRank(torch.ones(2, 8, 3, 3), torch.ones(8, 2, 1, 1), 1.0),
        "text_encoder_2.text_projection": LowRank(torch.ones(2, 8), torch.ones(8, 2), 1.0),
    }
    other = Adapter({wide: layers.pop(wide)} | layers)
    with pytest.raises(FusainError) as caught:
        adapters.apply(other, parts)
    assert str(caught.value) == (
        "E-LORA-009 The LoRA does not fit the model: 4 of 7 layers match.\n"
        "Why: It seems to be made for Stable Diffusion 2.x. These do not match: "
        f"{wide} (LoRA: 16 x 1024, model: 16 x 16), "
        "unet.down_blocks.9.resnets.0.conv1 (LoRA: 8 x 72, model: nothing), "
        "text_encoder_2.text_projection (LoRA: 8 x 8, model: nothing).\n"
        "Do: Use it with the model that it was trained for; to leave out what does not match: --allow-partial"
    )
    assert all(torch.equal(value, weights[f"unet.{name}"]) for name, value in parts["unet"].state_dict().items()), (
        "half a LoRA is in the model"
    )
    assert adapters.apply(other, parts, allow_partial=True) == 4


def test_a_kernel_of_another_form_does_not_fit(base, weights):
    shape = weights[f"{CONV}.weight"].shape
    made = Adapter({CONV: LowRank(torch.ones(2, shape[1] * 9, 1, 1), torch.ones(shape[0], 2, 1, 1), 1.0)})
    with pytest.raises(FusainError, match="E-LORA-009"):
        adapters.apply(made, networks(base))


def test_several_loras_become_one_that_adds_the_same(weights, file, tmp_path):
    one, two = adapter(weights, scale=0.5), adapter(weights, TO_K, TEXT, scale=2.0, seed=1, rank=3)
    first, second, out = file(one, "one"), file(two, "two", "diffusers"), tmp_path / "both.safetensors"
    said, _ = run("merge", f"{first}=0.8", f"{second}=-0.5", "-o", out)
    assert said == f"{out}: 4 layers in kohya style, read back and compared\n"
    found = adapters.read(out)
    assert {name: layer.rank for name, layer in found.layers.items()} == {TO_K: 5, TEXT: 5, CONV: 2, PROJ_IN: 2}
    for name, layer in found.layers.items():
        wanted = 0.8 * one.layers[name].change()
        if name in two.layers:
            wanted = wanted - 0.5 * two.layers[name].change()
        assert torch.allclose(layer.change(), wanted, atol=1e-5)


def test_loras_into_a_base(base, weights, file, tmp_path):
    one, two = adapter(weights, TO_K, CONV), adapter(weights, TO_K, TEXT, seed=1, dora=True)
    first, second, out = file(one, "one"), file(two, "two", "diffusers"), tmp_path / "merged"
    found = as_json("merge", f"{first}=0.5", second, "--into", base, "-o", out)
    assert found == {"path": str(out), "layers": [2, 2], "matched": [2, 2]}
    parts = networks(base)
    adapters.apply(one, parts, strength=0.5)
    adapters.apply(two, parts)
    for part, merged in networks(out).items():
        wanted = parts[part].state_dict()
        assert all(torch.allclose(value, wanted[name], atol=1e-6) for name, value in merged.state_dict().items())
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert load_file(out / vae).keys() == load_file(base / vae).keys()
    with pytest.raises(StorageError, match="E-MODEL-049"):
        run("merge", first, "--into", base, "-o", out)


def test_loha_and_lokr_into_a_base_for_drawing(base, weights, tmp_path):
    chance = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(*shape, generator=chance)

    path, out = tmp_path / "lycoris.safetensors", tmp_path / "merged"
    outputs, inputs = weights[f"{TO_K}.weight"].shape
    a, b = [drawn(outputs, 2) for _ in range(2)], [drawn(2, inputs) for _ in range(2)]
    side = weights[f"{TEXT}.weight"].shape[0] // 4
    left, right = drawn(4, 4), drawn(side, side)
    loha, lokr = ("lora_unet_" + TO_K[len("unet.") :], "lora_te_" + TEXT[len("text_encoder.") :])
    parts = {f"hada_w{n + 1}_a": a[n] for n in range(2)} | {f"hada_w{n + 1}_b": b[n] for n in range(2)}
    tensors = {f"{loha.replace('.', '_')}.{name}": part for name, part in parts.items()}
    tensors[f"{loha.replace('.', '_')}.alpha"] = torch.tensor(1.0)
    tensors |= {f"{lokr.replace('.', '_')}.lokr_w1": left, f"{lokr.replace('.', '_')}.lokr_w2": right}
    save_file(tensors, path)
    assert as_json("merge", f"{path}=0.5", "--into", base, "-o", out)["matched"] == [2]
    merged = bases.open_base(str(out)).components
    after = {f"{part}.{name}": at for part in ("unet", "text_encoder") for name, at in merged[part].tensors().items()}
    changed = {name for name, value in after.items() if not torch.equal(value, weights[name])}
    assert changed == {f"{TO_K}.weight", f"{TEXT}.weight"}
    product = (a[0] @ b[0]) * (a[1] @ b[1]) / 2
    assert torch.allclose(after[f"{TO_K}.weight"], weights[f"{TO_K}.weight"] + 0.5 * product, atol=1e-5)
    assert torch.allclose(after[f"{TEXT}.weight"], weights[f"{TEXT}.weight"] + 0.5 * torch.kron(left, right), atol=1e-5)


def test_a_lora_comes_out_of_two_models_as_it_went_in(base, weights, file, tmp_path):
    made = adapter(weights, scale=0.3)
    run("merge", file(made), "--into", base, "-o", tmp_path / "tuned")
    out = tmp_path / "out.safetensors"
    found = as_json("extract", base, tmp_path / "tuned", "--rank", 2, "-o", out)
    assert found["kept"] == pytest.approx(1.0, abs=1e-6)
    again = adapters.read(out)
    assert again.layers.keys() == made.layers.keys()
    for name, layer in again.layers.items():
        assert layer.rank == 2
        assert torch.allclose(layer.change(), made.layers[name].change(), atol=1e-5)


def test_what_a_lower_rank_keeps_is_said(base, weights, file, tmp_path):
    made = adapter(weights, TO_K, CONV, rank=4)
    run("merge", file(made), "--into", base, "-o", tmp_path / "tuned")
    out = tmp_path / "out.safetensors"
    said, _ = run("extract", base, tmp_path / "tuned", "--rank", 1, "--to", "kohya", "-o", out)
    values = [torch.linalg.svdvals(layer.change().flatten(1)).square() for layer in made.layers.values()]
    share = sum(float(one[0]) for one in values) / sum(float(one.sum()) for one in values)
    assert 0.2 < share < 0.9
    assert said == (
        f"{out}: 2 layers in kohya style, read back and compared; holds {share:.1%} of the squared difference\n"
    )


def test_what_a_lora_cannot_hold_is_said(base, tmp_path):
    import shutil

    tuned = tmp_path / "tuned"
    shutil.copytree(base, tuned)
    path = tuned / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_norm_out.weight"] += 1
    save_file(tensors, path)
    with pytest.raises(FusainError) as caught:
        run("extract", base, tuned, "-o", tmp_path / "out.safetensors")
    assert str(caught.value) == (
        "E-LORA-012 The two models have no difference that a LoRA can hold (1 other weights differ).\n"
        f"Where: {tuned}\nWhy: They were compared with {base}.\n"
        "Do: Give the base first and the trained model second."
    )
    tensors["conv_in.weight"] += 1
    save_file(tensors, path)
    _, talk = run("extract", base, tuned, "-o", tmp_path / "out.safetensors")
    assert talk == (
        "W-LORA-002 1 weights that a LoRA cannot hold differ as well and are left out, such as norms and biases; "
        f"the first is 'unet.conv_norm_out.weight'. ({tuned})\n"
    )


def test_models_of_two_kinds_have_no_difference(base, tmp_path):
    other = tmp_path / "other"
    sizes = fresh.TINY.__class__(**{**vars(fresh.TINY), "unet_channels": (8, 24)})
    fresh.write(sizes, other)
    with pytest.raises(FusainError) as caught:
        run("extract", base, other, "-o", tmp_path / "out.safetensors")
    assert str(caught.value) == (
        "E-LORA-013 The two models are not of one kind: unet.down_blocks.1.attentions.0.norm.bias is not alike in "
        f"both.\nWhere: {other}\nDo: Give the base that the second model was trained from."
    )


@pytest.mark.parametrize(("style", "other"), [("kohya", "diffusers"), ("diffusers", "kohya")])
def test_convert(style, other, weights, file, tmp_path):
    made = adapter(weights, scale=0.25)
    path, out = file(made, style=style, dtype=torch.float16, metadata={"ss_steps": "7"}), tmp_path / "out.safetensors"
    said, _ = run("convert", path, "--to", other, "-o", out)
    assert said == f"{out}: 4 layers in {other} style, read back and compared\n"
    assert {at.dtype for name, at in load_file(out).items() if not name.endswith("alpha")} == {torch.float16}
    before, after = adapters.read(path), adapters.read(out)
    assert (after.style, after.metadata["ss_steps"]) == (other, "7")
    for name, layer in before.layers.items():
        assert torch.equal(layer.change(), after.layers[name].change()), "a power of two loses nothing"


def test_verify(base, weights, file):
    path = file(adapter(weights, scale=0.7))
    found = as_json("verify", path, "--base", base)
    assert (found["layers"], found["matched"], found["styles"]) == (4, 4, ["diffusers", "kohya"])
    assert found["largest"] <= 1e-6
    said, _ = run("verify", file(adapter(weights, scale=0.5, dora=True)), "--base", base)
    assert said.splitlines()[0] == f"layers  4 of 4 fit {base}"


def test_verify_finds_what_is_weaker_or_missing(base, weights, file):
    made = adapter(weights, dora=True)
    path = file(made)

    def weight_of(name):
        return weights.get(f"{name}.weight")

    assert adapters.verify(made, path, file(made, "other", "diffusers"), weight_of=weight_of).matched == 4
    tensors = load_file(path)
    key = "lora_unet_down_blocks_0_resnets_0_conv1"
    save_file(tensors | {f"{key}.alpha": tensors[f"{key}.alpha"] * 1.01}, path)
    for known in ({}, {"weight_of": weight_of}):
        with pytest.raises(FusainError, match=f"E-LORA-016 .* layer '{CONV}' is .* of its change off") as caught:
            adapters.verify(made, path, **known)
    assert str(caught.value).splitlines()[1:] == [
        f"Where: {path}",
        "Do: Write it in fp32, in a run by the same command with --method.file_dtype fp32; if it is in fp32 already, "
        "keep the run and report this.",
    ]
    save_file({name: at for name, at in tensors.items() if not name.endswith("dora_scale")}, path)
    with pytest.raises(FusainError, match="E-LORA-016"):
        adapters.verify(made, path)
    save_file({name: at for name, at in tensors.items() if not name.startswith(key)}, path)
    with pytest.raises(FusainError) as caught:
        adapters.verify(made, path)
    assert str(caught.value) == (
        "E-LORA-015 The file that was written does not hold the LoRA: 3 of 4 layers were read back; "
        f"the first that differs is '{CONV}'.\nWhere: {path}\n"
        "Do: Keep the run and report this; the weights in its checkpoints are safe."
    )
    save_file(tensors, path)
    with pytest.raises(FusainError) as caught:
        adapters.verify(made, path, weight_of={}.get)
    assert str(caught.value).startswith("E-LORA-015 The file that was written does not hold the LoRA: 0 of 4 layers ")


def test_inspect(weights, file):
    path = file(adapter(weights, scale=0.5), metadata={"ss_steps": "7", "ss_note": "a\x1b[31mb"})
    said, talk = run("inspect", path)
    assert said.splitlines()[:6] == [
        "kind          LoRA file in kohya style, F32, 12 tensors",
        "made for      not told by its shapes",
        "layers        text_encoder (1), unet (3)",
        "layer kind    LoRA (4)",
        "rank          2 (4)",
        "alpha         1.0 (4)",
    ]
    assert "ss_steps      7" in said.splitlines()
    assert "a?[31mb" in said
    assert talk == ""
    found = as_json("inspect", path)
    assert {key: found[key] for key in ("kind", "style", "architecture", "layers", "kinds", "ranks", "dtype")} == {
        "kind": "lora",
        "style": "kohya",
        "architecture": None,
        "layers": {"text_encoder": 1, "unet": 3},
        "kinds": {"LoRA": 4},
        "ranks": {"2": 4},
        "dtype": "F32",
    }


def test_inspect_a_lora_for_another_model(tmp_path):
    path = tmp_path / "flux.safetensors"
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    save_file({f"{name}.lora_down.weight": torch.ones(4, 3072), f"{name}.lora_up.weight": torch.ones(9216, 4)}, path)
    assert run("inspect", path)[0].splitlines() == [
        "kind          LoRA file in kohya style, F32, 2 tensors",
        "made for      Flux",
    ]


UNKNOWN = [f"lora_unet_down_blocks_{number}_resnets_0_norm1.diff" for number in range(7)]
LEFT_OUT = ", ".join(f"'{name}'" for name in UNKNOWN[:5]) + " and 2 more"


@pytest.fixture
def partial(weights, file):
    """A LoRA with trained norms beside it, as some trainers write them."""
    path = file(adapter(weights), "partial")
    save_file(load_file(path) | {name: torch.ones(8) for name in UNKNOWN}, path)
    return path


def test_tensors_without_a_layer_are_refused_by_count_and_name(partial, base, tmp_path):
    out, into = tmp_path / "out.safetensors", tmp_path / "merged"
    for words in (
        ("convert", partial, "--to", "diffusers", "-o", out),
        ("merge", partial, partial, "-o", out),
        ("merge", partial, "--into", base, "-o", into),
        ("verify", partial, "--base", base),
    ):
        with pytest.raises(FusainError) as caught:
            run(*words)
        assert str(caught.value) == (
            "E-LORA-024 7 of the 19 tensors of the LoRA belong to no layer of Stable Diffusion 1.x, 2.x, XL or 3: "
            f"{LEFT_OUT}. The other 12 do.\nWhere: {partial}\n"
            "Why: It seems to be made for a model of another kind.\n"
            "Do: Use a LoRA for the base that you have; to read only what has a layer: "
            "fusain models convert FILE --to diffusers --allow-partial -o NEW.safetensors"
        )
    assert not out.exists()
    assert not into.exists()


def test_tensors_without_a_layer_are_left_out_on_wish_and_said(partial, base, weights, tmp_path):
    note = (
        f"W-LORA-004 7 of the 19 tensors of the LoRA belong to no layer and are left out: {LEFT_OUT}. The other 12 are "
        f"used. ({partial})\n"
    )
    out, both, into = tmp_path / "out.safetensors", tmp_path / "both.safetensors", tmp_path / "merged"
    said, talk = run("convert", partial, "--to", "diffusers", "--allow-partial", "-o", out)
    assert (said, talk) == (f"{out}: 4 layers in diffusers style, read back and compared\n", note)
    for name, layer in adapters.read(out).layers.items():
        assert torch.allclose(layer.change(), adapter(weights).layers[name].change())
    assert run("merge", partial, out, "--allow-partial", "-o", both)[1] == note
    assert len(adapters.read(both).layers) == 4
    said, talk = run("merge", partial, "--into", base, "--allow-partial", "-o", into)
    assert (said, talk) == (f"{into}: partial.safetensors: 4 of 4 layers\n", note)
    assert run("inspect", partial)[1] == note


INTO = "fusain models merge A=0.8 B=0.5 --into BASE -o FOLDER"
TO_KOHYA = "Do: Write: fusain models convert {lora} --to kohya -o"
NOT_FITTING = (
    "E-LORA-009 The LoRA does not fit the model: 0 of 1 layers match.\n"
    "Why: It seems to be made for Stable Diffusion 2.x. These do not match: "
    f"{TO_K} (LoRA: 8 x 1024, model: 8 x 16).\n"
    "Do: Use it with the model that it was trained for; to leave out what does not match: --allow-partial"
)
REFUSED = {
    "merge {lora} -o x.safetensors": (
        "E-LORA-019 Merging needs several LoRAs, or a base to put one into.\nDo: Name several files, or add --into BASE"
    ),
    "merge {lora}=much {lora} -o x.safetensors": (
        "E-LORA-017 'much' is no strength.\nDo: Write FILE, or FILE=NUMBER as in style.safetensors=0.8"
    ),
    "merge {lora}=nan {lora} -o x.safetensors": (
        "E-LORA-017 'nan' is no strength.\nDo: Write FILE, or FILE=NUMBER as in style.safetensors=0.8"
    ),
    "merge {lora} {dora} -o x.safetensors": (
        "E-LORA-010 A DoRA layer cannot be merged with other LoRAs: what it changes is no sum of low rank.\n"
        f"Where: {CONV}\nDo: Put each into the base instead: {INTO}"
    ),
    "merge {lora} {wide} -o x.safetensors": (
        "E-LORA-011 The LoRAs do not fit each other: in one layer they change 8 x 16 and 8 x 1024.\n"
        f"Where: {TO_K}\nDo: Merge LoRAs that were made for the same model."
    ),
    "merge {lora} {lora} -o {lora}": (
        "E-MODEL-049 '{lora}' exists already; nothing is written over.\nWhere: {lora}\n"
        "Do: Choose another name, or move it away."
    ),
    "merge {wide} --into {base} -o x": NOT_FITTING,
    "verify {wide} --base {base}": NOT_FITTING,
    "convert {lora} --to diffusers -o x": (
        "E-LORA-018 A LoRA is written into a .safetensors file, and 'x' does not end so.\n"
        "Do: Give another name, as -o x.safetensors"
    ),
    "convert {lora} x.safetensors": (
        "E-LORA-020 A LoRA is converted to the style kohya or diffusers; neither is named.\nWhere: {lora}\n"
        f"{TO_KOHYA} x.safetensors"
    ),
    "convert {lora} x --to folder": (
        "E-LORA-020 A LoRA is converted to the style kohya or diffusers; neither is named.\nWhere: {lora}\n"
        f"{TO_KOHYA} x.safetensors"
    ),
    "convert {vae} --to kohya -o x.safetensors": (
        "E-LORA-002 The file holds no LoRA: this is an autoencoder alone, with 4 latent channels.\nWhere: {vae}\n"
        "Do: What a file is, is said by: fusain models inspect FILE"
    ),
    "extract {base} {base} -o x.safetensors": (
        "E-LORA-012 The two models have no difference that a LoRA can hold (0 other weights differ).\n"
        "Where: {base}\nWhy: They were compared with {base}.\n"
        "Do: Give the base first and the trained model second."
    ),
    "extract {base} {base} --rank 0 -o x.safetensors": (
        "E-LORA-014 A LoRA cannot have rank 0.\nDo: Give a whole number from 1, as --rank 16."
    ),
    "extract {base} {base} -o {lora}": (
        "E-MODEL-049 '{lora}' exists already; nothing is written over.\nWhere: {lora}\n"
        "Do: Choose another name, or move it away."
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(words, base, weights, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wide = Adapter({TO_K: LowRank(torch.ones(2, 1024), torch.ones(8, 2), 1.0)})
    places = {
        "lora": file(adapter(weights, CONV, TO_K)),
        "dora": file(adapter(weights, CONV, dora=True), "dora"),
        "wide": file(wide, "wide"),
        "base": base,
        "vae": base / "vae" / "diffusion_pytorch_model.safetensors",
    }
    before = sorted(Path().iterdir())
    with pytest.raises(FusainError) as caught:
        run(*words.format(**places).split())
    assert str(caught.value) == REFUSED[words].format(**places)
    assert sorted(Path().iterdir()) == before


def test_no_place_to_write(weights, file):
    done = CliRunner().invoke(models.verb, ["convert", str(file(adapter(weights))), "--to", "kohya"])
    assert done.exit_code == 2
    assert "Missing argument 'OUT'" in done.stderr
