"""LoRA files: what is written is read back as strong, in every style, and what is broken is said."""

from __future__ import annotations

import hashlib
import json
from math import sqrt

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fusain.errors import FusainError
from fusain.models import adapters
from fusain.models.adapters import Adapter, LowRank

LINEAR = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "unet.down_blocks.0.resnets.0.conv1"
POINTS = "unet.mid_block.attentions.0.proj_in"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
KOHYA_LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
SHAPES = {LINEAR: (8, 768), CONVOLUTION: (8, 6, 3, 3), POINTS: (10, 6, 1, 1), TEXT: (12, 12)}
RANK = 4


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(shape, scale=1.0, rank=RANK, *, dora=False, seed=0):
    ones = [1] * (len(shape) - 2)
    lengths = numbers(shape[0], seed=seed + 2).abs() + 1 if dora else None
    return LowRank(numbers(rank, *shape[1:], seed=seed), numbers(shape[0], rank, *ones, seed=seed + 1), scale, lengths)


def adapter(scale=1.0, *, dora=False, **more):
    return Adapter({name: layer(shape, scale, dora=dora, **more) for name, shape in SHAPES.items()})


def header(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


SCALES = {"1": 1 / RANK, "r/2": 0.5, "r": 1.0, "2r": 2.0, "rsLoRA": RANK / sqrt(RANK), "rsLoRA of 1": 1 / sqrt(RANK)}


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("style", ["diffusers", "kohya"])
@pytest.mark.parametrize("alpha", SCALES)
def test_both_styles_are_as_strong_as_the_adapter(alpha, style, dora, tmp_path):
    made, path = adapter(SCALES[alpha], dora=dora), tmp_path / "lora.safetensors"
    adapters.write(made, path, style)
    found = adapters.read(path)
    assert (found.style, found.notes, found.parts) == (style, (), {"text_encoder": 1, "unet": 3})
    for name, shape in SHAPES.items():
        weight = numbers(*shape, seed=9)
        wanted = made.layers[name].delta(weight)
        assert (found.layers[name].delta(weight) - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_files_of_half_precision(style, dtype, tmp_path):
    made, path = adapter(1 / sqrt(RANK)), tmp_path / "lora.safetensors"
    adapters.write(made, path, style, dtype=dtype)
    report = adapters.verify(made, path)
    assert report.layers == 4
    assert 0 < report.largest <= torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_dora_in_files_of_half_precision(style, dtype, tmp_path):
    """Of a change that is a small part of the weight, as learning makes it: rounded lengths would be larger than it."""
    path, layers, weights = tmp_path / "lora.safetensors", {}, {}
    for name, shape in SHAPES.items():
        weights[name], plain = numbers(*shape, seed=9), layer(shape, 1e-3)
        lengths = weights[name].flatten(1).norm(dim=1) * (1 + 1e-3 * numbers(shape[0], seed=3))
        layers[name] = LowRank(plain.down, plain.up, plain.scale, lengths)
    made = Adapter(layers)
    adapters.write(made, path, style, dtype=dtype)
    tensors = load_file(path)
    lengths = {key for key in tensors if "magnitude" in key or key.endswith("dora_scale")}
    assert len(lengths) == 4
    assert {tensors[key].dtype for key in lengths} == {torch.float32}
    assert {at.dtype for key, at in tensors.items() if key not in lengths and not key.endswith("alpha")} == {dtype}
    for name, found in adapters.read(path).layers.items():
        wanted = made.layers[name].delta(weights[name])
        assert (found.delta(weights[name]) - wanted).abs().max() <= torch.finfo(dtype).eps * wanted.abs().max(), name
    report = adapters.verify(made, path, weight_of=weights.get)
    assert (report.layers, report.matched) == (4, 4)
    assert 0 < report.largest <= torch.finfo(dtype).eps
    save_file(tensors | {key: tensors[key].to(dtype) for key in lengths}, path)
    for weight_of in (None, weights.get):
        with pytest.raises(FusainError, match="E-LORA-016"):
            adapters.verify(made, path, weight_of=weight_of)


def test_the_numbers_themselves_of_a_kohya_file(tmp_path):
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter(RANK / sqrt(RANK), dora=True), path, "kohya")
    tensors = load_file(path)
    shapes = {key.partition(".")[2]: tuple(at.shape) for key, at in tensors.items() if key.startswith(KOHYA_LINEAR)}
    assert shapes == {"alpha": (), "lora_down.weight": (4, 768), "lora_up.weight": (8, 4), "dora_scale": (8, 1)}
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    shapes = {key.partition(".")[2]: tuple(at.shape) for key, at in tensors.items() if key.startswith(conv)}
    assert shapes["lora_down.weight"] == (4, 6, 3, 3)
    assert shapes["lora_up.weight"] == (8, 4, 1, 1)
    assert shapes["dora_scale"] == (8, 1, 1, 1)
    alpha = {float(at) for key, at in tensors.items() if key.endswith(".alpha")}
    assert alpha == {RANK * sqrt(RANK)}, "alpha times the root of the rank, so that alpha / rank is the factor"


def test_dora_is_as_peft_and_lycoris_count_it():
    weight, made = numbers(8, 6, 3, 3, seed=5), layer((8, 6, 3, 3), 0.5, dora=True)
    changed = weight + 0.5 * torch.einsum("or,rihw->oihw", made.up[:, :, 0, 0], made.down)
    rows = changed.flatten(1).norm(dim=1)
    wanted = changed * (made.magnitude / rows).reshape(-1, 1, 1, 1)
    assert torch.allclose(weight + made.delta(weight), wanted, atol=1e-5)
    assert torch.equal(made.delta(weight, 0.0), torch.zeros_like(weight)), "at strength 0 the base"
    assert torch.allclose(made.delta(weight, 0.25), made.delta(weight) / 4, atol=1e-6)


def test_lengths_of_inputs_are_read_from_older_files(tmp_path):
    path, lengths = tmp_path / "lora.safetensors", numbers(1, 768, seed=3).abs() + 1
    made = layer(SHAPES[LINEAR])
    tensors = {"lora_down.weight": made.down, "lora_up.weight": made.up, "alpha": torch.tensor(4.0)}
    save_file({f"{KOHYA_LINEAR}.{key}": value for key, value in (tensors | {"dora_scale": lengths}).items()}, path)
    found, weight = adapters.read(path).layers[LINEAR], numbers(8, 768, seed=7)
    changed = weight + made.up @ made.down
    assert torch.allclose(weight + found.delta(weight), changed * lengths / changed.norm(dim=0), atol=1e-4)
    with pytest.raises(FusainError) as caught:
        adapters.write(adapters.read(path), tmp_path / "other.safetensors", "diffusers")
    assert str(caught.value) == (
        "E-LORA-008 This DoRA layer cannot be written in diffusers' style, which measures outputs; the file measures "
        f"inputs.\nWhere: {LINEAR}\n"
        "Do: Use the file as it is, or put it into a base: fusain models merge FILE --into BASE -o FOLDER"
    )


def test_the_old_style_of_diffusers(tmp_path):
    old = {
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora": "attn1.to_q",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora": "attn1.to_out.0",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora": "attn2.to_k",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2.lora": "ff.net.2",
        "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora": "self_attn.out_proj",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer": "mlp.fc1",
        "text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer": "self_attn.q_proj",
    }
    path, tensors = tmp_path / "lora.safetensors", {}
    for key in old:
        tensors |= {f"{key}.down.weight": numbers(RANK, 6), f"{key}.up.weight": numbers(6, RANK, seed=1)}
    save_file(tensors, path)
    found = adapters.read(path)
    unet, text = "unet.down_blocks.0.attentions.0.transformer_blocks.0.", "text_encoder.text_model.encoder.layers.0."
    names = [(text if end.startswith(("self", "mlp")) else unet) + end for end in old.values()]
    assert (sorted(found.layers), found.style) == (sorted(names), "old diffusers")
    wanted = numbers(6, RANK, seed=1) @ numbers(RANK, 6)
    assert all(torch.equal(one.change(), wanted) for one in found.layers.values())


def test_alphas_in_the_header_of_a_diffusers_file(tmp_path):
    path = tmp_path / "lora.safetensors"
    noted = {"unet.r": 4, "unet.lora_alpha": 2, "unet.alpha_pattern": {"resnets.0.conv1": 8}}
    noted |= {"text_encoder.lora_alpha": 6, "text_encoder.use_rslora": True}
    adapters.write(adapter(), path, "diffusers")
    save_file(load_file(path), path, {"lora_adapter_metadata": json.dumps(noted)})
    found = {name: one.scale for name, one in adapters.read(path).layers.items()}
    assert found == {LINEAR: 0.5, CONVOLUTION: 2.0, POINTS: 0.5, TEXT: 3.0}


def test_peft_saves_what_is_read(tmp_path):
    """The state of a real PEFT adapter with rsLoRA and DoRA, as diffusers' training scripts save it."""
    from diffusers import StableDiffusionPipeline
    from diffusers.loaders.lora_base import _pack_dict_with_prefix
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    network = torch.nn.ModuleDict({"conv_in": torch.nn.Conv2d(4, 6, 3), "conv_out": torch.nn.Conv2d(6, 4, 3)})
    before = {name: module.weight.detach().clone() for name, module in network.items()}
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["conv_in", "conv_out"], use_rslora=True, use_dora=True)
    model = get_peft_model(network, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += numbers(*parameter.shape, seed=4).abs()
    state = {k.removeprefix("base_model.model."): v for k, v in get_peft_model_state_dict(model).items()}
    metadata = _pack_dict_with_prefix({"lora_alpha": 6, "use_rslora": True}, "unet")
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=None)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(load_file(path), path, {"lora_adapter_metadata": json.dumps(metadata)})
    found, merged = adapters.read(path), model.merge_and_unload()
    for name, weight in before.items():
        wanted = merged[name].weight.detach() - weight
        assert (found.layers[f"unet.{name}"].delta(weight) - wanted).abs().max() < 1e-5


