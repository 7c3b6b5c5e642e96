"""`fusain import`: whole configurations of three tools, every key of them accounted for, and every way to fail."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from fusain.cli import main as command
from fusain.errors import FusainError
from fusain.runs.imports import reading, writing
from fusain.runs.imports.account import Account
from fusain.runs.settings import RunSettings
from fusain.settings.read import resolve

FOREIGN = Path(__file__).parents[1] / "fixtures" / "foreign"
WHOLE = ("train.lr_scheduler_params", "optimizer_defaults", "secrets", "meta")
"""Keys that are one whatever lies below them."""


def leaves(values, prefix: str = ""):
    """The dotted keys of a source as a reader would count them: lists of texts and numbers are values."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        name = f"{prefix}{key}"
        is_list_of_tables = isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
        if (isinstance(value, dict) and name not in WHOLE) or is_list_of_tables:
            yield from leaves(value, f"{name}.")
        else:
            yield name


def parsed(path: Path):
    text = path.read_text()
    return {".toml": tomllib.loads, ".json": json.loads, ".yaml": yaml.safe_load}[path.suffix](text)


def imported(name: str, tmp_path: Path):
    made = writing.import_file(FOREIGN / name, tmp_path / "run.toml")
    return made, tomllib.loads(made.settings.read_text())


def words(account: Account, key: str) -> str:
    (entry,) = [entry for entry in account.entries if entry.key == key]
    return f"{entry.fate}: {entry.words}"


OF_XL = ("kohya_sdxl.toml", "onetrainer_sdxl.json", "ai_toolkit_sdxl.yaml")


@pytest.mark.parametrize("name", ["kohya.toml", "kohya_dataset.toml", "onetrainer.json", "ai_toolkit.yaml", *OF_XL])
def test_every_key_has_its_place(name):
    _, account = reading.read(FOREIGN / name)
    source = set(leaves(parsed(FOREIGN / name)))
    told = {entry.key for entry in account.entries if entry.key}
    lists = {"optimizer_args", "network_args"}
    assert {key for key in source - lists if key not in told} == set(), "silent"
    assert {key for key in told - source if key.partition(".")[0] not in lists} == set(), "not in the source"
    assert [
        key for key, times in Counter(entry.key for entry in account.entries if entry.key).items() if times > 1
    ] == []
    assert account.settings == {
        entry.target: account.settings[entry.target] for entry in account.entries if entry.target
    }


def test_kohya(tmp_path):
    made, values = imported("kohya.toml", tmp_path)
    assert made.faults == ()
    assert values == {
        "weights_folder": "/data/model",
        "family": {
            "kind": "sd",
            "base": "runwayml/stable-diffusion-v1-5",
            "size": 512,
            "clip_skip": 1,
            "text_windows": 2,
        },
        "method": {
            "kind": "lora",
            "rank": 32,
            "alpha": 16.0,
            "targets": "attention+feed_forward",
            "text_encoder": True,
            "text_encoder_rate": 0.5,
            "condition_dropout": 0.05,
            "file_dtype": "fp16",
            "loss": {"kind": "l2", "min_snr_gamma": 5.0, "noise_offset": 0.05},
        },
        "data": {
            "path": "/data/img",
            "buckets": True,
            "max_upscale": 1.0,
            "flip": True,
            "cache": "auto",
            "workers": 2,
            "held_out": "none",
            "captions": {"shuffle_tokens": True, "keep_tokens": 1},
            "class_images": {"path": "/data/reg", "weight": 1.0},
        },
        "train": {
            "steps": 1600,
            "batch_size": 4,
            "accumulation": 2,
            "learning_rate": 0.0001,
            "optimizer": "adamw_8bit",
            "optimizer_options": {"betas": [0.9, 0.99]},
            "weight_decay": 0.1,
            "schedule": "cosine",
            "warmup_steps": 160,
            "clip_norm": 1.0,
            "ema_decay": 0.0,
            "seed": 42,
        },
        "checkpoint": {"every_epochs": 1.0},
        "samples": {"sampler": "euler-ancestral", "every_epochs": 1.0},
        "engine": {"precision": "bf16", "gradient_checkpointing": True},
    }
    account = made.account
    assert words(account, "lr_scheduler_num_cycles") == "needless: it belongs to another schedule"
    assert words(account, "min_bucket_reso") == (
        "lost: Fusain has no smallest bucket; data.bucket_aspect says how long one may be"
    )
    assert [entry.key for entry in account.of("unknown")] == ["house_special"]
    text = made.settings.read_text()
    assert "0123456789abcdef" not in text
    assert "0123456789abcdef" not in json.dumps(made.as_json())
    assert "# Not known to Fusain:\n#   house_special = 3\n" in text
    assert '# optimizer_type = "AdamW8bit"\noptimizer = "adamw_8bit"\n' in text
    assert text.startswith(
        "#:schema ./fusain.schema.json\n# Made by `fusain import` from kohya.toml, a configuration of"
    )


