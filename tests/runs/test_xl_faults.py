"""What Stable Diffusion XL is given that it cannot use, and what breaks off: the faults that are known on the first."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fusain.errors import FusainError
from fusain.models import adapters
from fusain.models.adapters import Adapter, LowRank
from fusain.models.bases import fresh
from fusain.runs import actions
from fusain.worlds.caricatures import portraits, world, write_folder
from tests.runs import test_dreambooth, test_lora, test_textual_inversion
from tests.runs.test_dreambooth import drawn_in, progress
from tests.runs.test_lora_faults import SHORT
from tests.runs.training import assert_equal_runs, flat, kinds, losses, train_here

SIZES = {"sd": fresh.TINY, "sdxl": fresh.TINY_XL}
IN_WORDS = {"sd": "Stable Diffusion 1.x", "sdxl": "Stable Diffusion XL"}
FILES = ("lora.safetensors", "lora_kohya.safetensors")
LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
FROM_NOTHING = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"


def settings_of(kind: str, method: str, base: Path, data: Path) -> str:
    """Those that a method is tested with on the first version, for this family."""
    text = {"lora": test_lora, "word": test_textual_inversion, "dreambooth": test_dreambooth}[method].SETTINGS
    return str(text).replace('kind = "sd"', f'kind = "{kind}"').format(base=base, data=data)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both bases, captioned faces, faces without captions, settings for both, and a LoRA of either."""
    folder = tmp_path_factory.mktemp("xl_faults")
    write_folder(world(8, seed=4), folder / "faces")
    (folder / "bare").mkdir()
    for path in (folder / "faces").glob("*.png"):
        shutil.copyfile(path, folder / "bare" / path.name)
    for kind, sizes in SIZES.items():
        fresh.write(sizes, folder / kind)
        for method, data in {"lora": "faces", "word": "bare"}.items():
            text = settings_of(kind, method, folder / kind, folder / data)
            (folder / f"{kind}-{method}.toml").write_text(text)
        train_here(folder / f"{kind}-lora.toml", f"{kind}-lora", folder, SHORT)
    return folder


def refused(settings: Path, runs: Path, changes: dict[str, Any]) -> FusainError:
    with pytest.raises(FusainError) as caught:
        train_here(settings, "run", runs, SHORT | changes)
    assert not list(runs.glob("run/checkpoints/*"))
    return caught.value


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("theirs", "ours"), [("sd", "sdxl"), ("sdxl", "sd")])
def test_a_lora_for_the_other_one_is_no_start(place: Path, tmp_path: Path, theirs: str, ours: str, name: str) -> None:
    """Whichever style its file is in; layers of one name have another width."""
    start = place / f"{theirs}-lora" / "weights" / name
    fault = str(refused(place / f"{ours}-lora.toml", tmp_path, {"method.start": str(start)}))
    assert fault.startswith("E-LORA-054 The LoRA to go on from is for another model: 'unet.")
    assert ".attn2.to_" in fault.splitlines()[0], "what reads captions tells them apart"
    widths = {"sd": "16 x 16", "sdxl": "16 x 40"}
    assert f"is {widths[theirs]} in the file, {widths[ours]} here." in fault
    assert fault.splitlines()[1:] == [
        f"Where: {start}",
        "Do: Give a LoRA that was trained on the same kind of base, or start without one.",
    ]


@pytest.mark.parametrize("theirs", SIZES)
def test_a_lora_for_the_other_one_is_not_drawn_with(place: Path, tmp_path: Path, theirs: str) -> None:
    """Where somebody put its file into the folder of a run."""
    ours = next(kind for kind in SIZES if kind != theirs)
    shutil.copytree(place / f"{ours}-lora", tmp_path / "run")
    shutil.copyfile(place / f"{theirs}-lora" / "weights" / FILES[0], tmp_path / "run" / "weights" / FILES[0])
    with pytest.raises(FusainError) as caught:
        actions.generate(tmp_path / "run", count=1, output=tmp_path / "drawn")
    assert caught.value.code == "E-LORA-009"
    assert f"It seems to be made for {IN_WORDS[theirs]}." in str(caught.value)
    assert not (tmp_path / "drawn").exists()


def layers_of(path: Path) -> dict[str, Any]:
    return {key: tensor.clone() for key, tensor in load_file(path).items()}


@pytest.fixture
def start(place: Path, tmp_path: Path) -> Path:
    """A copy of the file of XL in kohya's style, for tests that damage it."""
    return Path(shutil.copyfile(place / "sdxl-lora" / "weights" / FILES[1], tmp_path / "start.safetensors"))


def test_half_a_pair_in_a_start(place: Path, tmp_path: Path, start: Path) -> None:
    tensors = layers_of(start)
    del tensors[f"{KOHYA}.lora_up.weight"]
    save_file(tensors, start)
    assert str(refused(place / "sdxl-lora.toml", tmp_path, {"method.start": str(start)})) == (
        f"E-LORA-004 Half of a pair is missing: layer '{LAYER}' has no 'up', only alpha, down.\n"
        f"Where: {start}\n"
        "Do: Download the file again; if it is whole, its writer left layers out, and it cannot be used."
    )