def test_lycoris_forms(tmp_path):
    """Against the definitions: a product of products, a Kronecker product, and a core between two matrices."""
    path = tmp_path / "lora.safetensors"
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    parts = {
        f"hada_w{n}_{side}": numbers(*shape, seed=n) for n in (1, 2) for side, shape in (("a", (8, 2)), ("b", (2, 768)))
    }
    core = {
        "lora_down.weight": numbers(2, 6, 1, 1),
        "lora_up.weight": numbers(8, 3, 1, 1),
        "lora_mid.weight": numbers(3, 2, 3, 3),
    }
    te = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    kron = {"lokr_w1": numbers(3, 3), "lokr_w2_a": numbers(4, 2), "lokr_w2_b": numbers(2, 4)}
    tensors = {f"{KOHYA_LINEAR}.{key}": value for key, value in parts.items()}
    tensors |= {f"{conv}.{key}": value for key, value in core.items()}
    tensors |= {f"{te}.{key}": value for key, value in kron.items()}
    tensors |= {f"{name}.alpha": torch.tensor(1.0) for name in (KOHYA_LINEAR, conv, te)}
    save_file(tensors, path)
    found = adapters.read(path).layers
    product = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    assert torch.allclose(found[LINEAR].delta(torch.zeros(8, 768)), product / 2)
    small = torch.kron(kron["lokr_w1"], kron["lokr_w2_a"] @ kron["lokr_w2_b"])
    assert torch.allclose(found[TEXT].delta(torch.zeros(12, 12)), small / 2)
    image = numbers(1, 6, 5, 5, seed=8)
    inner = torch.nn.functional.conv2d(image, core["lora_down.weight"])
    inner = torch.nn.functional.conv2d(inner, core["lora_mid.weight"], padding=1)
    wanted = torch.nn.functional.conv2d(inner, core["lora_up.weight"]) / 2
    change = found[CONVOLUTION].delta(torch.zeros(8, 6, 3, 3))
    assert torch.allclose(torch.nn.functional.conv2d(image, change, padding=1), wanted, atol=1e-4)
    network = torch.nn.ModuleDict({"x": torch.nn.Linear(1, 1)})
    with pytest.raises(FusainError, match="E-LORA-009"):
        adapters.apply(adapters.read(path), {"unet": network})
    with pytest.raises(FusainError) as caught:
        adapters.write(adapters.read(path), tmp_path / "new.safetensors", "kohya")
    assert str(caught.value) == (
        f"E-LORA-007 A LoKr layer cannot be written as a LoRA: its change has no low rank.\nWhere: {TEXT}\n"
        "Do: Use the file as it is, or put it into a base: fusain models merge FILE --into BASE -o FOLDER"
    )


