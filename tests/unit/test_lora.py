"""The LoRA method by itself: which layers it takes, at which rates they learn, and what its start leaves as it was."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fusain.data.batch import Batch
from fusain.models import adapters
from fusain.models.adapters import LowRank
from fusain.models.bases import fresh
from fusain.models.families.sd import StableDiffusion, StableDiffusionSettings
from fusain.models.family import Facts
from fusain.training import low_rank
from fusain.training.losses import LossSettings, denoising_loss
from fusain.training.methods.lora import Lora, LoraSettings
from fusain.training.optimizers import make_optimizer

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stabilised": {"rank_stabilised": True, "alpha": 3.0},
    "everywhere": {"targets": "all", "text_encoder": True},
    "dora": {"dora": True, "targets": "all", "text_encoder": True},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    fresh.write(fresh.TINY, folder)
    return folder


@pytest.fixture
def family(base: Path) -> StableDiffusion:
    return StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts(()))


def batch(step: int = 0) -> Batch:
    draws = np.arange(step * 4, step * 4 + 4)
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1
    return Batch(draws, draws, pixels, torch.ones(4), None, ("a", "b", "c", "d"))


def lora(**settings: Any) -> Lora:
    return Lora(LoraSettings(rank=4, **settings))


def learn(method: Lora, family: StableDiffusion, steps: int = 2) -> dict[str, torch.nn.Parameter]:
    parameters = method.prepare(family)
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-2)
    for step in range(steps):
        method.loss(family, batch(step), seed=0).value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return parameters


def layers_of(parameters: dict[str, torch.nn.Parameter]) -> Counter[str]:
    """How many layers of each kind, by the last word of their path that is no number."""
    names = [name.removesuffix(".lora_A.weight") for name in parameters if name.endswith(".lora_A.weight")]
    return Counter([part for part in name.split(".") if not part.isdecimal()][-1] for name in names)


UNET_ATTENTION = {"to_q": 14, "to_k": 14, "to_v": 14, "to_out": 14}
UNET_BLOCKS = UNET_ATTENTION | {"proj": 7, "net": 7, "proj_in": 7, "proj_out": 7}
CLIP_ATTENTION = {"q_proj": 2, "k_proj": 2, "v_proj": 2, "out_proj": 2}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, UNET_ATTENTION),
        ({"text_encoder": True}, UNET_ATTENTION | CLIP_ATTENTION),
        ({"targets": "attention+feed_forward"}, UNET_BLOCKS),
        (
            {"targets": "attention+feed_forward", "text_encoder": True},
            UNET_BLOCKS | CLIP_ATTENTION | {"fc1": 2, "fc2": 2},
        ),
        ({"targets": ("attn2.to_k",)}, {"to_k": 7}),
        ({"targets": ("unet.mid_block.*.to_?", "conv_in")}, {"to_q": 2, "to_k": 2, "to_v": 2, "conv_in": 1}),
        ({"targets": ("text_encoder.*",), "text_encoder": True}, CLIP_ATTENTION | {"fc1": 2, "fc2": 2}),
    ],
)
def test_targets_are_layers_by_plain_names_or_patterns(
    family: StableDiffusion, settings: dict[str, Any], wanted: dict[str, int]
) -> None:
    assert layers_of(lora(**settings).prepare(family)) == wanted


def test_all_is_every_linear_and_convolution_layer(family: StableDiffusion) -> None:
    kinds = torch.nn.Linear | torch.nn.Conv2d
    count = sum(isinstance(module, kinds) for module in family.network.modules())
    assert sum(layers_of(lora(targets="all", text_encoder=True).prepare(family)).values()) == count


@pytest.mark.parametrize("form", FORMS)
def test_nothing_changes_before_the_first_step_and_the_base_never(base: Path, form: str) -> None:
    families = [StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts(())) for _ in range(2)]
    before = denoising_loss(families[0], batch(), LossSettings(), seed=0).value.item()
    method = lora(**FORMS[form])
    parameters = method.prepare(families[0])
    assert method.loss(families[0], batch(), seed=0).value.item() == before
    learning = [parameter for parameter in families[0].network.parameters() if parameter.requires_grad]
    assert {id(one) for one in learning} == {id(one) for one in parameters.values()}
    method = lora(**FORMS[form])
    learn(method, families[1])
    assert method.loss(families[1], batch(), seed=0).value.item() != before
    low_rank.take_away(families[1].network, families[1].lora_targets)
    assert denoising_loss(families[1], batch(), LossSettings(), seed=0).value.item() == before


@pytest.mark.parametrize("form", FORMS)
def test_merged_into_the_weights_it_predicts_the_same(base: Path, form: str, tmp_path: Path) -> None:
    families = [StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts(())) for _ in range(3)]
    method = lora(file_dtype="fp32", **FORMS[form])
    parameters = learn(method, families[0])
    wanted = method.loss(families[0], batch(9), seed=0).value.item()
    method.save(families[0], tmp_path / "weights")
    lora().attach(families[1], tmp_path / "weights")
    lora(**FORMS[form]).attach_parameters(families[2], parameters)
    for family in families[1:]:
        assert denoising_loss(family, batch(9), LossSettings(), seed=0).value.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_adapters_are_fp32_over_a_base_in_half_precision(family: StableDiffusion, precision: torch.dtype) -> None:
    family.network.to(precision)
    parameters = lora(dora=True, targets="all", text_encoder=True).prepare(family)
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    frozen = {one.dtype for one in family.network.parameters() if not one.requires_grad}
    assert frozen == {precision}


def test_they_learn_over_a_base_in_half_precision(family: StableDiffusion) -> None:
    family.network.to(torch.bfloat16)
    method = lora(text_encoder=True)
    parameters = method.prepare(family)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(family, batch(), seed=0).value
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert bool(parameter.grad.any()) == name.endswith("lora_B.weight"), name


def test_recomputed_activations_give_the_same_gradients(base: Path) -> None:
    found = []
    for recomputes in (False, True):
        family = StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts(()))
        if recomputes:
            family.recompute_activations()
        family.network.train()
        method = lora(text_encoder=True, dropout=0.3)
        torch.manual_seed(0)
        parameters = method.prepare(family)
        torch.manual_seed(1)
        method.loss(family, batch(), seed=0).value.backward()  # type: ignore[no-untyped-call]
        found.append({name: parameter.grad for name, parameter in parameters.items()})
    for name, gradient in found[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(found[1][name], gradient)


def test_the_first_numbers_are_those_of_the_seed_and_the_layer(base: Path) -> None:
    def begin(seed: int, consumed: int, **settings: Any) -> dict[str, torch.nn.Parameter]:
        torch.manual_seed(seed)
        family = StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts(()))
        torch.rand(consumed)
        return lora(**settings).prepare(family)

    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"
    one = begin(3, 0)[name]
    assert torch.equal(one, begin(3, 5, targets="all")[name])
    assert not torch.equal(one, begin(4, 0)[name])
    bound = 1 / one.shape[1] ** 0.5
    assert 0.8 * bound < one.abs().max() <= bound


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_hides_inputs_of_the_matrices_while_they_learn_and_never_else(base: Path, dropout: float) -> None:
    family = StableDiffusion(StableDiffusionSettings(base=str(base), size=32), Facts(()))
    method = lora(dropout=dropout, text_encoder=True)
    for name, parameter in method.prepare(family).items():
        if name.endswith("lora_B.weight"):
            torch.nn.init.constant_(parameter, 0.1)

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return method.loss(family, batch(), seed=0).value.item()

    family.network.train()
    assert loss(1) == loss(1)
    assert (loss(1) != loss(2)) == bool(dropout)
    family.network.eval()
    assert loss(1) == loss(2)


def test_rates_of_the_parts(family: StableDiffusion) -> None:
    method = lora(text_encoder=True, text_encoder_rate=0.25, plus_ratio=8.0)
    parameters = method.prepare(family)
    rates = method.rates(parameters)
    assert Counter(rates.values()) == {1.0: 56, 8.0: 56, 0.25: 8, 2.0: 8}
    for optimizer_name in ("adam", "adamw", "lion", "muon", "adafactor", "came", "prodigy", "schedule_free_adamw"):
        optimizer = make_optimizer(optimizer_name, parameters, rates, learning_rate=0.1, weight_decay=0.0)
        factors = {id(one): group["factor"] for group in optimizer.param_groups for one in group["params"]}
        assert factors == {id(parameter): rates[name] for name, parameter in parameters.items()}
    assert lora().rates(["unet.x.lora_B.weight"]) == {"unet.x.lora_B.weight": 1.0}


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "muon"])
def test_factors_of_one_change_no_bit(name: Any) -> None:
    def trained(factors: dict[str, float] | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        named = {f"{number}.weight": torch.nn.Parameter(torch.randn(5, 3)) for number in range(4)}
        optimizer = make_optimizer(name, named, factors, learning_rate=0.01, weight_decay=0.1)
        for _ in range(3):
            for parameter in named.values():
                parameter.grad = torch.randn(5, 3)
            optimizer.step()
        return [parameter.detach() for parameter in named.values()]

    plain = trained(None)
    assert all(torch.equal(a, b) for a, b in zip(plain, trained({f"{n}.weight": 1.0 for n in range(4)}), strict=True))


def test_a_factor_makes_a_group_learn_faster() -> None:
    named = {name: torch.nn.Parameter(torch.zeros(3)) for name in ("slow", "fast")}
    optimizer = make_optimizer("adam", named, {"fast": 4.0}, learning_rate=0.1, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["factor"]
    for parameter in named.values():
        parameter.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(named["slow"].detach(), torch.full((3,), -0.01))
    torch.testing.assert_close(named["fast"].detach(), torch.full((3,), -0.04))


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"rank": 8}, 1.0),
        ({"rank": 8, "alpha": 1.0}, 0.125),
        ({"rank": 8, "alpha": 16.0}, 2.0),
        ({"rank": 16, "alpha": 8.0, "rank_stabilised": True}, 2.0),
        ({"rank": 16, "rank_stabilised": True}, 4.0),
    ],
)
def test_alpha_counts_as_said(family: StableDiffusion, settings: dict[str, Any], scale: float) -> None:
    made = LoraSettings(**settings)
    method = Lora(made)
    method.prepare(family)
    found = low_rank.read_out(method._layers).values()
    assert {layer.scale for layer in found} == {scale} == {made.scale}


def test_hardly_anything_learnt_is_balanced_to_the_last_bit() -> None:
    torch.manual_seed(0)
    layer = LowRank(torch.randn(4, 6), torch.randn(5, 4) * 1e-6, 1.0)
    found = low_rank.balanced(layer)
    assert torch.equal(found.change(), layer.change())
    assert found.up.abs().max() > 1e-4
    assert found.down.abs().max() > 1e-4
    large = LowRank(torch.randn(4, 6), torch.randn(5, 4), 1.0)
    assert low_rank.balanced(large) is large
    assert not low_rank.balanced(LowRank(torch.randn(4, 6), torch.zeros(5, 4), 1.0)).up.any()


def test_both_styles_are_of_equal_strength(family: StableDiffusion, tmp_path: Path) -> None:
    method = lora(rank_stabilised=True, alpha=3.0, targets="all", text_encoder=True, file_dtype="fp32")
    learn(method, family)
    method.save(family, tmp_path)
    one, other = (adapters.read(tmp_path / name) for name in ("lora.safetensors", "lora_kohya.safetensors"))
    assert one.layers.keys() == other.layers.keys()
    for name, layer in low_rank.read_out(method._layers).items():
        size = layer.change().abs().max()
        for style in (one, other):
            assert (style.layers[name].change() - layer.change()).abs().max() <= 1e-6 * size, name


@pytest.fixture(scope="module")
def full_size() -> torch.nn.Module:
    """The networks of Stable Diffusion 1.5, without weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    network = torch.nn.Module()
    with torch.device("meta"):
        network.unet = UNet2DConditionModel(cross_attention_dim=768)
        width = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        network.text_encoder = CLIPTextModel(CLIPTextConfig(**width))
    return network


@pytest.mark.parametrize(
    ("targets", "of_unet", "of_text"), [("attention", 128, 48), ("attention+feed_forward", 192, 72), ("all", 282, 72)]
)
def test_at_full_size_it_takes_as_many_layers_as_other_trainers(
    full_size: torch.nn.Module, targets: Any, of_unet: int, of_text: int
) -> None:
    """192 and 72 are what kohya's trainer counts for Stable Diffusion 1.5, 128 what diffusers' scripts adapt."""
    method, counts = lora(targets=targets, text_encoder=True), Counter[str]()
    for place in method._wanted(SimpleNamespace(network=full_size, lora_targets=StableDiffusion.lora_targets)):  # type: ignore[arg-type]
        counts[place.part] += 1
    assert counts == {"unet": of_unet, "text_encoder": of_text}