def test_a_data_set_of_kohya(tmp_path):
    made, values = imported("kohya_dataset.toml", tmp_path)
    assert values["data"] == {
        "path": "/data/sks",
        "repeats": 10,
        "buckets": True,
        "flip": False,
        "captions": {"shuffle_tokens": True, "keep_tokens": 1, "trigger_word": "sks dog"},
        "class_images": {"path": "/data/dogs", "weight": 1.0, "prompt": "dog"},
    }
    assert (values["family"]["size"], values["train"]["batch_size"]) == (640, 4)
    account = made.account
    assert words(account, "datasets.0.resolution") == (
        "mapped: Fusain learns at one size, with buckets around it; 768 × 512 became 640"
    )
    assert words(account, "datasets.0.subsets.2.image_dir") == (
        "lost: data.path is one folder; put the images of both below one"
    )
    assert words(account, "datasets.1.resolution") == "lost: Fusain learns from one data set"


def test_onetrainer(tmp_path):
    made, values = imported("onetrainer.json", tmp_path)
    assert made.faults == ()
    assert values == {
        "family": {
            "kind": "sd",
            "base": "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "size": 640,
            "clip_skip": 1,
            "prediction": "auto",
            "zero_terminal_snr": "auto",
        },
        "method": {
            "kind": "lora",
            "rank": 32,
            "alpha": 16.0,
            "dora": False,
            "dropout": 0.0,
            "targets": "attention+feed_forward",
            "text_encoder": True,
            "text_encoder_rate": 0.5,
            "condition_dropout": 0.1,
            "file_dtype": "fp16",
            "loss": {"noise_offset": 0.05, "input_perturbation": 0.0, "min_snr_gamma": 5.0},
        },
        "data": {
            "path": "/data/mine",
            "repeats": 4,
            "buckets": True,
            "cache": "auto",
            "crop": "random",
            "flip": True,
            "held_out": "none",
            "captions": {"shuffle_tokens": True, "keep_tokens": 1},
            "masks": {"use": "none"},
        },
        "train": {
            "epochs": 50.0,
            "batch_size": 4,
            "accumulation": 1,
            "learning_rate": 0.0003,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "schedule": "cosine",
            "warmup_steps": 100,
            "clip_norm": 1.0,
            "ema_decay": 0.999,
        },
        "checkpoint": {"every_epochs": 5.0, "keep": 3},
        "engine": {"device": "cuda", "precision": "bf16", "gradient_checkpointing": True, "compile": "off"},
        "track": {"tensorboard": True},
    }
    account = made.account
    assert (
        words(account, "concepts.0.image.enable_random_rotate")
        == "lost: Fusain has no such change of images or captions"
    )
    assert words(account, "concepts.1.path") == "lost: Fusain learns from one folder; put the images below one"
    assert words(account, "sample_after") == "lost: Fusain counts steps or epochs: samples.every_steps"
    assert words(account, "embedding.placeholder") == "needless: it belongs to what this training does not do"
    assert account.of("unknown") == []
    assert "hf_abcdefghijklmnop" not in made.settings.read_text() + json.dumps(made.as_json())


def test_a_preset_of_onetrainer_stands_on_its_defaults(tmp_path):
    preset = tmp_path / "#sd 1.5.json"
    preset.write_text('{"training_method": "FINE_TUNE", "model_type": "STABLE_DIFFUSION_15", "batch_size": 4}')
    made = writing.import_file(preset, tmp_path / "run.toml")
    settings = tomllib.loads(made.settings.read_text())
    assert settings["method"] == {"kind": "full", "text_encoder": True}
    assert settings["train"] == {
        "batch_size": 4,
        "learning_rate": 3e-6,
        "warmup_steps": 200,
        "epochs": 100.0,
        "ema_decay": 0.0,
    }
    assert [fault.code for fault in made.faults] == ["E-CFG-007"], "its concepts are in another file"