def test_lycoris_forms_of_convolutions(tmp_path):
    """Spelt out number by number: LyCORIS stores the outputs' matrix on its side where a core stands between."""
    path, conv = tmp_path / "lora.safetensors", "lora_unet_down_blocks_0_resnets_0_conv1"
    a, b = [numbers(2, 8, seed=n) for n in (1, 2)], [numbers(2, 6, seed=n) for n in (3, 4)]
    core = [numbers(2, 2, 3, 3, seed=n) for n in (5, 6)]
    tensors = {f"{conv}.hada_w{n + 1}_a": a[n] for n in range(2)} | {f"{conv}.hada_w{n + 1}_b": b[n] for n in range(2)}
    tensors |= {f"{conv}.hada_t{n + 1}": core[n] for n in range(2)} | {f"{conv}.alpha": torch.tensor(3.0)}
    points, left, right = "lora_unet_mid_block_attentions_0_proj_in", numbers(2, 3), numbers(5, 2, 1, 1, seed=1)
    tensors |= {f"{points}.lokr_w1": left, f"{points}.lokr_w2": right, f"{points}.alpha": torch.tensor(3.0)}
    save_file(tensors, path)
    found = adapters.read(path).layers
    change = found[CONVOLUTION].delta(torch.zeros(8, 6, 3, 3))
    for out, into, row, column in ((0, 1, 2, 0), (7, 5, 1, 2), (3, 0, 0, 1)):
        sums = [
            sum(core[n][i, j, row, column] * a[n][i, out] * b[n][j, into] for i in range(2) for j in range(2))
            for n in range(2)
        ]
        assert float(change[out, into, row, column]) == pytest.approx(float(1.5 * sums[0] * sums[1]), rel=1e-4)
    change = found[POINTS].delta(torch.zeros(10, 6, 1, 1))
    assert float(change[7, 5, 0, 0]) == pytest.approx(float(left[1, 2] * right[2, 1, 0, 0])), "alpha counts not here"


