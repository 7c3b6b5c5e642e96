"""LoRA runs that cannot be, and those worth a word before they start: the whole texts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fusain.cli import main as command
from fusain.errors import FusainError
from fusain.models import adapters
from fusain.models.adapters import Adapter, LowRank
from fusain.models.bases import fresh
from fusain.models.families.pixel import Pixel
from fusain.models.family import Facts
from fusain.runs import actions
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve_source
from fusain.training.methods.lora import FILES, Lora, LoraSettings
from fusain.worlds.caricatures import world, write_folder
from tests.runs.test_lora import SETTINGS
from tests.runs.training import as_overrides, kinds, train_here

SHORT: dict[str, Any] = {"train.steps": 1, "samples.every_steps": 0}
TO_Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora_faults")
    fresh.write(fresh.TINY, folder / "base")
    write_folder(world(24, seed=4), folder / "faces")
    (folder / "lora.toml").write_text(SETTINGS.format(base=folder / "base", data=folder / "faces"))
    return folder


def refused(place: Path, runs: Path, changes: dict[str, Any]) -> str:
    with pytest.raises(FusainError) as caught:
        train_here(place / "lora.toml", "run", runs, SHORT | changes)
    return str(caught.value)


def written(folder: Path, layers: dict[str, Any], style: adapters.Style = "diffusers") -> Path:
    adapters.write(Adapter(layers), folder / "start.safetensors", style)
    return folder / "start.safetensors"


def low(outputs: int = 16, inputs: int = 16, rank: int = 4, magnitude: torch.Tensor | None = None) -> LowRank:
    return LowRank(torch.ones(rank, inputs), torch.ones(outputs, rank), 1.0, magnitude)


def test_a_pattern_that_covers_nothing_names_near_ones(place: Path, tmp_path: Path) -> None:
    why = (
        "Why: Patterns are held against paths of layers such as 'unet.mid_block.attentions.0.proj_in', whole or from "
        "any dot on; layers of the text encoder count only if it learns (method.text_encoder).\n"
        "Do: Correct the pattern, or use 'attention', 'attention+feed_forward' or 'all'."
    )
    assert refused(place, tmp_path, {"method.targets": ["to_k", "to_qq"]}) == (
        "E-LORA-052 No layer of the model is covered by the pattern 'to_qq'. Near it: to_q, to_v, to_k.\n"
        f"Where: method.targets\n{why}"
    )
    assert refused(place, tmp_path, {"method.targets": ["q_proj"]}) == (
        "E-LORA-052 No layer of the model is covered by the pattern 'q_proj'. Near it: proj, proj_in.\n"
        f"Where: method.targets\n{why}"
    )


def test_a_text_encoder_that_learns_without_a_layer(place: Path, tmp_path: Path) -> None:
    assert refused(place, tmp_path, {"method.targets": ["to_k"], "method.text_encoder": True}) == (
        "E-LORA-053 The text encoder is to learn, but method.targets covers none of its layers.\n"
        "Where: method.text_encoder\n"
        "Do: Set method.text_encoder = false, or add a pattern such as 'text_encoder.*'."
    )


def test_a_family_without_targets() -> None:
    family = Pixel(Pixel.Settings(size=8, channels=(8, 16)), Facts(()))
    with pytest.raises(FusainError) as caught:
        Lora(LoraSettings()).prepare(family)
    assert str(caught.value) == (
        "E-LORA-051 Family 'pixel' names no layers that a LoRA could go into.\n"
        "Where: method.kind\n"
        "Do: Choose another method, such as full, or another family."
    )


def test_a_start_for_another_model(place: Path, tmp_path: Path) -> None:
    start = written(tmp_path, {TO_Q: low(320, 320)})
    assert refused(place, tmp_path, {"method.start": str(start)}) == (
        f"E-LORA-054 The LoRA to go on from is for another model: '{TO_Q}' is 320 x 320 in the file, 16 x 16 here.\n"
        f"Where: {start}\n"
        "Do: Give a LoRA that was trained on the same kind of base, or start without one."
    )
    elsewhere = "unet.down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q"
    written(tmp_path, {elsewhere: low()})
    assert refused(place, tmp_path, {"method.start": str(start)}).startswith(
        f"E-LORA-054 The LoRA to go on from is for another model: '{elsewhere}' is in the file, is not here.\n"
    )


def test_a_start_with_more_than_learns(place: Path, tmp_path: Path) -> None:
    more = "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"
    start = written(tmp_path, {TO_Q: low(), more: low(16, 64)}, "kohya")
    assert refused(place, tmp_path, {"method.start": str(start)}) == (
        "E-LORA-055 The LoRA to go on from changes 2 layers, of which 1 learn in this run and 1 do not: "
        f"'{more}'.\n"
        f"Where: {start}\n"
        "Why: What it holds for them would be lost.\n"
        "Do: Widen method.targets ('all' covers every layer), or set method.text_encoder = true if they are the text "
        "encoder's."
    )


def test_a_start_with_much_more_than_learns_names_the_first_five(place: Path, tmp_path: Path) -> None:
    layers = [f"unet.down_blocks.{block}.resnets.0.conv{number}" for block in range(4) for number in (1, 2)]
    start = written(tmp_path, {TO_Q: low(), **{name: low() for name in layers}})
    assert refused(place, tmp_path, {"method.start": str(start)}).startswith(
        "E-LORA-055 The LoRA to go on from changes 9 layers, of which 1 learn in this run and 8 do not: "
        f"{', '.join(repr(name) for name in layers[:5])} and 3 more.\n"
    )


def test_what_is_assumed_of_a_start_is_said(place: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_file({f"{TO_Q}.lora_A.weight": torch.ones(4, 16), f"{TO_Q}.lora_B.weight": torch.ones(16, 4)}, start)
    train_here(place / "lora.toml", "run", tmp_path, SHORT | {"method.start": str(start)})
    assert [event["text"] for event in kinds(tmp_path / "run", "warning") if event["code"] == "W-LORA-001"] == [
        "W-LORA-001 1 of 1 layers of the LoRA say no alpha; alpha = rank is assumed, as other tools do. "
        f"({start}) If its images are too strong, use it at a lower strength."
    ]


def test_a_start_of_another_rank(place: Path, tmp_path: Path) -> None:
    start = written(tmp_path, {TO_Q: low(rank=8)})
    assert refused(place, tmp_path, {"method.start": str(start)}) == (
        f"E-LORA-056 The LoRA to go on from has rank 8, this run rank 4.\nWhere: {start}\nDo: Set method.rank = 8."
    )


@pytest.mark.parametrize("is_dora", [False, True])
def test_a_start_of_another_kind(place: Path, tmp_path: Path, is_dora: bool) -> None:
    start = written(tmp_path, {TO_Q: low(magnitude=torch.ones(16) if is_dora else None)})
    there, here = ("DoRA", "LoRA") if is_dora else ("LoRA", "DoRA")
    assert refused(place, tmp_path, {"method.start": str(start), "method.dora": not is_dora}) == (
        f"E-LORA-057 The LoRA to go on from is a {there}, this run trains a {here}.\n"
        f"Where: {start}\n"
        "Do: Set method.dora as the file has it, or start without it. LoHa and LoKr are for drawing only."
    )


def test_a_start_with_nan_or_without_a_file(place: Path, tmp_path: Path) -> None:
    start = written(tmp_path, {TO_Q: LowRank(torch.full((4, 16), torch.nan), torch.ones(16, 4), 1.0)})
    assert refused(place, tmp_path, {"method.start": str(start)}).startswith("E-LORA-003 ")
    start.unlink()
    assert refused(place, tmp_path, {"method.start": str(start)}).startswith("E-LORA-001 ")


SPOILT = {
    "short": (
        "E-LORA-015 The file that was written does not hold the LoRA: 55 of 56 layers were read back; the first that "
        f"differs is '{TO_Q}'.\n"
        "Where: {path}\n"
        "Do: Keep the run and report this; the weights in its checkpoints are safe."
    ),
    "strong": (
        f"E-LORA-016 The file that was written is not as strong as the LoRA: layer '{TO_Q}' is 1.0e+00 of its change "
        "off, at most 9.8e-04 is allowed.\n"
        "Where: {path}\n"
        "Do: Write it in fp32, in a run by the same command with --method.file_dtype fp32; if it is in fp32 already, "
        "keep the run and report this."
    ),
}


@pytest.mark.parametrize("style", ["diffusers", "kohya"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_is_not_what_was_learnt_ends_the_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, style: adapters.Style
) -> None:
    write = adapters.write

    def spoilt(adapter: Adapter, path: Path, to: adapters.Style, **more: Any) -> None:
        layers = dict(adapter.layers)
        layer = layers.pop(TO_Q) if to == style else None
        if isinstance(layer, LowRank) and how == "strong":
            layers[TO_Q] = replace(layer, up=layer.up * 2)
        write(Adapter(layers, adapter.metadata), path, to, **more)

    monkeypatch.setattr(adapters, "write", spoilt)
    path = tmp_path / "run" / ".weights.tmp" / FILES[style]
    wanted = SPOILT[how].format(path=path)
    assert refused(place, tmp_path, {}) == wanted
    (told,) = kinds(tmp_path / "run", "failed")
    assert (told["code"], told["text"]) == (wanted[:10], wanted.splitlines()[0][11:])
    assert not list((tmp_path / "run").glob("*weights*"))
    monkeypatch.undo()
    train_here(place / "lora.toml", "run", tmp_path, SHORT)
    assert kinds(tmp_path / "run", "read_back")[0]["layers"] == 56


def test_only_a_lora_has_a_strength(place: Path, tmp_path: Path) -> None:
    settings = tmp_path / "full.toml"
    settings.write_text((place / "lora.toml").read_text().replace('kind = "lora"\nrank = 4', 'kind = "full"'))
    train_here(settings, "full", tmp_path, SHORT)
    with pytest.raises(FusainError) as caught:
        actions.generate(tmp_path / "full", strength=0.5)
    assert str(caught.value) == (
        "E-LORA-050 Method 'full' saves a whole model, which has no strength.\n"
        "Where: --strength\n"
        "Do: Leave --strength out; it is for runs of method 'lora'."
    )


def test_a_strength_that_is_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(("generate", "run", "--strength", "2.5"))
    assert (ended.value.code, capsys.readouterr().err) == (2, (
        "E-USE-001 Invalid value for '--strength': 2.5 is not in the range 0<=x<=2.\n"
        "Do: See: fusain generate --help\n"
    ))  # fmt: skip


def test_a_file_is_no_run(tmp_path: Path) -> None:
    lora = written(tmp_path, {TO_Q: low()})
    with pytest.raises(FusainError) as caught:
        actions.generate(lora, runs_folder=tmp_path)
    assert str(caught.value) == (
        f"E-RUN-012 '{lora}' is a file, not a run.\n"
        f"Where: {tmp_path}\n"
        "Do: Runs here: none. A LoRA without its run draws once it is in a base: "
        "fusain models merge FILE --into BASE -o FOLDER"
    )


WRONG_NUMBERS = {
    ("--seed", "-1"): "-1 is not in the range 0<=x<=4294967295.",
    ("--seed", str(2**65)): f"{2**65} is not in the range 0<=x<=4294967295.",
    ("--seed", "abc"): "'abc' is not a valid integer range.",
    ("--steps", "0"): "0 is not in the range 1<=x<=10000.",
    ("--guidance", "-1"): "-1.0 is not in the range 0<=x<=30.",
    ("--count", "0"): "0 is not in the range 1<=x<=1000000.",
    ("--size", "512xabc"): "'512xabc' is no size; write it as 768x512 (width x height)",
    ("--crop", "64"): "'64' is no place; write it as 64,0 (left, top)",
    ("--crop", "64,-1"): "'64,-1' is no place; write it as 64,0 (left, top)",
}


@pytest.mark.parametrize("words", WRONG_NUMBERS)
def test_b37_numbers_that_cannot_be_drawn_with(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(("generate", "run", *words))
    assert (ended.value.code, capsys.readouterr().err) == (2, (
        f"E-USE-001 Invalid value for '{words[0]}': {WRONG_NUMBERS[words]}\n"
        "Do: See: fusain generate --help\n"
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method.alpha": 1.0, "method.rank": 8}, []),
        (
            {"method.alpha": 1.0, "method.rank": 64},
            [
                "W-LORA-020 With method.alpha = 1 what is learnt counts 0.0156 times, which is unusual. (method.alpha) "
                "It learns that much weaker at the same learning rate. Leave alpha out for a factor of 1, or change "
                "the learning rate to match."
            ],
        ),
        (
            {"method.alpha": 64.0},
            [
                "W-LORA-020 With method.alpha = 64 what is learnt counts 16 times, which is unusual. (method.alpha) It "
                "learns that much stronger at the same learning rate. Leave alpha out for a factor of 1, or change the "
                "learning rate to match."
            ],
        ),
        (
            {"method.text_encoder_rate": 0.1},
            [
                "W-CFG-002 'method.text_encoder_rate' has no effect in this run: the text encoder does not learn. "
                "(--method.text_encoder_rate)"
            ],
        ),
    ],
)
def test_what_is_unusual_is_said_before_training(place: Path, changes: dict[str, Any], told: list[str]) -> None:
    usual = {"train.learning_rate": 1e-4, "train.steps": 100}
    resolved = resolve_source(RunSettings, place / "lora.toml", as_overrides(usual | changes))
    assert [str(notice) for notice in resolved.notices] == told


def test_a_start_in_the_form_of_lycoris(place: Path, tmp_path: Path) -> None:
    start, key = tmp_path / "loha.safetensors", "lora_unet_" + TO_Q.removeprefix("unet.").replace(".", "_")
    halves = {"hada_w1_a": (16, 4), "hada_w1_b": (4, 16), "hada_w2_a": (16, 4), "hada_w2_b": (4, 16)}
    save_file({f"{key}.{half}": torch.ones(shape) for half, shape in halves.items()}, start)
    assert refused(place, tmp_path, {"method.start": str(start)}).startswith(
        f"E-LORA-057 The LoRA to go on from is a LoHa, this run trains a LoRA.\nWhere: {start}\n"
    )