def test_ai_toolkit(tmp_path):
    made, values = imported("ai_toolkit.yaml", tmp_path)
    assert made.faults == ()
    assert values == {
        "runs_folder": "output",
        "family": {"kind": "sd", "base": "stable-diffusion-v1-5/stable-diffusion-v1-5", "size": 1024},
        "method": {
            "kind": "lora",
            "rank": 16,
            "alpha": 16.0,
            "targets": "attention+feed_forward",
            "text_encoder": False,
            "condition_dropout": 0.05,
            "file_dtype": "fp16",
            "loss": {"noise_offset": 0.1},
        },
        "data": {
            "path": "/path/to/images/folder",
            "buckets": True,
            "held_out": "none",
            "captions": {"trigger_word": "p3r5on", "shuffle_tokens": False},
        },
        "train": {
            "steps": 2000,
            "batch_size": 1,
            "accumulation": 1,
            "learning_rate": 0.0001,
            "optimizer": "adamw_8bit",
            "weight_decay": 0.0001,
            "ema_decay": 0.99,
        },
        "checkpoint": {"every_steps": 250, "keep": 4},
        "samples": {
            "sampler": "ddpm",
            "every_steps": 250,
            "steps": 20,
            "guidance": 4.0,
            "seed": 42,
            "prompts": ["p3r5on holding a sign that says 'I LOVE PROMPTS!'", "a bear building a log cabin"],
        },
        "engine": {"device": "cuda:0", "precision": "bf16", "gradient_checkpointing": True},
    }
    account = made.account
    assert words(account, "config.process.0.datasets.0.resolution") == (
        "mapped: Fusain learns at one size, with buckets around it; of 512, 768, 1024"
    )
    assert words(account, "config.name") == "needless: name the run: fusain train FILE --name my_first_lora_v1"
    assert account.of("unknown") == []


@pytest.mark.parametrize("name", ["kohya.toml", "onetrainer.json", "ai_toolkit.yaml", *OF_XL])
def test_what_is_written_is_right_settings(name, tmp_path):
    made, _ = imported(name, tmp_path)
    resolved = resolve(RunSettings, path=made.settings)
    assert resolved.settings.method.kind == "lora"


def test_kohya_for_xl(tmp_path):
    made, values = imported("kohya_sdxl.toml", tmp_path)
    assert made.faults == ()
    assert values == {
        "family": {
            "kind": "sdxl",
            "base": "/models/sd_xl_base_1.0.safetensors",
            "vae": "/models/sdxl_vae.safetensors",
            "size": 1024,
            "text_windows": 3,
        },
        "method": {
            "kind": "lora",
            "rank": 16,
            "alpha": 8.0,
            "targets": "attention+feed_forward",
            "text_encoder": True,
            "text_encoder_rate": 0.5,
            "file_dtype": "fp16",
            "loss": {"kind": "l2", "min_snr_gamma": 5.0, "noise_offset": 0.0357},
        },
        "data": {"path": "/data/img", "buckets": True, "max_upscale": 1.0, "cache": "auto", "held_out": "none"},
        "train": {
            "epochs": 10.0,
            "batch_size": 2,
            "learning_rate": 0.0001,
            "optimizer": "adafactor",
            "schedule": "constant",
            "warmup_steps": 0,
            "ema_decay": 0.0,
        },
        "checkpoint": {"every_epochs": 1.0},
        "engine": {"precision": "bf16", "gradient_checkpointing": True},
    }
    account = made.account
    assert words(account, "clip_skip") == "needless: encoders of XL are read before their last layer, there and here"
    assert words(account, "text_encoder_lr") == (
        "mapped: as a factor of train.learning_rate; both encoders have the first one's"
    )
    assert "# by the name of the base; set it to sd if that is no XL\nkind = " in made.settings.read_text()


