"""`fusain import` of diffusers' commands: every flag has its place in the account, in the tables and on the page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fusain.errors import FusainError
from fusain.runs.imports import diffusers, reading, writing
from fusain.runs.imports.account import Not, To
from fusain.runs.imports.diffusers_keys import LAUNCHER, TEXT_TO_IMAGE
from fusain.runs.imports.diffusers_xl_keys import SCRIPTS
from fusain.runs.settings import RunSettings
from fusain.settings import described
from fusain.settings.read import resolve

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
    "train_text_to_image_sdxl.py": """
        pretrained_model_name_or_path pretrained_vae_model_name_or_path revision variant dataset_name
        dataset_config_name train_data_dir image_column caption_column validation_prompt num_validation_images
        validation_epochs max_train_samples proportion_empty_prompts output_dir cache_dir seed resolution
        center_crop random_flip train_batch_size num_train_epochs max_train_steps checkpointing_steps
        checkpoints_total_limit resume_from_checkpoint gradient_accumulation_steps gradient_checkpointing
        learning_rate scale_lr lr_scheduler lr_warmup_steps timestep_bias_strategy timestep_bias_multiplier
        timestep_bias_begin timestep_bias_end timestep_bias_portion snr_gamma use_ema allow_tf32
        dataloader_num_workers use_8bit_adam adam_beta1 adam_beta2 adam_weight_decay adam_epsilon max_grad_norm
        push_to_hub hub_token prediction_type hub_model_id logging_dir report_to mixed_precision local_rank
        enable_npu_flash_attention enable_xformers_memory_efficient_attention noise_offset
        image_interpolation_mode""",
    "train_text_to_image_lora_sdxl.py": """
        pretrained_model_name_or_path pretrained_vae_model_name_or_path revision variant dataset_name
        dataset_config_name train_data_dir image_column caption_column validation_prompt num_validation_images
        validation_epochs max_train_samples output_dir cache_dir seed resolution center_crop random_flip
        train_text_encoder train_batch_size num_train_epochs max_train_steps checkpointing_steps
        checkpoints_total_limit resume_from_checkpoint gradient_accumulation_steps gradient_checkpointing
        learning_rate scale_lr lr_scheduler lr_warmup_steps snr_gamma allow_tf32 dataloader_num_workers
        use_8bit_adam adam_beta1 adam_beta2 adam_weight_decay adam_epsilon max_grad_norm push_to_hub hub_token
        prediction_type hub_model_id logging_dir report_to mixed_precision local_rank
        enable_xformers_memory_efficient_attention enable_npu_flash_attention noise_offset rank debug_loss
        image_interpolation_mode""",
    "train_dreambooth_lora_sdxl.py": """
        pretrained_model_name_or_path pretrained_vae_model_name_or_path revision variant dataset_name
        dataset_config_name instance_data_dir cache_dir image_column caption_column repeats class_data_dir
        instance_prompt class_prompt validation_prompt num_validation_images validation_epochs
        do_edm_style_training with_prior_preservation prior_loss_weight num_class_images output_dir
        output_kohya_format seed resolution center_crop random_flip train_text_encoder train_batch_size
        sample_batch_size num_train_epochs max_train_steps checkpointing_steps checkpoints_total_limit
        resume_from_checkpoint gradient_accumulation_steps gradient_checkpointing learning_rate text_encoder_lr
        scale_lr lr_scheduler snr_gamma lr_warmup_steps lr_num_cycles lr_power dataloader_num_workers optimizer
        use_8bit_adam adam_beta1 adam_beta2 prodigy_beta3 prodigy_decouple adam_weight_decay
        adam_weight_decay_text_encoder adam_epsilon prodigy_use_bias_correction prodigy_safeguard_warmup
        max_grad_norm push_to_hub hub_token hub_model_id logging_dir allow_tf32 report_to mixed_precision
        prior_generation_precision local_rank enable_xformers_memory_efficient_attention rank lora_dropout
        use_dora image_interpolation_mode""",
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
    """Those for XL stand there where they are not as in the script for Stable Diffusion 1."""
    is_told = {} if "xl" not in script else TEXT_TO_IMAGE
    text = (ROOT / "docs" / "how-to" / "coming-from-diffusers.md").read_text()
    section = text.partition(f"## `{script}`\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `--(\w+)` \| (.*?) \|", section, re.MULTILINE))
    expected = {
        key: f"`{rule.target}`" if isinstance(rule, To) else "needs no place" if isinstance(rule, Not) else "not done"
        for key, rule in SCRIPTS[script].items()
        if is_told.get(key) is not rule
    }
    assert rows == expected


OF_THE_COMMAND = {
    *(("family", key) for key in ("base", "size")),
    ("data", "caption_column"),
    *(("train", key) for key in ("steps", "batch_size", "accumulation", "learning_rate", "schedule")),
    *(("train", key) for key in ("clip_norm", "ema_decay")),
    ("samples", "prompts"),
    *(("engine", key) for key in ("precision", "gradient_checkpointing")),
    ("track", "wandb"),
}
"""What the recipe has of it; the data are the user's own, no warm-up is the default, the hub is `fusain publish`."""