def test_the_core_of_locon_is_written_into_its_neighbour(tmp_path):
    path = tmp_path / "lora.safetensors"
    made = Adapter({CONVOLUTION: LowRank(numbers(2, 6, 1, 1), numbers(8, 3, 1, 1), 0.5, mid=numbers(3, 2, 3, 3))})
    adapters.write(made, path, "diffusers")
    assert load_file(path)[f"{CONVOLUTION}.lora_A.weight"].shape == (3, 6, 3, 3)
    assert adapters.verify(made, path).layers == 1


def test_the_header(tmp_path):
    path = tmp_path / "my style.safetensors"
    given = {"ss_sd_model_name": "/home/me/models/v1-5.safetensors", "ss_steps": "500", "ss_learning_rate": "0.0001"}
    tags = {"ss_tag_frequency": json.dumps({"10_sks dog": {"red/blue": 3}})}
    adapters.write(adapter(0.5), path, "kohya", metadata=given | tags)
    found = header(path)
    body = path.read_bytes()
    digest = hashlib.sha256(body[8 + int.from_bytes(body[:8], "little") :]).hexdigest()
    assert found == tags | {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "my style",
        "modelspec.hash_sha256": f"0x{digest}",
        "sshs_model_hash": digest,
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "2",
        "ss_steps": "500",
        "ss_learning_rate": "0.0001",
    }


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
def test_one_adapter_is_always_the_same_bytes(style, tmp_path):
    """So that a copy of a file is known again, and a file that is published twice is no new one."""
    given = {f"ss_{number}": str(number) for number in range(20)} | {"ss_note": "ünïcode"}
    written = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "lora.safetensors"
        adapters.write(adapter(0.5), path, style, metadata=dict(sorted(given.items(), reverse=name == "other")))
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert header(path)["ss_note"] == "ünïcode"
    assert adapters.verify(adapter(0.5), path).largest <= 1e-6


def test_which_model_a_header_names():
    assert adapters.for_model("sd2", "v") == {
        "modelspec.architecture": "stable-diffusion-v2-768-v/lora",
        "ss_base_model_version": "sd_v2_v",
    }
    assert adapters.for_model("sd1", "epsilon")["ss_base_model_version"] == "sd_v1"
    assert adapters.for_model("") == {}


@pytest.mark.parametrize(
    "secret", [r"C:\Users\me\lora", "~/lora", "see /data/runs/one", r"\\server\share", '{"a": "/x/y"}']
)
def test_no_path_gets_into_a_header(secret, tmp_path):
    path = tmp_path / "lora.safetensors"
    made = Adapter(adapter().layers, {"ss_output_name": secret, "ss_training_comment": "https://example.org/a/b"})
    adapters.write(made, path, "diffusers", metadata={"ss_x": secret})
    found = header(path)
    assert not {"ss_output_name", "ss_x"} & found.keys()
    assert found["ss_training_comment"] == "https://example.org/a/b"