@pytest.mark.parametrize(
    ("base", "text", "family", "why"),
    [
        ("sd_xl_base_1.0.safetensors", "", "sdxl", "by the name of the base; set it to sd if that is no XL"),
        ("/my/ponyDiffusionV6XL.safetensors", "", "sdxl", "by the name of the base; set it to sd if that is no XL"),
        (
            "mine.safetensors",
            "learning_rate_te2 = 1e-6",
            "sdxl",
            "only scripts for XL know learning_rate_te2; set it to sd if the base is no XL",
        ),
        (
            "mine.safetensors",
            "cache_text_encoder_outputs = false",
            "sd",
            "the base says which version it is; set it to sdxl if that is one of XL",
        ),
    ],
)
def test_how_a_file_of_kohya_is_known_to_be_for_xl(tmp_path, base, text, family, why):
    account = account_of(tmp_path, "run.toml", f"pretrained_model_name_or_path = '{base}'\nseed = 1\n{KOHYA}{text}\n")
    (entry,) = [entry for entry in account.entries if entry.target == "family.kind"]
    assert (account.settings["family.kind"], entry.fate, entry.words) == (family, "assumed", why)
    assert account.settings["family.size"] == {"sdxl": 1024, "sd": 512}[family]


def test_all_weights_of_xl_in_kohya(tmp_path):
    text = "pretrained_model_name_or_path = 'sdxl.safetensors'\nmax_train_steps = 9\nfused_backward_pass = true\n"
    text += "train_text_encoder = true\nlearning_rate_te1 = 1e-6\nlearning_rate_te2 = 5e-7\nblock_lr = '1e-3'\n"
    account = account_of(tmp_path, "run.toml", text)
    assert (account.settings["method.kind"], account.settings["method.text_encoder"]) == ("full", True)
    assert account.settings["train.fused_backward"] is True
    assert account.settings["train.parts"] == [
        {"names": "text_encoder", "learning_rate": 1e-6},
        {"names": "text_encoder_2", "learning_rate": 5e-7},
    ]
    assert words(account, "block_lr") == "lost: Fusain has no rates of blocks by a list; write train.parts"
    made = writing.import_file(tmp_path / "run.toml", tmp_path / "made.toml")
    assert [fault.code for fault in made.faults] == ["E-CFG-007"], "its data are in another file"
    asleep = account_of(tmp_path, "run.toml", text.replace("train_text_encoder = true\n", ""))
    assert words(asleep, "learning_rate_te1") == "needless: the text encoders do not learn (train_text_encoder)"
    one = account_of(tmp_path, "run.toml", text.replace("5e-7", "0"))
    assert words(one, "learning_rate_te2") == (
        "lost: both text encoders learn or none; this one learns at train.learning_rate"
    )


def test_onetrainer_for_xl(tmp_path):
    made, values = imported("onetrainer_sdxl.json", tmp_path)
    assert made.faults == ()
    assert values == {
        "family": {
            "kind": "sdxl",
            "base": "stabilityai/stable-diffusion-xl-base-1.0",
            "size": 1024,
            "clip_skip": 0,
        },
        "method": {
            "kind": "lora",
            "rank": 32,
            "alpha": 16.0,
            "targets": "all",
            "text_encoder": True,
            "text_encoder_rate": 0.1,
            "condition_dropout": 0.1,
            "file_dtype": "fp16",
            "loss": {"min_snr_gamma": 5.0},
        },
        "data": {"path": "/data/mine", "buckets": True, "held_out": "none"},
        "train": {
            "epochs": 20.0,
            "batch_size": 4,
            "learning_rate": 0.0003,
            "schedule": "constant",
            "warmup_steps": 200,
            "ema_decay": 0.0,
        },
        "engine": {"precision": "bf16", "gradient_checkpointing": True},
    }
    account = made.account
    assert words(account, "text_encoder_2.train") == "needless: told with text_encoder.train"
    assert words(account, "text_encoder_2.learning_rate") == (
        "lost: both text encoders are as text_encoder.learning_rate says"
    )
    assert (
        words(account, "text_encoder_3.train")
        == "needless: it belongs to other models or other work, and was not copied"
    )
    assert account.of("unknown") == []


def test_ai_toolkit_for_xl(tmp_path):
    made, values = imported("ai_toolkit_sdxl.yaml", tmp_path)
    assert made.faults == ()
    assert values == {
        "runs_folder": "output",
        "family": {"kind": "sdxl", "base": "stabilityai/stable-diffusion-xl-base-1.0", "size": 1024},
        "method": {
            "kind": "lora",
            "rank": 32,
            "alpha": 32.0,
            "targets": "attention+feed_forward",
            "text_encoder": True,
            "text_encoder_rate": 0.2,
            "file_dtype": "fp16",
            "loss": {"min_snr_gamma": 5.0},
        },
        "data": {"path": "/path/to/images/folder", "buckets": True, "held_out": "none"},
        "train": {
            "steps": 3000,
            "batch_size": 2,
            "learning_rate": 0.0001,
            "optimizer": "adamw_8bit",
            "ema_decay": 0.0,
        },
        "checkpoint": {"every_steps": 500, "keep": 4},
        "samples": {
            "sampler": "euler",
            "every_steps": 500,
            "steps": 30,
            "guidance": 7.0,
            "prompts": ["a bear building a log cabin"],
        },
        "engine": {"device": "cuda:0", "precision": "bf16", "gradient_checkpointing": True},
    }
    account = made.account
    assert words(account, "config.process.0.model.is_xl") == "needless: it is said by family.kind"
    assert words(account, "config.process.0.model.refiner_name_or_path") == "lost: Fusain has no refiner of XL"