def leaves(values, prefix=""):
    """Each setting by its dotted key."""
    found = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_the_command_that_the_project_began_with(tmp_path):
    """The recipe and what is made of it differ where the script and Fusain do, which the page tells."""
    source = FOREIGN / "train_text_to_image.sh"
    made = writing.import_file(source, tmp_path / "run.toml")
    values = tomllib.loads(made.settings.read_text())
    recipe = tomllib.loads((ROOT / "src" / "fusain" / "recipes" / "caricature.toml").read_text())
    assert made.faults == ()
    assert made.account.of("lost") == made.account.of("unknown") == []
    for section, settings in recipe.items():
        assert {key: values[section][key] for key in settings} == settings, section
    assert {(section, key) for section in recipe for key in recipe[section]} >= OF_THE_COMMAND
    assert values["train"].get("warmup_steps", 0) == recipe["train"].get("warmup_steps", 0) == 0
    assert values["data"] == {
        "path": "Acadys/PointConImagesV2",
        "kind": "datasets",
        "caption_column": "texte",
        "crop": "random",
        "held_out": "none",
    }
    assert (values["track"], values["weights_folder"]) == ({"wandb": "online"}, "Acadys/PointConImageModelV1-4")
    here = [("data.path", "x"), ("data.kind", "auto")]
    ours = leaves(resolve(RunSettings, recipe="caricature", overrides=here).settings.model_dump(mode="json"))
    theirs = leaves(resolve(RunSettings, path=made.settings, overrides=here).settings.model_dump(mode="json"))
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]} == {
        "data.crop": ("center", "random"),
        "data.held_out": ("auto", "none"),
        "checkpoint.every_steps": (None, 500),
        "samples.every_epochs": (None, 5.0),
        "samples.count": (4, 1),
        "weights_folder": (None, "Acadys/PointConImageModelV1-4"),
    }
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
    doubled = 2 if "dreambooth" in script else 1  # by the images of the class
    assert {key: account.settings[key] for key in ("engine.processes", "engine.compile", "train.batch_size")} == {
        "engine.processes": 2,
        "engine.compile": "on",
        "train.batch_size": 2 * doubled,
    }
    assert words(account, "accelerate --multi_gpu") == "needless: num_processes says how many"
    shared = "mapped: so many on each of 2 processes, which share one batch here"
    with_the_class = "needless: doubled: that script adds as many class images to each batch"
    assert words(account, "--train_batch_size") == (shared if doubled == 1 else with_the_class)


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


