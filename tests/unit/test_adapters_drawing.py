"""LoRA files as diffusers loads them: what it draws is what the merged base draws."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from math import sqrt

import pytest
import torch

from fusain.models import adapters
from fusain.models.adapters import Adapter, LowRank
from fusain.models.bases import fresh

RANK = 4
ATTENTION = ("attn1.to_q", "attn1.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("resnets.0.conv1", "downsamplers.0.conv", "resnets.0.time_emb_proj", "attentions.0.proj_in")
TEXT = ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


@pytest.fixture(scope="module", params=[fresh.TINY, fresh.TINY_XL], ids=["sd", "sdxl"])
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    fresh.write(request.param, folder)
    return folder


@cache
def opened(base):
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(base)


def pipeline(base):
    """As it was opened, in networks of its own."""
    own = opened(base)
    more = {} if is_xl(own) else {"requires_safety_checker": False}
    return type(own)(**{name: deepcopy(part) for name, part in own.components.items()}, **more)


def is_xl(pipe):
    return hasattr(pipe, "text_encoder_2")


def networks(pipe):
    found = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    return found | ({"text_encoder_2": pipe.text_encoder_2} if is_xl(pipe) else {})


def layers_of(pipe, targets):
    """Every layer whose path ends with one of `targets`, by our names."""
    for part, network in networks(pipe).items():
        for path, module in network.named_modules():
            if path.endswith(targets) and hasattr(module, "weight"):
                prefix = "" if part == "unet" or path.startswith("text_model.") else "text_model."
                yield f"{part}.{prefix}{path}", module.weight


def adapter_for(pipe, targets, scale, *, dora=False, seed=0, rank=RANK):
    chance = torch.Generator().manual_seed(seed)
    made = {}
    for name, weight in layers_of(pipe, targets):
        down = torch.randn(rank, *weight.shape[1:], generator=chance) * 0.2
        up = torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2), generator=chance) * 0.2
        lengths = weight.detach().flatten(1).norm(dim=1) * (1 + torch.rand(len(weight), generator=chance))
        made[name] = LowRank(down, up, scale, lengths if dora else None)
    return Adapter(made, adapters.for_model("sdxl" if is_xl(pipe) else "sd1"))


@cache
def inputs():
    chance = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 8, 8, generator=chance), torch.tensor([1, 500])


@torch.no_grad()
def seen(pipe):
    """What the text encoders make of words, and what the UNet makes of that."""
    tokens = torch.arange(2 * 77).reshape(2, 77) % 400
    states = pipe.text_encoder(tokens)[0]
    beside = {}
    if is_xl(pipe):
        second = pipe.text_encoder_2(tokens, output_hidden_states=True)
        states = torch.cat([states, second.hidden_states[-1]], dim=-1)
        beside = {"added_cond_kwargs": {"text_embeds": second[0], "time_ids": torch.arange(12).reshape(2, 6) * 9.0}}
    drawn = pipe.unet(*inputs(), encoder_hidden_states=states, **beside).sample
    return torch.cat([drawn.flatten(), states.flatten()])


CASES = {
    "alpha 1": (1 / RANK, False),
    "alpha r/2": (0.5, False),
    "alpha r": (1.0, False),
    "alpha 2r": (2.0, False),
    "rsLoRA": (RANK / sqrt(RANK), False),
    "rsLoRA of 3": (3 / sqrt(RANK), False),
    "DoRA": (1.0, True),
    "DoRA, alpha 2r": (2.0, True),
}
TARGETS = {
    "attention": (*ATTENTION, *TEXT),
    "convolutions": CONVOLUTIONS,
    "all": (*ATTENTION, *CONVOLUTIONS, *TEXT),
    "text, mlp alone": ("mlp.fc1", "mlp.fc2"),
}


def drawn_alike(base, path, adapter):
    loaded, merged = pipeline(base), pipeline(base)
    before = seen(merged)
    loaded.load_lora_weights(path)
    assert adapters.apply(adapter, networks(merged)) == len(adapter.layers)
    wanted = seen(merged)
    assert (wanted - before).abs().max() > 1e-2, "a test that sees nothing"
    assert (seen(loaded) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("targets", TARGETS)
def test_diffusers_draws_its_style_as_strong_as_the_merged_base(targets, case, base, tmp_path):
    scale, dora = CASES[case]
    adapter = adapter_for(pipeline(base), TARGETS[targets], scale, dora=dora)
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter, path, "diffusers")
    drawn_alike(base, path, adapter)


@pytest.mark.parametrize("case", ["alpha 1", "alpha 2r", "rsLoRA of 3"])
@pytest.mark.parametrize("targets", TARGETS)
def test_diffusers_draws_kohyas_style_as_strong_as_the_merged_base(targets, case, base, tmp_path):
    """Without DoRA, which diffusers leaves out of such files."""
    adapter = adapter_for(pipeline(base), TARGETS[targets], CASES[case][0])
    path = tmp_path / "lora.safetensors"
    adapters.write(adapter, path, "kohya")
    drawn_alike(base, path, adapter)


def test_layers_of_several_ranks(base, tmp_path):
    pipe = pipeline(base)
    one = adapter_for(pipe, TARGETS["attention"], 0.5)
    other = adapter_for(pipe, ("attn1.to_q", "self_attn.q_proj"), 2.0, seed=1, rank=3)
    both = adapters.combine([(one, 0.75), (other, -0.5)])
    assert {layer.rank for layer in both.layers.values()} == {RANK, RANK + 3}
    path = tmp_path / "lora.safetensors"
    adapters.write(both, path, "diffusers")
    drawn_alike(base, path, both)
