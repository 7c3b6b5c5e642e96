"""LoRA on a tiny real Stable Diffusion: the same pixels from every door, exact resume, strengths, and what is saved."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from fusain.cli import models
from fusain.errors import FusainError
from fusain.generation.generator import Wanted, generate
from fusain.models import adapters, bases
from fusain.models.adapters import LowRank
from fusain.models.bases import fresh
from fusain.runs import actions, assembly, exporting, outcome, planning, publishing
from fusain.runs.folder import RunFolder
from fusain.runs.settings import RunSettings
from fusain.training.methods.lora import FILES, TYPES
from fusain.worlds.caricatures import world, write_folder
from tests.runs.training import assert_equal_runs, flat, kinds, losses, train_here

SETTINGS = """
[family]
kind = "sd"
base = "{base}"
size = 32

[method]
kind = "lora"
rank = 4

[data]
path = "{data}"
held_out = 4

[train]
steps = 6
batch_size = 4
learning_rate = 1e-2
held_out_every_steps = 3
ema_decay = 0.5

[checkpoint]
every_steps = 3

[samples]
every_steps = 6
steps = 3
count = 1
guidance = 3.0
prompts = ["a red hat", "green skin"]
negative = "glasses"

[engine]
device = "cpu"
precision = "fp32"
threads = 1
"""
PROMPTS = ["a red hat", "green skin"]
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everywhere, stabilised, text": {
        "method.targets": "all",
        "method.text_encoder": True,
        "method.rank_stabilised": True,
        "method.alpha": 2.0,
    },
    "dora": {"method.dora": True, "method.targets": "all", "method.text_encoder": True, "method.file_dtype": "fp32"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, captioned faces, settings, and a run of each form."""
    folder = tmp_path_factory.mktemp("lora")
    fresh.write(fresh.TINY, folder / "base")
    write_folder(world(24, seed=4), folder / "faces")
    (folder / "lora.toml").write_text(SETTINGS.format(base=folder / "base", data=folder / "faces"))
    for name, changes in FORMS.items():
        train_here(folder / "lora.toml", name.replace(", ", "-"), folder, changes)
    return folder


@pytest.fixture(params=FORMS)
def trained(place: Path, request: pytest.FixtureRequest) -> Path:
    return place / request.param.replace(", ", "-")


@pytest.fixture
def plain(place: Path) -> Path:
    return place / "plain"


def drawn(run: Path, target: Path, **wishes: Any) -> list[np.ndarray]:
    return flat(actions.generate(run, prompts=PROMPTS, negative="glasses", count=1, output=target, **wishes).images)


def by_diffusers(base: Path, weights: Path | None, name: str = "lora.safetensors") -> list[np.ndarray]:
    """The same images without Fusain."""
    from diffusers import DDIMScheduler, DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    if weights is not None:
        pipeline.load_lora_weights(weights, weight_name=name)
    options = {"num_inference_steps": 3, "guidance_scale": 3.0, "height": 32, "width": 32}
    return [
        np.asarray(
            pipeline(prompt, negative_prompt="glasses", generator=torch.Generator().manual_seed(0), **options).images[0]
        )
        for prompt in PROMPTS
    ]


def apart(these: list[np.ndarray], those: list[np.ndarray]) -> int:
    """The largest difference of any two numbers."""
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(these, those, strict=True))


def test_training_generate_and_plain_diffusers_draw_the_same(place: Path, trained: Path, tmp_path: Path) -> None:
    sampled = flat(sorted((trained / "samples" / "step-00000006").glob("0*.png")))
    assert apart(sampled, drawn(trained, tmp_path / "drawn")) <= 1
    assert apart(sampled, by_diffusers(place / "base", trained / "weights")) <= 1
    assert apart(sampled, by_diffusers(place / "base", None)) > 8, "a LoRA that does nothing proves nothing"


def of_the_base(run: Path) -> list[np.ndarray]:
    settings = RunSettings.model_validate_json((run / "settings.json").read_text())
    wanted = [Wanted(0, prompt=prompt, negative="glasses") for prompt in PROMPTS]
    family = assembly.build_learner(settings, ()).family
    return [image.pixels for image in generate(family, wanted, settings.samples, chunk=assembly.CHUNK)]


def test_strengths_lead_from_the_very_base_to_the_lora(trained: Path, tmp_path: Path) -> None:
    base, distances = of_the_base(trained), []
    for strength in (0.0, 0.25, 0.5, 1.0):
        target = tmp_path / str(strength)
        images = drawn(trained, target, strength=strength)
        assert apart(images, drawn(trained, target / "checkpoint", strength=strength, checkpoint="latest")) <= 1
        assert apart(images, base) == 0 or strength
        distances.append(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(images, base, strict=True)]))
    assert sorted(distances) == distances
    assert distances[1] > 0.1
    facts = json.loads(Image.open(next((tmp_path / "0.5").glob("0*.png"))).text["fusain"])  # type: ignore[attr-defined]
    assert facts["strength"] == 0.5