def test_a_start_that_is_not_finite(place: Path, tmp_path: Path, start: Path) -> None:
    tensors = layers_of(start)
    tensors[f"{KOHYA}.lora_up.weight"][0, 0] = float("nan")
    save_file(tensors, start)
    assert str(refused(place / "sdxl-lora.toml", tmp_path, {"method.start": str(start)})) == (
        f"E-LORA-003 '{KOHYA}.lora_up.weight' of the LoRA holds numbers that are not finite (NaN or infinite).\n"
        f"Where: {start}\n"
        "Why: Images drawn with it would be black or noise.\n"
        "Do: Use an earlier save of the same training, or train it again with a lower learning rate."
    )


def test_a_start_with_fewer_layers_says_what_begins_from_nothing(place: Path, tmp_path: Path, start: Path) -> None:
    whole = layers_of(start)
    save_file({key: one for key, one in whole.items() if key.startswith(KOHYA)}, start)
    train_here(place / "sdxl-lora.toml", "run", tmp_path, SHORT | {"method.start": str(start)})
    total = sum(key.endswith(".lora_up.weight") for key in whole)
    (told,) = [event["text"] for event in kinds(tmp_path / "run", "warning") if event["code"] == "W-LORA-022"]
    assert told == (
        f"W-LORA-022 The LoRA to go on from says nothing of {total - 1} of {total} layers that learn, such as "
        f"'{FROM_NOTHING}': these start from nothing. (method.start)"
    )


def test_a_start_without_alphas_counts_whole_and_that_is_said(start: Path) -> None:
    """Kohya's files without alpha are of alpha = rank, as this one was."""
    before = adapters.read(start)
    save_file({key: one for key, one in layers_of(start).items() if not key.endswith(".alpha")}, start)
    found = adapters.read(start)
    assert [note.code for note in found.notes] == ["W-LORA-001"]
    assert found.layers.keys() == before.layers.keys()
    assert all(torch.equal(layer.change(), before.layers[name].change()) for name, layer in found.layers.items())


def test_what_a_start_changes_beside_what_learns(place: Path, tmp_path: Path) -> None:
    """A layer of a text encoder, and that encoder is not to learn."""
    encoder = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
    layers = {
        LAYER: LowRank(torch.ones(4, 16), torch.ones(16, 4), 1.0),
        encoder: LowRank(torch.ones(4, 24), torch.ones(24, 4), 1.0),
    }
    for style in ("diffusers", "kohya"):
        path = tmp_path / f"{style}.safetensors"
        adapters.write(Adapter(layers, adapters.for_model("sdxl")), path, style)
        fault = refused(place / "sdxl-lora.toml", tmp_path, {"method.start": str(path)})
        assert (fault.code, fault.where) == ("E-LORA-055", str(path))
        assert encoder in str(fault)


WORD = {"clip_l": torch.linspace(-1, 1, 32).reshape(2, 16), "clip_g": torch.linspace(-1, 1, 48).reshape(2, 24)}
"""A word of two vectors for each encoder of XL."""


def test_a_word_for_both_encoders_learns_on(place: Path, tmp_path: Path) -> None:
    save_file(WORD, tmp_path / "word.safetensors")
    changes = {"method.start": str(tmp_path / "word.safetensors"), "train.learning_rate": 1e-12}
    train_here(place / "sdxl-word.toml", "run", tmp_path, SHORT | changes)
    after = load_file(tmp_path / "run" / "weights" / "learned_embeds.safetensors")
    torch.testing.assert_close(after, WORD, rtol=0, atol=1e-6)


