"""`fusain import` of diffusers' commands: every flag has its place in the account, in the tables and on the page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fusain.errors import FusainError
from fusain.runs.imports import diffusers, reading, writing
from fusain.runs.imports.account import Not, To
from fusain.runs.imports.diffusers_keys import LAUNCHER, SCRIPTS
from fusain.settings import described

ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / "tests" / "fixtures" / "foreign"
FLAGS = {
    "train_unconditional.py": """
        dataset_name dataset_config_name model_config_name_or_path train_data_dir output_dir overwrite_output_dir
        cache_dir resolution center_crop random_flip train_batch_size eval_batch_size dataloader_num_workers num_epochs
        save_images_epochs save_model_epochs gradient_accumulation_steps learning_rate lr_scheduler lr_warmup_steps
        adam_beta1 adam_beta2 adam_weight_decay adam_epsilon use_ema ema_inv_gamma ema_power ema_max_decay push_to_hub
        hub_token hub_model_id hub_private_repo logger logging_dir local_rank mixed_precision prediction_type
        ddpm_num_steps ddpm_num_inference_steps ddpm_beta_schedule checkpointing_steps checkpoints_total_limit
        resume_from_checkpoint enable_xformers_memory_efficient_attention preserve_input_precision""",
    "train_text_to_image.py": """
        input_perturbation pretrained_model_name_or_path revision variant dataset_name dataset_config_name
        train_data_dir image_column caption_column max_train_samples validation_prompts output_dir cache_dir seed
        resolution center_crop random_flip train_batch_size num_train_epochs max_train_steps
        gradient_accumulation_steps gradient_checkpointing learning_rate scale_lr lr_scheduler lr_warmup_steps snr_gamma
        dream_training dream_detail_preservation use_8bit_adam allow_tf32 use_ema offload_ema foreach_ema
        non_ema_revision dataloader_num_workers adam_beta1 adam_beta2 adam_weight_decay adam_epsilon max_grad_norm
        push_to_hub hub_token prediction_type hub_model_id logging_dir mixed_precision report_to local_rank
        checkpointing_steps checkpoints_total_limit resume_from_checkpoint enable_xformers_memory_efficient_attention
        noise_offset validation_epochs tracker_project_name image_interpolation_mode""",
}
"""The flags of the scripts at commit 58eb52c of diffusers (August 2026)."""


def account_of(tmp_path: Path, command: str):
    path = tmp_path / "train.sh"
    path.write_text(command)
    return reading.read(path)[1]


def words(account, key: str) -> str:
    (entry,) = [entry for entry in account.entries if entry.key == key]
    return f"{entry.fate}: {entry.words}"


@pytest.mark.parametrize("script", FLAGS)
def test_every_flag_has_a_rule_whose_setting_exists(script):
    assert set(SCRIPTS[script]) == set(FLAGS[script].split())
    known = {entry.key for entry in described.load().settings}
    targets = {rule.target for rule in (*SCRIPTS[script].values(), *LAUNCHER.values()) if isinstance(rule, To)}
    assert targets - known == set()


@pytest.mark.parametrize("script", FLAGS)
def test_every_flag_has_its_row_on_the_page(script):
    text = (ROOT / "docs" / "how-to" / "coming-from-diffusers.md").read_text()
    section = text.partition(f"## `{script}`\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `--(\w+)` \| (.*?) \|", section, re.MULTILINE))
    expected = {
        key: f"`{rule.target}`" if isinstance(rule, To) else "needs no place" if isinstance(rule, Not) else "not done"
        for key, rule in SCRIPTS[script].items()
    }
    assert rows == expected


def test_the_command_that_the_project_began_with(tmp_path):
    source = FOREIGN / "train_text_to_image.sh"
    made = writing.import_file(source, tmp_path / "run.toml")
    values = tomllib.loads(made.settings.read_text())
    recipe = tomllib.loads((ROOT / "src" / "fusain" / "recipes" / "caricature.toml").read_text())
    assert made.faults == ()
    assert made.account.of("lost") == made.account.of("unknown") == []
    for section, settings in recipe.items():
        assert {key: values[section][key] for key in settings} == settings, section
    assert values["data"] == {
        "path": "Acadys/PointConImagesV2",
        "kind": "datasets",
        "caption_column": "texte",
        "crop": "random",
        "held_out": "none",
    }
    assert (values["track"], values["weights_folder"]) == ({"wandb": "online"}, "Acadys/PointConImageModelV1-4")
    page = (ROOT / "docs" / "how-to" / "caricature.md").read_text()
    flags = re.findall(r"--(\w+)", source.read_text())
    assert len(flags) == 18
    assert [flag for flag in flags if f"--{flag}" not in page] == []


def test_a_command_of_the_unconditional_script(tmp_path):
    made = writing.import_file(FOREIGN / "train_unconditional.sh", tmp_path / "run.toml")
    text = made.settings.read_text()
    assert made.faults == ()
    assert tomllib.loads(text) == {
        "weights_folder": "models/mine",
        "family": {
            "kind": "pixel",
            "size": 64,
            "channels": [128, 128, 256, 256, 512, 512],
            "attention_levels": [4],
            "betas": "cosine",
            "prediction": "sample",
        },
        "method": {"kind": "full", "loss": {"min_snr_gamma": 100.0}},
        "data": {"path": "my_images", "crop": "center", "flip": True, "held_out": "none"},
        "train": {
            "epochs": 50.0,
            "batch_size": 32,
            "accumulation": 2,
            "learning_rate": 0.0001,
            "schedule": "cosine",
            "warmup_steps": 200,
            "weight_decay": 1e-6,
            "optimizer_options": {"betas": [0.9, 0.999], "eps": 1e-8},
            "ema_decay": 0.9999,
        },
        "checkpoint": {"every_steps": 500},
        "samples": {"sampler": "ddpm", "steps": 1000, "count": 16, "every_epochs": 10.0},
        "engine": {"precision": "fp32", "processes": 1},
        "track": {"wandb": "online"},
    }
    assert words(made.account, "--ema_power") == (
        "lost: Fusain has no such warm-up of the average; its decay rises as (1 + step) / (10 + step)"
    )
    assert [entry.key for entry in made.account.of("unknown")] == ["--house_special"]
    assert "secretsecret" not in text + str(made.as_json())


@pytest.mark.parametrize("script", FLAGS)
def test_every_flag_given_is_accounted_for(tmp_path, script):
    begin = f"accelerate launch --num_processes 2 --multi_gpu --dynamo_backend inductor {script} "
    command = begin + " ".join(f"--{key} 1" for key in FLAGS[script].split())
    account = account_of(tmp_path, command)
    told = {entry.key.removeprefix("--") for entry in account.entries}
    assert set(FLAGS[script].split()) - told == set()
    assert {key: account.settings[key] for key in ("engine.processes", "engine.compile", "train.batch_size")} == {
        "engine.processes": 2,
        "engine.compile": "on",
        "train.batch_size": 2,
    }
    assert words(account, "accelerate --multi_gpu") == "needless: num_processes says how many"
    assert words(account, "--train_batch_size") == (
        "mapped: so many on each of 2 processes, which share one batch here"
    )


def test_a_launcher_that_does_not_say_how_many(tmp_path):
    account = account_of(tmp_path, "accelerate launch --multi_gpu --dynamo_backend eager train_unconditional.py")
    assert "engine.processes" not in account.settings
    assert words(account, "accelerate --multi_gpu") == (
        "lost: Fusain has no count of GPUs of its own; write engine.processes"
    )
    assert words(account, "accelerate --dynamo_backend") == (
        "lost: engine.compile uses the compiler inductor, not eager"
    )


def test_what_a_script_does_by_itself(tmp_path):
    settings = account_of(tmp_path, "python train_text_to_image.py --pretrained_model_name_or_path mine").settings
    assert settings == {
        "family.kind": "sd",
        "family.base": "mine",
        "family.size": 512,
        "method.kind": "full",
        "method.condition_dropout": 0.0,
        "data.crop": "random",
        "data.held_out": "none",
        "train.epochs": 100.0,
        "train.batch_size": 16,
        "train.learning_rate": 1e-4,
        "train.schedule": "constant",
        "train.ema_decay": 0.0,
        "checkpoint.every_steps": 500,
        "samples.every_steps": 0,
        "engine.precision": "fp32",
    }


def test_flags_that_change_one_another(tmp_path):
    begin = "python train_text_to_image.py --train_batch_size 4 --gradient_accumulation_steps 2 "
    flags = (
        "--scale_lr --learning_rate 1e-5 --lr_scheduler cosine_with_restarts --max_train_steps 9 --num_train_epochs 3"
    )
    account = account_of(tmp_path, f"{begin} {flags} --report_to all --validation_prompts 'a b' c --snr_gamma=5")
    found = account.settings
    assert found["train.learning_rate"] == 8e-5
    assert (found["train.schedule_cycles"], found["train.warmup_steps"], found["train.steps"]) == (1, 500, 9)
    assert "train.epochs" not in found
    assert (found["track.tensorboard"], found["track.wandb"]) == (True, "online")
    assert (found["samples.prompts"], found["method.loss.min_snr_gamma"]) == (["a b", "c"], 5.0)
    constant = account_of(tmp_path, f"{begin} --lr_warmup_steps 500 --report_to comet_ml")
    assert words(constant, "--lr_warmup_steps") == (
        "needless: constant takes no warm-up there; constant_with_warmup does"
    )
    assert words(constant, "--report_to") == "lost: Fusain has no tracker comet_ml"
    with_warm_up = account_of(tmp_path, f"{begin} --lr_warmup_steps 500 --lr_scheduler constant_with_warmup")
    assert (with_warm_up.settings["train.schedule"], with_warm_up.settings["train.warmup_steps"]) == ("constant", 500)


def test_names_are_filled_in_from_the_file_alone(monkeypatch):
    monkeypatch.setenv("ELSEWHERE", "secret")
    text = "A=x # why\nexport B='y z'\npython train_unconditional.py --dataset_name $A --output_dir ${B}/$ELSEWHERE\n"
    assert diffusers.parse(text) == {
        "script": "train_unconditional.py",
        "launcher": {},
        "flags": {"dataset_name": "x", "output_dir": "y z/$ELSEWHERE"},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "accelerate launch train_dreambooth.py --resolution 512",
            "E-IMP-009 The command runs train_dreambooth.py, which Fusain does not import.\nWhere: "
            "train_dreambooth.py\n"
            "Do: Give a command of train_unconditional.py or train_text_to_image.py; for other scripts, begin with a "
            "recipe: fusain recipes.",
        ),
        (
            "python train_unconditional.py --output_dir 'mine",
            "E-IMP-003 'train.sh' is not valid shell: No closing quotation.\nWhere: {path}\n"
            "Do: Mend it in an editor, or save it anew with the tool that it is of.",
        ),
        (
            "python train_unconditional.py --lr_warmup_steps many",
            "E-IMP-008 'train.sh' has the keys of diffusers, but not its values: could not convert string to float: "
            "'many'.\nWhere: {path}\nDo: Mend the value, or save the file anew with that tool.",
        ),
    ],
)
def test_commands_that_cannot_be_imported(tmp_path, text, expected):
    with pytest.raises(FusainError) as caught:
        account_of(tmp_path, text)
    assert str(caught.value) == expected.format(path=tmp_path / "train.sh")