def told(path: Path, output: Path) -> str:
    with pytest.raises(FusainError) as caught:
        writing.import_file(path, output)
    assert not output.exists() or output.read_text() == "mine"
    return str(caught.value)


LONGER = (
    "Do: Give one of these tools: kohya, OneTrainer, ai-toolkit, diffusers. Their files end with .toml, .json or "
    ".yaml; a command for diffusers with .sh or .txt."
)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("job.yaml", b"a: [1", "E-IMP-003 'job.yaml' is not valid YAML: while parsing a flow sequence"),
        ("job.json", b"{", "E-IMP-003 'job.json' is not valid JSON: Expecting property name enclosed in double quotes"),
        ("job.toml", b"a = ", "E-IMP-003 'job.toml' is not valid TOML: Invalid value"),
        (
            "job.toml",
            b"\xff\xfe\x00",
            "E-IMP-002 'job.toml' cannot be read: it is no UTF-8 text.\nWhere: {path}\n"
            "Do: Check its permissions, and save it as UTF-8.",
        ),
        (
            "job.toml",
            b"[train]\nsteps = 3\n",
            "E-IMP-004 'job.toml' is no configuration that Fusain knows.\nWhere: {path}\n" + LONGER,
        ),
        ("job.yaml", b"- 1\n", "E-IMP-004 'job.yaml' is no configuration that Fusain knows.\nWhere: {path}\n" + LONGER),
        (
            "job.txt",
            b"network_dim = 3",
            "E-IMP-004 'job.txt' is no configuration that Fusain knows.\nWhere: {path}\n" + LONGER,
        ),
        (
            "form.json",
            b'{"LoRA_type": "Standard", "max_resolution": "512,512", "lr_warmup": 10}',
            "E-IMP-005 'form.json' is a saved form of kohya_ss, not the configuration of a training.\nWhere: {path}\n"
            "Do: Give the TOML that kohya_ss writes when a training starts: config_lora-….toml in its output folder.",
        ),
        (
            "odd.toml",
            b"network_dim = 3\nnetwork_alpha = 3\nunet_lr = 'fast'",
            "E-IMP-008 'odd.toml' has the keys of kohya, but not its values: could not convert string to float: "
            "'fast'.\nWhere: {path}\nDo: Mend the value, or save the file anew with that tool.",
        ),
        (
            "odd.yaml",
            b"job: extension\nconfig: {process: [{type: sd_trainer, datasets: [3]}]}",
            "E-IMP-008 'odd.yaml' has the keys of ai-toolkit, but not its values: 'int' object has no attribute "
            "'items'.\nWhere: {path}\nDo: Mend the value, or save the file anew with that tool.",
        ),
        (
            "flux.json",
            b'{"training_method": "LORA", "model_type": "FLUX_DEV_1"}',
            "E-IMP-006 The configuration is for FLUX_DEV_1, which Fusain does not import.\nWhere: {path}\n"
            "Do: Import one for Stable Diffusion 1.x, 2.x or XL.",
        ),
        (
            "flux.yaml",
            b"job: extension\nconfig: {process: [{type: sd_trainer, model: {is_flux: true}}]}",
            "E-IMP-006 The configuration is for flux, which Fusain does not import.\nWhere: {path}\n"
            "Do: Import one for Stable Diffusion 1.x, 2.x or XL.",
        ),
        (
            "flux.toml",
            b"t5xxl = 'a'\nnetwork_dim = 3\nnetwork_alpha = 3\nlearning_rate = 1e-4",
            "E-IMP-006 The configuration is for a model with the part t5xxl, which Fusain does not import.\n"
            "Where: {path}\nDo: Import one for Stable Diffusion 1.x, 2.x or XL.",
        ),
    ],
)
def test_what_cannot_be_imported(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    text = told(path, tmp_path / "run.toml")
    expected = words.format(path=path)
    if "E-IMP-003" in words:
        assert text.startswith(expected)
        assert text.endswith("Do: Mend it in an editor, or save it anew with the tool that it is of.")
        return
    assert text == expected


def test_files_that_are_not_there_or_would_be_lost(tmp_path):
    gone, output = tmp_path / "gone.toml", tmp_path / "mine.toml"
    assert told(gone, output) == (
        f"E-IMP-001 There is no file 'gone.toml'.\nWhere: {gone}\nDo: Check the name; it must be a file, not a folder."
    )
    output.write_text("mine")
    assert told(FOREIGN / "kohya.toml", output) == (
        f"E-IMP-007 '{output}' exists already; nothing is written over.\n"
        "Do: Choose another name with -o, or move it away."
    )


def account_of(tmp_path: Path, name: str, text: str) -> Account:
    (tmp_path / name).write_text(text)
    return reading.read(tmp_path / name)[1]


KOHYA = "network_module = 'networks.lora'\nnetwork_dim = 3\n"


def test_noise_and_weights_of_kohya(tmp_path):
    text = "multires_noise_iterations = 6\nip_noise_gamma = 0.1\nzero_terminal_snr = true\nlog_with = 'all'\n"
    text += "min_snr_gamma = 5\ndebiased_estimation_loss = true\nnoise_offset_random_strength = true\n"
    account = account_of(tmp_path, "run.toml", KOHYA + text)
    assert {key: value for key, value in account.settings.items() if "loss" in key or "snr" in key} == {
        "method.loss.input_perturbation": 0.1,
        "family.zero_terminal_snr": "on",
        "method.loss.min_snr_gamma": 5.0,
        "method.loss.pyramid_discount": 0.3,
    }
    assert (account.settings["track.tensorboard"], account.settings["track.wandb"]) == (True, "online")
    assert words(account, "debiased_estimation_loss") == ("lost: one weight of noise levels only: min_snr_gamma holds")
    assert words(account, "noise_offset_random_strength") == "lost: Fusain has no noise offset of random strength"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("lr_scheduler = 'cosine_with_restarts'\nlr_scheduler_num_cycles = 4", {"schedule_cycles": 4}),
        ("lr_scheduler = 'cosine_with_restarts'", {"schedule_cycles": 1}),
        ("lr_scheduler = 'polynomial'\nlr_scheduler_power = 3", {"schedule_power": 3.0}),
        ("lr_scheduler = 'cosine'\nlr_scheduler_power = 3", {}),
    ],
)
def test_details_of_schedules_of_kohya(tmp_path, text, settings):
    account = account_of(tmp_path, "run.toml", KOHYA + text)
    found = {key: value for key, value in account.settings.items() if key.startswith("train.schedule_")}
    assert found == {f"train.{name}": value for name, value in settings.items()}