def broken(tensors, what):
    key = f"{KOHYA_LINEAR}.lora_up.weight"
    if what == "nan":
        tensors[key][0, 0] = float("nan")
    elif what == "half":
        del tensors[key]
    elif what == "ranks":
        tensors[key] = torch.zeros(8, 3) + 1
    elif what == "flux":
        name = "lora_unet_double_blocks_0_img_attn_qkv"
        tensors = {f"{name}.lora_down.weight": numbers(4, 3072), f"{name}.lora_up.weight": numbers(9216, 4)}
    elif what == "base":
        tensors = {"model.diffusion_model.input_blocks.0.0.weight": numbers(320, 4, 3, 3)}
    elif what == "nothing known":
        tensors = {"a": numbers(2)}
    return tensors


LAYER = LINEAR
FAULTS = {
    "nan": (
        f"E-LORA-003 '{KOHYA_LINEAR}.lora_up.weight' of the LoRA holds numbers that are not finite (NaN or infinite).\n"
        "Where: {path}\n"
        "Why: Images drawn with it would be black or noise.\n"
        "Do: Use an earlier save of the same training, or train it again with a lower learning rate."
    ),
    "half": (
        f"E-LORA-004 Half of a pair is missing: layer '{LAYER}' has no 'up', only alpha, down.\n"
        "Where: {path}\n"
        "Do: Download the file again; if it is whole, its writer left layers out, and it cannot be used."
    ),
    "ranks": (
        f"E-LORA-005 The two halves of layer '{LAYER}' do not fit each other: 4 x 768 and 8 x 3.\n"
        "Where: {path}\n"
        "Why: The first number of the one and the second of the other are the rank, and must be equal.\n"
        "Do: Download the file again; if it is whole, it cannot be used."
    ),
    "flux": (
        "E-LORA-006 None of the 2 tensors of the LoRA belongs to a layer of Stable Diffusion 1.x, 2.x, XL or 3: "
        "'lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight', "
        "'lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight'.\n"
        "Where: {path}\n"
        "Why: It seems to be made for Flux.\n"
        "Do: Use a LoRA for the base that you have."
    ),
    "base": (
        "E-LORA-002 The file holds no LoRA: this is the UNet alone.\n"
        "Where: {path}\n"
        "Do: What a file is, is said by: fusain models inspect FILE"
    ),
    "nothing known": (
        "E-LORA-002 The file holds no LoRA: none of its names is known.\n"
        "Where: {path}\n"
        "Do: What a file is, is said by: fusain models inspect FILE"
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_broken_files_and_files_for_other_models(what, tmp_path):
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter(), path, "kohya")
    save_file(broken(load_file(path), what), path)
    with pytest.raises(FusainError) as caught:
        adapters.read(path)
    assert str(caught.value) == FAULTS[what].format(path=path)


def test_a_file_that_is_not_there_and_a_pickle(tmp_path):
    with pytest.raises(FusainError) as caught:
        adapters.read(tmp_path / "none.safetensors")
    assert str(caught.value) == (
        f"E-LORA-001 There is no LoRA file here.\nWhere: {tmp_path / 'none.safetensors'}\n"
        "Do: Give the path of a .safetensors file."
    )
    path = tmp_path / "lora.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(FusainError, match=r"E-SEC-001 .*\n.*\nDo: Convert it once"):
        adapters.read(path)


def test_what_is_assumed_is_said(tmp_path):
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter(2.0), path, "kohya")
    tensors = {key: value for key, value in load_file(path).items() if key != f"{KOHYA_LINEAR}.alpha"}
    tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"].zero_()
    save_file(tensors, path)
    found = adapters.read(path)
    assert [str(note) for note in found.notes] == [
        "W-LORA-001 1 of 4 layers of the LoRA say no alpha; alpha = rank is assumed, as other tools do. "
        f"({path}) If its images are too strong, use it at a lower strength.",
        "W-LORA-003 1 tensors of the LoRA hold nothing but zeros, the first is "
        "'lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight': these layers change nothing. "
        f"({path})",
    ]
    assert (found.layers[LINEAR].scale, found.layers[TEXT].scale) == (1.0, 2.0)


def missing(count, total, path):
    return (
        f"W-LORA-001 {count} of {total} layers of the LoRA say no alpha; alpha = rank is assumed, as other tools do. "
        f"({path}) If its images are too strong, use it at a lower strength."
    )