def test_a_command_for_all_weights_of_xl(tmp_path):
    made = writing.import_file(FOREIGN / "train_text_to_image_sdxl.sh", tmp_path / "run.toml")
    assert made.faults == ()
    assert tomllib.loads(made.settings.read_text()) == {
        "weights_folder": "sdxl-naruto-model",
        "family": {"kind": "sdxl", "base": "stabilityai/stable-diffusion-xl-base-1.0", "size": 512},
        "method": {"kind": "full", "condition_dropout": 0.2, "loss": {"min_snr_gamma": 5.0}},
        "data": {
            "path": "lambdalabs/naruto-blip-captions",
            "kind": "datasets",
            "crop": "center",
            "flip": True,
            "held_out": "none",
        },
        "train": {
            "steps": 10000,
            "batch_size": 1,
            "accumulation": 4,
            "learning_rate": 1e-6,
            "optimizer": "adamw_8bit",
            "schedule": "constant",
            "ema_decay": 0.9999,
        },
        "checkpoint": {"every_steps": 5000},
        "samples": {
            "prompts": ["a cute Sundar Pichai creature"],
            "every_epochs": 5.0,
            "steps": 25,
            "guidance": 5.0,
            "count": 4,
        },
        "engine": {"precision": "bf16", "gradient_checkpointing": True},
        "track": {"wandb": "online"},
    }
    assert [(entry.key, entry.words) for entry in made.account.of("lost")] == [
        (
            "--pretrained_vae_model_name_or_path",
            "it is a folder or a file here: fetch it and set family.vae; the base's own works in fp32 anyway",
        ),
        ("--timestep_bias_strategy", "Fusain has no such distribution of noise levels"),
    ]
    assert words(made.account, "--timestep_bias_portion") == "needless: it belongs to timestep_bias_strategy"
    own = account_of(tmp_path, "python train_text_to_image_sdxl.py --pretrained_vae_model_name_or_path ./vae")
    assert own.settings["family.vae"] == "./vae"


def test_a_command_for_a_lora_of_xl(tmp_path):
    made = writing.import_file(FOREIGN / "train_text_to_image_lora_sdxl.sh", tmp_path / "run.toml")
    assert made.faults == ()
    assert tomllib.loads(made.settings.read_text()) == {
        "weights_folder": "sd-naruto-model-lora-sdxl",
        "family": {
            "kind": "sdxl",
            "base": "stabilityai/stable-diffusion-xl-base-1.0",
            "revision": "main",
            "size": 1024,
            "prediction": "epsilon",
        },
        "method": {
            "kind": "lora",
            "rank": 32,
            "alpha": 32.0,
            "targets": "attention",
            "text_encoder": True,
            "text_encoder_rate": 1.0,
            "loss": {"noise_offset": 0.05},
        },
        "data": {"path": "faces", "caption_column": "text", "crop": "random", "flip": True, "held_out": "none"},
        "train": {
            "epochs": 2.0,
            "batch_size": 1,
            "learning_rate": 0.0001,
            "schedule": "cosine",
            "warmup_steps": 0,
            "ema_decay": 0.0,
            "seed": 42,
        },
        "checkpoint": {"every_steps": 500},
        "samples": {"every_steps": 0},
        "engine": {"precision": "fp16"},
        "track": {"tensorboard": True},
    }
    assert made.account.of("lost") == []
    assert [entry.key for entry in made.account.of("unknown")] == ["--house_special"]
    assert words(made.account, "--num_validation_images") == "needless: without validation_prompt nothing is drawn"