def test_options_of_optimizers_of_kohya(tmp_path):
    text = "optimizer_type = 'Prodigy'\noptimizer_args = ['betas=0.9,0.99', 'eps=1e-6', 'decouple=True', 'betas2']\n"
    account = account_of(tmp_path, "run.toml", KOHYA + text)
    assert account.settings["train.optimizer_options"] == {"betas": [0.9, 0.99], "eps": 1e-6}
    assert words(account, "optimizer_args.decouple") == (
        "lost: set it in train.optimizer_options, by the name that it has there"
    )
    of_another = account_of(tmp_path, "run.toml", KOHYA + text.replace("Prodigy", "Adafactor"))
    assert "train.optimizer_options" not in of_another.settings
    assert words(of_another, "optimizer_type") == (
        "mapped: it learns at train.learning_rate, never at a rate of its own"
    )


@pytest.mark.parametrize(
    ("weighting", "target", "value"),
    [("P2", "method.loss.p2_gamma", 0.5), ("DEBIASED_ESTIMATION", "method.loss.debiased", True)],
)
def test_weights_and_schedules_of_onetrainer(tmp_path, weighting, target, value):
    text = {"training_method": "LORA", "model_type": "STABLE_DIFFUSION_15", "loss_weight_fn": weighting}
    text |= {"loss_weight_strength": 0.5, "learning_rate_scheduler": "COSINE_WITH_HARD_RESTARTS"}
    text |= {"learning_rate_cycles": 2.0, "optimizer": {"optimizer": "LION_8BIT"}}
    settings = account_of(tmp_path, "run.json", json.dumps(text)).settings
    assert settings[target] == value
    assert (settings["train.schedule"], settings["train.schedule_cycles"]) == ("cosine_with_restarts", 2)
    assert settings["train.optimizer"] == "lion"