def test_a_missing_alpha_is_said_in_every_style(tmp_path):
    """But of files that are written here: their second matrix holds the factor, and they say so."""
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter(0.5), path, "diffusers")
    assert header(path)["fusain.alpha"] == "in lora_B"
    found = adapters.read(path)
    assert found.notes == ()
    tensors = load_file(path)
    save_file(tensors, path)
    assert [str(note) for note in adapters.read(path).notes] == [missing(4, 4, path)]
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 4})})
    assert [str(note) for note in adapters.read(path).notes] == [missing(1, 4, path)], "the text encoder's"
    old = f"{LINEAR.replace('attn2.to_k', 'attn2.processor.to_k_lora')}"
    save_file({f"{old}.down.weight": numbers(RANK, 6), f"{old}.up.weight": numbers(6, RANK)}, path)
    assert [str(note) for note in adapters.read(path).notes] == [missing(1, 1, path)]
    adapters.write(found, path, "kohya")
    assert "fusain.alpha" not in header(path)


def test_a_missing_alpha_of_lokr_is_said_where_it_would_count(tmp_path):
    path = tmp_path / "lora.safetensors"
    whole = {f"{KOHYA_LINEAR}.lokr_w1": numbers(2, 2), f"{KOHYA_LINEAR}.lokr_w2": numbers(4, 384)}
    save_file(whole, path)
    assert adapters.read(path).notes == ()
    del whole[f"{KOHYA_LINEAR}.lokr_w2"]
    save_file({**whole, f"{KOHYA_LINEAR}.lokr_w2_a": numbers(4, 2), f"{KOHYA_LINEAR}.lokr_w2_b": numbers(2, 384)}, path)
    found = adapters.read(path)
    assert [str(note) for note in found.notes] == [missing(1, 1, path)]
    assert found.layers[LINEAR].scale == 1.0


@pytest.mark.parametrize(
    ("noted", "value"),
    [
        ({"unet.lora_alpha": "four"}, "four"),
        ({"unet.lora_alpha": None}, "None"),
        ({"unet.lora_alpha": [4]}, "[4]"),
        ({"unet.lora_alpha": float("nan")}, "nan"),
        ({"unet.lora_alpha": 4, "unet.alpha_pattern": [1, 2]}, "[1, 2]"),
        ({"unet.lora_alpha": 4, "unet.alpha_pattern": {"attn2.to_k": "x" * 99}}, "x" * 40),
    ],
)
def test_an_alpha_in_the_header_that_is_no_number(noted, value, tmp_path):
    path = tmp_path / "lora.safetensors"
    adapters.write(Adapter({LINEAR: layer(SHAPES[LINEAR])}), path, "diffusers")
    save_file(load_file(path), path, {"lora_adapter_metadata": json.dumps(noted)})
    with pytest.raises(FusainError) as caught:
        adapters.read(path)
    assert str(caught.value) == (
        f"E-LORA-023 The alpha of layer '{LINEAR}' is no number: {value}.\nWhere: {path}\n"
        "Why: How much the LoRA counts is alpha divided by its rank.\n"
        "Do: Download the file again; if it is whole, its writer noted it wrongly, and it cannot be used."
    )


def test_an_alpha_without_a_number(tmp_path):
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter(), path, "kohya")
    save_file(load_file(path) | {f"{KOHYA_LINEAR}.alpha": torch.empty(0)}, path)
    with pytest.raises(FusainError, match=f"E-LORA-023 The alpha of layer '{LINEAR}' is no number: nothing"):
        adapters.read(path)


def test_what_is_left_of_a_layer_in_an_unknown_form_is_no_half_of_a_pair(tmp_path):
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter(), path, "kohya")
    tensors = load_file(path)
    tensors[f"{KOHYA_LINEAR}.oft_blocks"] = tensors.pop(f"{KOHYA_LINEAR}.lora_down.weight")
    del tensors[f"{KOHYA_LINEAR}.lora_up.weight"]
    save_file(tensors, path)
    with pytest.raises(FusainError, match=r"E-LORA-024 2 of the 11 tensors .*_to_k\.oft_blocks', '.*_to_k\.alpha'\. "):
        adapters.read(path)
    found = adapters.read(path, allow_partial=True)
    assert sorted(found.layers) == sorted(SHAPES.keys() - {LINEAR})