def test_a_command_for_dreambooth_with_xl(tmp_path):
    made = writing.import_file(FOREIGN / "train_dreambooth_lora_sdxl.sh", tmp_path / "run.toml")
    text = made.settings.read_text()
    assert made.faults == ()
    assert tomllib.loads(text) == {
        "weights_folder": "lora-trained-xl",
        "family": {"kind": "sdxl", "base": "stabilityai/stable-diffusion-xl-base-1.0", "size": 1024},
        "method": {
            "kind": "lora",
            "rank": 8,
            "alpha": 8.0,
            "dropout": 0.1,
            "dora": True,
            "targets": "attention",
            "text_encoder": True,
            "text_encoder_rate": 0.2,
        },
        "data": {
            "path": "dog",
            "crop": "center",
            "held_out": "none",
            "captions": {"missing": "fallback", "fallback": "a photo of sks dog"},
            "class_images": {"weight": 0.5, "path": "class_dogs", "prompt": "a photo of a dog"},
        },
        "train": {
            "steps": 500,
            "batch_size": 4,
            "accumulation": 4,
            "learning_rate": 0.0001,
            "optimizer": "adamw_8bit",
            "weight_decay": 0.0001,
            "schedule": "polynomial",
            "schedule_power": 2.0,
            "warmup_steps": 0,
            "ema_decay": 0.0,
            "seed": 0,
        },
        "checkpoint": {"every_steps": 500},
        "samples": {
            "prompts": ["A photo of sks dog in a bucket"],
            "sampler": "dpm++-2m",
            "every_epochs": 25.0,
            "steps": 50,
            "guidance": 5.0,
            "count": 4,
        },
        "engine": {"precision": "fp16"},
    }
    assert [(entry.key, entry.words) for entry in made.account.of("lost")] == [
        ("--adam_weight_decay_text_encoder", "one decay for all; for the text encoders alone write train.parts")
    ]
    assert words(made.account, "--train_batch_size") == (
        "needless: doubled: that script adds as many class images to each batch"
    )
    assert "# 2 images of the subject and 2 of its class\nbatch_size = 4\n" in text
    assert "secretsecret" not in text + str(made.as_json())


def test_what_dreambooth_with_xl_does_by_itself(tmp_path):
    begin = "python train_dreambooth_lora_sdxl.py --instance_data_dir dog --instance_prompt 'sks dog'"
    plain = account_of(tmp_path, f"{begin} --class_prompt 'a dog' --prior_loss_weight 2 --text_encoder_lr 1e-5")
    assert {key: plain.settings[key] for key in plain.settings if key.startswith(("train.", "method."))} == {
        "method.kind": "lora",
        "method.rank": 4,
        "method.alpha": 4.0,
        "method.targets": "attention",
        "method.text_encoder": False,
        "train.epochs": 1.0,
        "train.batch_size": 4,
        "train.learning_rate": 1e-4,
        "train.schedule": "constant",
        "train.weight_decay": 1e-4,
        "train.ema_decay": 0.0,
    }
    for key in ("--class_prompt", "--prior_loss_weight"):
        assert words(plain, key) == "needless: there are no class images without with_prior_preservation"
    assert words(plain, "--text_encoder_lr") == "needless: the text encoders have no rate of their own"
    prodigy = account_of(
        tmp_path, f"{begin} --optimizer prodigy --use_8bit_adam --learning_rate 1 --train_text_encoder"
    )
    assert (prodigy.settings["train.optimizer"], prodigy.settings["method.text_encoder_rate"]) == ("prodigy", 1.0)
    assert prodigy.settings["train.optimizer_options"] == {"betas": [0.9, 0.999], "eps": 1e-8}
    assert words(prodigy, "--use_8bit_adam") == "needless: it belongs to AdamW"
    other = account_of(tmp_path, f"{begin} --optimizer lion --with_prior_preservation --num_class_images 50")
    assert words(other, "--optimizer") == "mapped: that script knows AdamW and Prodigy only"
    assert other.settings["data.class_images.count"] == 50
    (length,) = [entry for entry in other.entries if entry.target == "train.epochs"]
    assert length.words.endswith(
        "an epoch there is as long as the longer of both folders, here it counts the subject's"
    )
    taught = account_of(tmp_path, f"{begin} --train_text_encoder").settings
    assert taught["method.text_encoder_rate"] == 0.05


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
            "Do: Give a command of train_unconditional.py, train_text_to_image.py, train_text_to_image_sdxl.py, "
            "train_text_to_image_lora_sdxl.py or train_dreambooth_lora_sdxl.py; for other scripts, begin with a recipe"
            ": fusain recipes.",
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