def test_options_and_logs_of_ai_toolkit(tmp_path):
    process = {"type": "sd_trainer", "logging": {"use_wandb": True, "project_name": "mine"}}
    process["train"] = {"optimizer": "adamw", "optimizer_params": {"eps": 1e-6, "fused": True}}
    account = account_of(tmp_path, "run.yaml", yaml.safe_dump({"job": "extension", "config": {"process": [process]}}))
    assert account.settings["train.optimizer_options"] == {"eps": 1e-6}
    assert (account.settings["track.wandb"], account.settings["track.project"]) == ("online", "mine")
    assert words(account, "config.process.0.train.optimizer_params.fused").startswith("lost: set it in")


ALL_OF_KOHYA = "pretrained_model_name_or_path = 'x'\nmax_train_steps = 9\nfull_bf16 = true\n"


def test_older_switches_of_kohya_for_an_optimizer(tmp_path):
    lion = account_of(tmp_path, "run.toml", f"{KOHYA}use_lion_optimizer = true\nuse_8bit_adam = false\n")
    assert lion.settings["train.optimizer"] == "lion"
    assert words(lion, "use_8bit_adam") == "needless: it is off, and optimizer_type holds"
    adam = account_of(tmp_path, "run.toml", f"{KOHYA}use_lion_optimizer = false\noptimizer_type = 'AdamW'\n")
    assert adam.settings["train.optimizer"] == "adamw"
    assert words(adam, "use_lion_optimizer") == "needless: it is off, and optimizer_type holds"


@pytest.mark.parametrize("of_pass", ["", "fused_backward_pass = true\n", "fused_backward_pass = false\n"])
def test_weights_in_bf16_of_kohya(tmp_path, of_pass):
    text = ALL_OF_KOHYA.replace("'x'", "'sdxl'") + of_pass
    account = account_of(tmp_path, "run.toml", f"{text}mixed_precision = 'bf16'\noptimizer_type = 'Adafactor'\n")
    assert words(account, "full_bf16") == "mapped: each step is rounded up or down by chance"
    assert (account.settings["engine.weights"], account.settings["train.fused_backward"]) == ("bf16", True)
    if "false" in of_pass:
        assert words(account, "fused_backward_pass") == "needless: weights in bf16 need it on"
    made = writing.import_file(tmp_path / "run.toml", tmp_path / "made.toml")
    assert [fault.code for fault in made.faults] == ["E-CFG-007"], "its data are in another file"


@pytest.mark.parametrize(
    ("text", "fate"),
    [
        (
            f"{ALL_OF_KOHYA}gradient_accumulation_steps = 4\nmixed_precision = 'fp16'\n",
            "lost: weights learn in fp32: engine.weights = bf16 does not go with train.accumulation = 4, "
            "engine.precision = fp16",
        ),
        (f"{KOHYA}full_bf16 = true\n", "needless: what learns is small and stays in fp32; the base stays as it is"),
        (ALL_OF_KOHYA.replace("true", "false"), "needless: it is off"),
    ],
)
def test_weights_in_bf16_of_kohya_that_do_not_fit(tmp_path, text, fate):
    account = account_of(tmp_path, "run.toml", text)
    assert words(account, "full_bf16") == fate
    assert "engine.weights" not in account.settings


@pytest.mark.parametrize(
    ("method", "dtypes", "weights"),
    [
        ("FINE_TUNE", ("FLOAT_32", "BFLOAT_16"), "bf16"),
        ("FINE_TUNE", ("BFLOAT_16", "NONE"), "bf16"),
        ("FINE_TUNE", ("BFLOAT_16", "FLOAT_32"), None),
        ("LORA", ("BFLOAT_16", "NONE"), None),
    ],
)
def test_weights_in_bf16_of_onetrainer(tmp_path, method, dtypes, weights):
    values = {"training_method": method, "model_type": "STABLE_DIFFUSION_XL_10_BASE", "train_dtype": "BFLOAT_16"}
    values |= {"weight_dtype": dtypes[0], "unet": {"weight_dtype": dtypes[1]}}
    values["optimizer"] = {"optimizer": "ADAFACTOR", "stochastic_rounding": True, "fused_back_pass": True}
    account = account_of(tmp_path, "run.json", json.dumps(values))
    assert account.settings.get("engine.weights") == weights
    assert account.settings["train.fused_backward"] is True
    why = "weights in bf16 are always rounded so" if weights else "weights in fp32 need no rounding"
    assert words(account, "optimizer.stochastic_rounding") == f"needless: {why}"