def test_what_is_drawn_with_holds_no_layers_of_peft(trained: Path) -> None:
    for checkpoint in (None, "latest"):
        family = actions.open_run(trained, checkpoint=checkpoint).learner.family
        names = [name for name, _ in family.network.named_parameters()]
        assert not [name for name in names if "lora" in name or "base_layer" in name]
        assert not any(hasattr(family.network.get_submodule(part), "peft_config") for part in family.lora_targets)


def test_only_what_the_settings_name_learns_and_in_fp32(place: Path, plain: Path) -> None:
    newest = max((plain / "checkpoints").glob("step-*"))
    learnt = load_file(newest / "trainable.safetensors")
    assert len(learnt) == 2 * 8 * 7, "8 layers of attention in each of 7 blocks"
    assert "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight" in learnt
    assert {tensor.dtype for tensor in learnt.values()} == {torch.float32}
    planned = planning.plan(place / "lora.toml", overrides=(), measure=False)
    assert planned.parameters == sum(tensor.numel() for tensor in learnt.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"method.dropout": 0.3, "method.text_encoder": True, "method.plus_ratio": 4.0, "method.condition_dropout": 0.3},
        {"method.dora": True, "method.targets": "all", "train.optimizer": "muon", "method.plus_ratio": 2.0},
        {"method.text_encoder": True, "engine.gradient_checkpointing": True, "method.dropout": 0.3},
    ],
    ids=["dropout and text", "dora and muon", "checkpointing"],
)
def test_resume_is_exact(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {"samples.every_steps": 0, **changes}
    train_here(place / "lora.toml", "whole", tmp_path, changes)
    train_here(place / "lora.toml", "parts", tmp_path, {**changes, "train.steps": 3})
    train_here(place / "lora.toml", "parts", tmp_path, changes)
    assert kinds(tmp_path / "parts", "resumed")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_the_first_step_is_that_of_the_base_and_the_seed_decides_the_rest(place: Path, tmp_path: Path) -> None:
    short = {"train.steps": 2, "samples.every_steps": 0, "data.cache": "none"}
    for name, changes in {"one": {}, "same": {"data.cache": "auto"}, "other": {"train.seed": 1}}.items():
        train_here(place / "lora.toml", name, tmp_path, {**short, **changes})
    one, same, other = (losses(tmp_path / name) for name in ("one", "same", "other"))
    assert one == pytest.approx(same, rel=2e-5)
    assert one[1] != other[1]
    first = kinds(tmp_path / "one", "held_out")[0]["loss"]
    train_here(place / "lora.toml", "high", tmp_path, {**short, "method.rank": 32, "method.targets": "all"})
    assert kinds(tmp_path / "high", "held_out")[0]["loss"] == first


@pytest.mark.parametrize("name", ["lora.safetensors", "lora_kohya.safetensors"])
def test_a_lora_goes_on_from_a_file_of_either_style(place: Path, trained: Path, tmp_path: Path, name: str) -> None:
    """At another alpha too: what is learnt counts as it did."""
    stored = json.loads((trained / "settings.json").read_text())["method"]
    keys = ("targets", "text_encoder", "rank_stabilised", "dora")
    changes = {f"method.{key}": stored[key] for key in keys} | {"method.start": str(trained / "weights" / name)}
    short = {"method.alpha": 7.0, "train.steps": 1, "samples.every_steps": 0, "train.learning_rate": 1e-5}
    train_here(place / "lora.toml", "on", tmp_path, {**changes, **short})
    last, first = kinds(trained, "held_out")[-1]["loss"], kinds(tmp_path / "on", "held_out")[0]["loss"]
    assert first == pytest.approx(last, rel=1e-3)
    assert first != pytest.approx(kinds(trained, "held_out")[0]["loss"], rel=1e-2)
    assert actions.generate(tmp_path / "on", count=1, output=tmp_path / "drawn").images


def test_a_start_that_holds_less_says_what_begins_from_nothing(place: Path, plain: Path, tmp_path: Path) -> None:
    start = {"method.start": str(plain / "weights" / "lora.safetensors"), "method.targets": "attention+feed_forward"}
    train_here(place / "lora.toml", "on", tmp_path, {**start, "train.steps": 1, "samples.every_steps": 0})
    (told,) = [event["text"] for event in kinds(tmp_path / "on", "warning") if event["code"] == "W-LORA-022"]
    assert told == (
        "W-LORA-022 The LoRA to go on from says nothing of 28 of 84 layers that learn, such as "
        "'unet.down_blocks.0.attentions.0.proj_in': these start from nothing. (method.start)"
    )


def test_both_files_say_what_they_are_and_nothing_of_this_machine(place: Path, trained: Path) -> None:
    for name in ("lora.safetensors", "lora_kohya.safetensors"):
        with safe_open(trained / "weights" / name, "pt") as file:
            told = file.metadata()
            types = {file.get_tensor(key).dtype for key in file.keys() if not key.endswith(".alpha")}  # noqa: SIM118
        assert (told["ss_network_dim"], told["ss_steps"]) == ("4", "6")
        assert told["modelspec.resolution"] == "32x32"
        assert (told["modelspec.architecture"], told["ss_base_model_version"]) == ("stable-diffusion-v1/lora", "sd_v1")
        assert not [text for text in told.values() if str(place) in text or place.name in text]
        wanted = "fp32" if trained.name == "dora" else "fp16"
        assert types == {torch.float32 if wanted == "fp32" else torch.float16}
    one, other = (adapters.read(trained / "weights" / name) for name in ("lora.safetensors", "lora_kohya.safetensors"))
    assert one.layers.keys() == other.layers.keys()
    assert trained.name != "plain" or len(one.layers) == 56


def test_the_headers_tell_what_other_tools_show_of_a_training(place: Path, plain: Path, tmp_path: Path) -> None:
    wanted = {"ss_num_train_images": "20", "ss_num_reg_images": "0", "ss_num_epochs": "2", "ss_learning_rate": "0.01"}
    wanted["ss_resolution"] = "(32, 32)"
    for name in FILES.values():
        told = header(plain / "weights" / name)
        assert {key: told.get(key) for key in wanted} == wanted
        assert "modelspec.trigger_phrase" not in told
    exporting.export(plain, checkpoint="3", output=tmp_path / "of 3")
    assert header(tmp_path / "of 3" / "lora.safetensors")["ss_num_epochs"] == "1"
    changes = {"data.captions.trigger_word": "zwx", "data.repeats": 2, "train.steps": 1, "samples.every_steps": 0}
    train_here(place / "lora.toml", "repeated", tmp_path, changes)
    told = header(tmp_path / "repeated" / "weights" / "lora_kohya.safetensors")
    assert (told["modelspec.trigger_phrase"], told["ss_num_train_images"]) == ("zwx", "40")
    train_here(place / "lora.toml", "repeated", tmp_path, {**changes, "train.steps": 11})
    told = header(tmp_path / "repeated" / "weights" / "lora_kohya.safetensors")
    assert (told["ss_steps"], told["ss_num_epochs"]) == ("11", "2"), "of the run as it went on"


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("text_encoder", [False, True])
def test_dropout_changes_what_is_learnt(place: Path, tmp_path: Path, text_encoder: bool) -> None:
    """Not the first loss, for the second matrices are zero then, but those that come of what it hid."""
    changes = {"train.steps": 4, "samples.every_steps": 0, "method.text_encoder": text_encoder}
    for dropout in (0.0, 0.5):
        train_here(place / "lora.toml", str(dropout), tmp_path, {**changes, "method.dropout": dropout})
    without, with_it = losses(tmp_path / "0.0"), losses(tmp_path / "0.5")
    assert [step for step in without if without[step] == with_it[step]] == [1]


def test_the_run_reads_its_files_back_and_says_so(trained: Path) -> None:
    layers = len(adapters.read(trained / "weights" / "lora.safetensors").layers)
    told = outcome.of(RunFolder(trained))
    words = f"{layers} of {layers} layers in lora.safetensors and lora_kohya.safetensors match, "
    apart = re.fullmatch(
        re.escape(words) + r"each change within ([\de.+-]+) of its largest number", dict(told.lines())["Read back"]
    )
    assert apart, dict(told.lines())
    assert told.as_json()["read_back"] == {
        "files": ("lora.safetensors", "lora_kohya.safetensors"),
        "layers": layers,
        "learnt": layers,
        "largest": pytest.approx(float(apart[1]), rel=0.1),
    }
    assert float(apart[1]) <= (1e-6 if trained.name == "dora" else torch.finfo(torch.float16).eps)


def test_a_checkpoint_as_lora_files_is_drawn_by_diffusers_as_by_generate(
    place: Path, trained: Path, tmp_path: Path
) -> None:
    done = exporting.export(trained, checkpoint="3", output=tmp_path / "of 3")
    assert done.files == ("fusain.json", "lora.safetensors", "lora_kohya.safetensors")
    assert done.read_back is not None
    assert done.read_back.layers == done.read_back.learnt > 0
    assert header(done.folder / "lora_kohya.safetensors")["ss_steps"] == "3"
    of_diffusers = by_diffusers(place / "base", done.folder)
    assert apart(drawn(trained, tmp_path / "drawn", checkpoint="3"), of_diffusers) <= 1
    assert apart(by_diffusers(place / "base", trained / "weights"), of_diffusers) > 1, "not those of the end"


def test_a_part_of_a_checkpoint_is_no_lora_file(place: Path, plain: Path, tmp_path: Path) -> None:
    part = plain / "checkpoints" / "step-00000003" / "trainable.safetensors"
    wanted = (
        "E-LORA-022 'trainable.safetensors' is a part of a checkpoint and no LoRA file: it does not say how strong it "
        f"is.\nWhere: {part}\n"
        "Why: alpha and rsLoRA stand in the settings of the run.\n"
        f"Do: Write that step as LoRA files: fusain runs export {plain} --checkpoint 3"
    )
    words = ["convert", str(part), "--to", "kohya", "-o", str(tmp_path / "out.safetensors")]
    assert str(CliRunner().invoke(models.verb, words).exception) == wanted
    with pytest.raises(FusainError) as caught:
        train_here(place / "lora.toml", "on", tmp_path, {"method.start": str(part), "train.steps": 1})
    assert str(caught.value) == wanted


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_dora_in_half_precision_is_what_was_learnt(place: Path, tmp_path: Path, precision: str) -> None:
    changes = {**FORMS["dora"], "method.file_dtype": precision, "train.ema_decay": 0.0, "samples.every_steps": 0}
    train_here(place / "lora.toml", "run", tmp_path, changes)
    run, found = tmp_path / "run", bases.open_base(str(place / "base")).components
    weights = {f"{part}.{name}": at for part in ("unet", "text_encoder") for name, at in found[part].tensors().items()}
    learnt = load_file(max((run / "checkpoints").glob("step-*")) / "trainable.safetensors")
    eps = torch.finfo(TYPES[precision]).eps
    for file in FILES.values():
        layers = adapters.read(run / "weights" / file).layers
        assert len(layers) == len(learnt) / 3
        for name, layer in layers.items():
            a, b, lengths = (learnt[f"{name}.lora_{kind}.weight"] for kind in ("A", "B", "magnitude_vector"))
            wanted = LowRank(a, b, 1.0, lengths.flatten()).delta(weights[f"{name}.weight"])
            change = layer.delta(weights[f"{name}.weight"])
            assert (change - wanted).abs().max() <= eps * wanted.abs().max(), name
    told = outcome.of(RunFolder(run)).read_back
    assert told is not None
    assert 0 < told.largest <= eps
    assert apart(drawn(run, tmp_path / "drawn"), by_diffusers(place / "base", run / "weights")) <= 1


def test_a_run_that_is_over_writes_its_files_in_another_precision(place: Path, tmp_path: Path) -> None:
    changes = {"samples.every_steps": 0, "train.steps": 2}
    for precision in ("fp16", "fp32"):
        train_here(place / "lora.toml", "run", tmp_path, {**changes, "method.file_dtype": precision})
        saved = load_file(tmp_path / "run" / "weights" / "lora.safetensors")
        assert {tensor.dtype for tensor in saved.values()} == {TYPES[precision]}
    assert len(kinds(tmp_path / "run", "step")) == 2


def test_the_card_draws_what_generate_draws(place: Path, trained: Path, tmp_path: Path) -> None:
    published = publishing.publish(trained, dry_run=True, licence="mit")
    assert {"lora.safetensors", "lora_kohya.safetensors", "fusain.json"} < {file.name for file in published.files}
    card = published.card.read_text()
    assert "It goes on top of the model that it was trained on. BASE stands for where you have that model." in card
    assert "tags:\n- diffusers\n- text-to-image\n- fusain\n- lora\n" in card
    assert str(place) not in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = code.replace('"BASE"', f'"{place / "base"}", safety_checker=None')
    code = code.replace("OWNER/NAME", str(trained / "weights")).replace("image.png", str(tmp_path / "image.png"))
    exec(compile(code, "card", "exec"), {})
    own = drawn(trained, tmp_path / "drawn")[0]
    assert apart([np.asarray(Image.open(tmp_path / "image.png"))], [own]) <= 1


def test_few_steps_survive_half_precision(place: Path, tmp_path: Path) -> None:
    """The second matrices are hardly above zero then; what is saved is as strong all the same."""
    changes = {"train.steps": 1, "train.learning_rate": 1e-6, "train.ema_decay": 0.0, "samples.every_steps": 0}
    train_here(place / "lora.toml", "run", tmp_path, changes)
    saved = adapters.read(tmp_path / "run" / "weights" / "lora.safetensors")
    name, layer = next(iter(saved.layers.items()))
    learnt = load_file(max((tmp_path / "run" / "checkpoints").glob("step-*")) / "trainable.safetensors")
    wanted = learnt[f"{name}.lora_B.weight"] @ learnt[f"{name}.lora_A.weight"]
    assert wanted.abs().max() < 1e-5
    torch.testing.assert_close(layer.change(), wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))