def test_a_word_for_one_encoder_is_no_start_for_two(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "word.safetensors"
    for key, other in {"clip_l": "clip_g", "clip_g": "clip_l"}.items():
        save_file({key: WORD[key]}, path)
        assert str(refused(place / "sdxl-word.toml", tmp_path, {"method.start": str(path)})) == (
            f"E-TI-005 The embedding holds no '{other}', which a text encoder of this base reads; it holds '{key}'.\n"
            f"Where: {path}\n"
            "Do: Give one that was trained on the same kind of base, or start from a word: method.start_word."
        )


def test_a_word_of_the_first_version_is_no_start(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "word.safetensors"
    save_file({"<ada>": torch.zeros(2, 16)}, path)
    assert str(refused(place / "sdxl-word.toml", tmp_path, {"method.start": str(path)})) == (
        "E-TI-005 The embedding holds no 'clip_l', which a text encoder of this base reads; it holds '<ada>'.\n"
        f"Where: {path}\n"
        "Do: Give one that was trained on the same kind of base, or start from a word: method.start_word."
    )


def test_a_word_of_other_widths_is_no_start(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "word.safetensors"
    save_file(WORD | {"clip_g": torch.zeros(2, 1280)}, path)
    assert str(refused(place / "sdxl-word.toml", tmp_path, {"method.start": str(path)})) == (
        "E-TI-004 The embedding holds 2 vectors of 1280 numbers; 2 vectors of 24 numbers are needed.\n"
        f"Where: {path}\n"
        "Do: Set method.vectors to what the file holds; where the width differs, it was made for another kind of base."
    )


def test_the_first_half_of_a_word_of_xl_is_a_start_for_the_first_version(place: Path, tmp_path: Path) -> None:
    """Its first encoder is the one that the first version has, at full size too."""
    save_file(WORD, tmp_path / "word.safetensors")
    changes = SHORT | {"method.start": str(tmp_path / "word.safetensors"), "train.learning_rate": 1e-12}
    train_here(place / "sd-word.toml", "run", tmp_path, changes)
    after = load_file(tmp_path / "run" / "weights" / "learned_embeds.safetensors")
    torch.testing.assert_close(after, {"<ada>": WORD["clip_l"]}, rtol=0, atol=1e-6)


@pytest.fixture
def ada(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of DreamBooth on XL, four pictures of Ada and a cache of its own."""
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ada").mkdir()
    for number, picture in enumerate(portraits("Ada", 4).images):
        Image.fromarray(picture).save(tmp_path / "ada" / f"{number}.png")
    (tmp_path / "ada.toml").write_text(settings_of("sdxl", "dreambooth", place / "sdxl", tmp_path / "ada"))
    return tmp_path


def test_class_images_that_were_broken_off_go_on_where_they_were(ada: Path) -> None:
    few = {"train.steps": 2}

    def interrupt(event: dict[str, Any]) -> None:
        if event["kind"] == "class_images" and event["done"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_here(ada / "ada.toml", "run", ada, few, report=interrupt)
    kept = {path: path.stat().st_mtime_ns for path in drawn_in(ada)}
    assert len(kept) == 3
    train_here(ada / "ada.toml", "run", ada, few)
    assert progress(ada / "run")[-4:] == [(done, 3) for done in range(4)]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    in_parts = flat(drawn_in(ada))
    shutil.rmtree(ada / "cache")
    train_here(ada / "ada.toml", "whole", ada, few)
    assert all(np.array_equal(one, other) for one, other in zip(in_parts, flat(drawn_in(ada)), strict=True))
    assert_equal_runs(ada / "run", ada / "whole")


def test_a_folder_without_a_picture_of_the_subject(ada: Path) -> None:
    (ada / "empty").mkdir()
    with pytest.raises(FusainError) as caught:
        train_here(ada / "ada.toml", "run", ada, {"data.path": str(ada / "empty")})
    assert caught.value.code == "E-DATA-003"
    assert f"No images in '{ada / 'empty'}'" in str(caught.value)
    assert drawn_in(ada) == [], "nothing is drawn for nobody"


def test_one_picture_of_the_subject_is_learnt_with_a_word_of_warning(ada: Path) -> None:
    for number in (1, 2, 3):
        (ada / "ada" / f"{number}.png").unlink()
    train_here(ada / "ada.toml", "run", ada, {"train.steps": 2})
    assert len(losses(ada / "run")) == 2
    said = [row["text"] for row in kinds(ada / "run", "warning") if row["code"].startswith("W-DATA")]
    assert said == ["One image alone shows 's': 0.png."]


MASKS = {"data.masks.use": "files", "data.masks.outside": 0.0}


@pytest.fixture
def masked(ada: Path) -> Path:
    """With a mask of the left half beside each picture."""
    for path in sorted((ada / "ada").glob("?.png")):
        left = np.zeros((64, 64), np.uint8)
        left[:, :32] = 255
        Image.fromarray(left).save(path.with_name(f"{path.stem}-masklabel.png"))
    return ada


def test_only_what_masks_show_is_learnt(masked: Path) -> None:
    """With encodings that are stored and with none, beside class images, which are learnt whole."""
    found = {}
    for name, changes in {"whole": {}, "masked": MASKS, "each": MASKS | {"data.cache": "none"}}.items():
        train_here(masked / "ada.toml", name, masked, {"train.steps": 2, "data.class_images.count": 2, **changes})
        found[name] = losses(masked / name)
    assert found["masked"] == pytest.approx(found["each"], rel=2e-5)
    assert all(abs(found["masked"][step] / found["whole"][step] - 1) > 0.1 for step in (1, 2))


def test_masks_that_do_not_fit_are_named(masked: Path) -> None:
    Image.new("L", (32, 64), 255).save(masked / "ada" / "1-masklabel.png")
    Image.new("L", (64, 64), 0).save(masked / "ada" / "2-masklabel.png")
    with pytest.raises(FusainError) as caught:
        train_here(masked / "ada.toml", "run", masked, {"train.steps": 2, **MASKS})
    assert str(caught.value) == (
        "E-MASK-001 2 masks cannot be used:\n"
        "    '1-masklabel.png' has 32 x 64 pixels, '1.png' 64 x 64.\n"
        "    '2-masklabel.png' is black all over: nothing of '2.png' would be learnt.\n"
        f"Where: {masked / 'ada'}\n"
        "Why: A mask says for each pixel of its image how much it is learnt: grey, of the same size, and not black all "
        "over.\n"
        'Do: Mend or remove them, or learn images whole: data.masks.use = "none".'
    )