def of_tool(tmp_path, tool: str, kind: str, *, learns: str = "lora") -> Account:
    """A file whose base is in few bits, as that tool says it."""
    is_lora = learns == "lora"
    if tool == "kohya":
        text = KOHYA if is_lora else "pretrained_model_name_or_path = 'x'\nmax_train_steps = 9\n"
        return account_of(tmp_path, "run.toml", f"{text}fp8_base = {kind}\n")
    if tool == "OneTrainer":
        method = {"training_method": "LORA" if is_lora else "FINE_TUNE", "model_type": "STABLE_DIFFUSION_15"}
        whole, _, unet = kind.partition("/")
        values = {**method, "weight_dtype": whole, "unet": {"weight_dtype": unet or "NONE"}}
        return account_of(tmp_path, "run.json", json.dumps(values))
    process = {"type": "sd_trainer", "model": {"name_or_path": "x", "quantize": True, "qtype": kind}}
    process |= {"network": {"type": "lora"}} if is_lora else {}
    return account_of(tmp_path, "run.yaml", yaml.safe_dump({"job": "extension", "config": {"process": [process]}}))


@pytest.mark.parametrize(
    ("tool", "kind", "bits"),
    [
        ("kohya", "true", 8),
        ("kohya", "false", None),
        ("OneTrainer", "FLOAT_32/NFLOAT_4", 4),
        ("OneTrainer", "INT_8/NONE", 8),
        ("OneTrainer", "INT_8/FLOAT_16", None),
        ("ai-toolkit", "qfloat8", 8),
        ("ai-toolkit", "uint4", 4),
    ],
)
def test_a_base_in_few_bits(tmp_path, tool, kind, bits):
    assert of_tool(tmp_path, tool, kind).settings.get("engine.base_bits") == bits


@pytest.mark.parametrize(
    ("tool", "kind", "key"),
    [
        ("kohya", "true", "fp8_base"),
        ("OneTrainer", "FLOAT_8/", "weight_dtype"),
        ("ai-toolkit", "qfloat8", "config.process.0.model.quantize"),
    ],
)
def test_weights_that_all_learn_are_not_packed(tmp_path, tool, kind, key):
    account = of_tool(tmp_path, tool, kind, learns="all")
    assert words(account, key) == "lost: all weights learn, and only such as stay as they are can be packed"


def test_values_of_the_wrong_kind_are_said(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(
        "network_module = 'lycoris.kohya'\nnetwork_dim = 'many'\nmixed_precision = 'fp4'\nlr_scheduler = 'rex'\n"
    )
    _, account = reading.read(path)
    assert words(account, "network_module") == (
        "lost: of networks Fusain trains LoRAs, not lycoris.kohya; a plain LoRA is set instead"
    )
    assert words(account, "network_dim") == "lost: the value is not of the kind that belongs to method.rank"
    assert words(account, "mixed_precision") == "lost: the value is not of the kind that belongs to engine.precision"
    assert account.settings["method.kind"] == "lora"


def test_the_verb_says_all_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for extra, output in ((), "run.toml"), (("--format", "json"), "other.toml"):
        with pytest.raises(SystemExit) as ended:
            command.main(["import", str(FOREIGN / "kohya_dataset.toml"), "-o", output, *extra])
        assert not ended.value.code
    human, _, data = capsys.readouterr().out.rpartition("\n{")
    assert "NOT DONE by Fusain, or not in this way" in human
    assert "  datasets.0.subsets.0.num_repeats = 10 -> data.repeats = 10\n" in human
    told = json.loads("{" + data)
    assert {
        "key": "datasets.0.subsets.0.num_repeats",
        "value": "10",
        "words": "",
        "target": "data.repeats",
        "result": 10,
    } in (told["mapped"])
    assert set(told) == {"settings", "tool", "mapped", "assumed", "needless", "lost", "unknown", "faults"}
    assert Path("fusain.schema.json").is_file()
