"""What each key of kohya's sd-scripts becomes."""

from __future__ import annotations

from typing import Any, Final

from fusain.runs.imports.account import OFF, Lacks, Lost, Not, Off, Rule, Taken, To, chosen, flag, number, side, whole
from fusain.runs.imports.names import OPTIMIZER, SAMPLER

ATTENTION: Final = "PyTorch's own attention is used, which needs no choice"
MEMORY: Final = "it changes memory and speed only"
NAMES: Final = "it only names or describes files of that tool"
LOGS: Final = "curves are always written into the run folder"
RESUMES: Final = "every checkpoint holds the whole state, and the same command resumes"


def _clip_skip(value: Any) -> int:
    return max(0, whole(value) - 1)


def _windows(value: Any) -> int:
    return max(1, round(whole(value) / 75))


def _prediction(value: Any) -> Any:
    if flag(value):
        return "v"
    return "auto"


def _precision(value: Any) -> str:
    return {"no": "fp32", "float": "fp32", "fp16": "fp16", "bf16": "bf16"}[str(value)]


def _dtype(value: Any) -> str:
    return {"float": "fp32", "fp16": "fp16", "bf16": "bf16"}[str(value)]


def _lora_module(value: Any) -> str:
    if value not in ("networks.lora", "networks.lora_flux"):
        raise Lost(f"of networks Fusain trains LoRAs, not {value}; a plain LoRA is set instead")
    return "lora"


def _upscale(value: Any) -> Any:
    return 1.0 if flag(value) else Taken(8.0, "at most eight times")


def _eight_bit(value: Any) -> str:
    if not flag(value):
        raise Off("it is off, and optimizer_type holds")
    return "adamw_8bit"


def _lion(value: Any) -> str:
    if not flag(value):
        raise Off("it is off, and optimizer_type holds")
    return "lion"


def _zero_terminal_snr(value: Any) -> str:
    return "on" if flag(value) else "auto"


CAPTION_FILES: Final = Lacks(
    "captions in files of that name; rename them to .txt or .caption",
    (None, "", ".txt", ".caption", "txt", "caption"),
    "both .txt and .caption files are read",
)
SCHEDULE: Final = chosen("train.schedule", same={"constant_with_warmup": "constant"})

MODEL: Final[dict[str, Rule]] = {
    "pretrained_model_name_or_path": To("family.base"),
    "v2": Not("a base says itself of which version it is"),
    "v_parameterization": To("family.prediction", _prediction),
    "vae": To("family.vae"),
    "vae_batch_size": Not(MEMORY),
    "no_half_vae": Not("the autoencoder works in fp32 wherever it must"),
    "tokenizer_cache_dir": Not("the tokenizer comes with the base"),
    "clip_skip": To("family.clip_skip", _clip_skip, "Fusain counts the layers left out: one less"),
    "max_token_length": To("family.text_windows", _windows),
    "lowram": Not(MEMORY),
    "highvram": Not(MEMORY),
    "disable_mmap_load_safetensors": Not(MEMORY),
    "full_fp16": Lacks("weights that learn in fp16; they learn in fp32"),
}
TRAINING: Final[dict[str, Rule]] = {
    "max_train_steps": To("train.steps", whole),
    "max_train_epochs": To("train.epochs", number),
    "train_batch_size": To("train.batch_size", whole),
    "gradient_accumulation_steps": To("train.accumulation", whole),
    "learning_rate": To("train.learning_rate", number),
    "lr_scheduler": To("train.schedule", SCHEDULE),
    "lr_scheduler_type": Lacks("schedule by the name of a class"),
    "lr_scheduler_args": Lacks("further arguments of a schedule", (None, "", [])),
    "optimizer_type": To("train.optimizer", OPTIMIZER),
    "use_8bit_adam": To("train.optimizer", _eight_bit),
    "use_lion_optimizer": To("train.optimizer", _lion),
    "max_grad_norm": To("train.clip_norm", number),
    "seed": To("train.seed", whole),
    "mixed_precision": To("engine.precision", _precision),
    "gradient_checkpointing": To("engine.gradient_checkpointing", flag),
    "min_snr_gamma": To("method.loss.min_snr_gamma", number),
    "loss_type": To("method.loss.kind", chosen("method.loss.kind", near={"smooth_l1": ("huber", "the nearest")})),
    "huber_c": To("method.loss.huber_delta", number),
    "huber_schedule": Lacks("Huber loss that changes with the noise", (None, "", "constant")),
    "huber_scale": Lacks("scale of the Huber loss", (None, "", 1, 1.0)),
    "debiased_estimation_loss": To("method.loss.debiased", flag),
    "scale_v_pred_loss_like_noise_pred": Lacks("such scale of the loss"),
    "v_pred_like_loss": Lacks("such loss"),
    "noise_offset": To("method.loss.noise_offset", number),
    "noise_offset_random_strength": Lacks("noise offset of random strength"),
    "adaptive_noise_scale": Lacks("noise offset that follows the image"),
    "noise_offset_type": Not("it says how noise is offset, if it is"),
    "ip_noise_gamma": To("method.loss.input_perturbation", number),
    "ip_noise_gamma_random_strength": Lacks("input perturbation of random strength"),
    "dynamo_backend": Lacks(
        "other compiler than inductor", (*OFF, "no", "NO", "inductor", "INDUCTOR"), "it belongs to torch_compile"
    ),
    "zero_terminal_snr": To("family.zero_terminal_snr", _zero_terminal_snr, "it needs a base that predicts v"),
    "min_timestep": Lacks("lowest noise level"),
    "max_timestep": Lacks("highest noise level", (*(None, 1000), "")),
    "weighted_captions": Lacks("weights inside captions"),
    "prior_loss_weight": Not("it holds where there are class images, and is told there"),
    "initial_epoch": Not(RESUMES),
    "initial_step": Not(RESUMES),
    "skip_until_initial_step": Not(RESUMES),
    "resume": Not(RESUMES),
    "save_state": Not(RESUMES),
    "save_state_on_train_end": Not(RESUMES),
    "state_dir": Not(RESUMES),
    "deepspeed": Lacks("DeepSpeed"),
    "torch_compile": To("engine.compile", lambda value: "on" if flag(value) else "off"),
    **dict.fromkeys(("xformers", "sdpa", "mem_eff_attn", "split_attn"), Not(ATTENTION)),
    **dict.fromkeys(("max_data_loader_n_workers",), To("data.workers", whole)),
    "persistent_data_loader_workers": Not("workers always live as long as the run"),
}
NETWORK: Final[dict[str, Rule]] = {
    "network_module": To("method.kind", _lora_module),
    "network_dim": To("method.rank", whole),
    "network_alpha": To("method.alpha", number),
    "network_dropout": To("method.dropout", number),
    "network_weights": To("method.start"),
    "dim_from_weights": Not("a LoRA that a run goes on from must have its rank, and says so"),
    "network_train_unet_only": To("method.text_encoder", lambda value: not flag(value)),
    "network_train_text_encoder_only": Lacks("training of the text encoder alone"),
    "scale_weight_norms": Lacks("limit to the norm of a LoRA"),
    "base_weights": Lacks("LoRA merged into the base before; use: fusain models merge", (None, "", [])),
    "base_weights_multiplier": Not("it belongs to base_weights"),
    "training_comment": Not(NAMES),
    "no_metadata": Not("the file says what it was trained with"),
}
DATA: Final[dict[str, Rule]] = {
    "train_data_dir": To("data.path", None, "the folders in it say their repeats, as in 10_sks dog"),
    "image_dir": To("data.path"),
    "reg_data_dir": To("data.class_images.path"),
    "resolution": To("family.size", side),
    "enable_bucket": To("data.buckets", flag),
    "bucket_no_upscale": To("data.max_upscale", _upscale),
    "min_bucket_reso": Lacks("smallest bucket; data.bucket_aspect says how long one may be"),
    "max_bucket_reso": Lacks("largest bucket; data.bucket_aspect says how long one may be"),
    "bucket_reso_steps": Not("sides of buckets are multiples of 64, or less for small sizes"),
    "num_repeats": To("data.repeats", whole),
    "dataset_repeats": To("data.repeats", whole),
    "caption_extension": CAPTION_FILES,
    "caption_extention": CAPTION_FILES,
    "shuffle_caption": To("data.captions.shuffle_tokens", flag),
    "keep_tokens": To("data.captions.keep_tokens", whole),
    "keep_tokens_separator": Lacks("separator of the tokens that stay"),
    "secondary_separator": Lacks("second separator of tokens"),
    "caption_separator": Lacks("other separator of tokens than the comma", (None, "", ",")),
    "enable_wildcard": Lacks("wildcards in captions"),
    "caption_prefix": To("data.captions.prefix"),
    "caption_suffix": To("data.captions.suffix"),
    "caption_dropout_rate": To("method.condition_dropout", number),
    "caption_dropout_every_n_epochs": Lacks("epochs without captions"),
    "caption_tag_dropout_rate": Lacks("dropout of single tokens"),
    "token_warmup_step": Lacks("warm-up of tokens"),
    "token_warmup_min": Not("it belongs to token_warmup_step"),
    "flip_aug": To("data.flip", flag),
    "color_aug": Lacks("changes of colour"),
    "face_crop_aug_range": Lacks("crop around faces"),
    "random_crop": To("data.crop", lambda value: "random" if flag(value) else "center"),
    "alpha_mask": To("data.masks.use", lambda value: "alpha" if flag(value) else "none"),
    "masked_loss": Lacks("masks in another image folder; put files beside the images, see data.masks.use"),
    "conditioning_data_dir": Lacks("masks in another image folder; put files beside the images, see data.masks.use"),
    "metadata_file": Lacks("reading of that metadata; data.path takes a .jsonl or .csv of its own form"),
    "in_json": Lacks("reading of that metadata; data.path takes a .jsonl or .csv of its own form"),
    "class_tokens": To("data.captions.trigger_word", None, "it stands before captions too, where images have some"),
    "is_reg": Not("it says what a folder is for"),
    "batch_size": To("train.batch_size", whole),
    "cache_latents": To("data.cache", lambda value: "auto" if flag(value) else "none"),
    "cache_latents_to_disk": Not("what is encoded once is always kept on disk"),
    "cache_text_encoder_outputs": Not("captions are encoded once wherever nothing changes them later"),
    "cache_text_encoder_outputs_to_disk": Not("what is encoded once is always kept on disk"),
    "cache_info": Not("what is known of a folder is always kept"),
    "skip_cache_check": Not("stored encodings are held against what they were made of"),
    "dataset_class": Lacks("data set by the name of a class"),
    "debug_dataset": Not("fusain plan shows the data"),
    "dataset_config": Lacks("reference to another file; import that file too, and join the two"),
    "validation_split": To("data.held_out", number),
    "validation_seed": Not("images are held out by their content and the seed of the run"),
}
OUTPUT: Final[dict[str, Rule]] = {
    "output_dir": To("weights_folder", None, "finished weights are copied there; the run itself lies in runs_folder"),
    "output_name": Not("name the run when it starts: fusain train FILE --name NAME"),
    "save_every_n_epochs": To("checkpoint.every_epochs", number),
    "save_every_n_steps": To("checkpoint.every_steps", whole),
    "save_n_epoch_ratio": Lacks("checkpoints by a share of the epochs"),
    "save_last_n_epochs": To("checkpoint.keep", whole),
    "save_last_n_steps": Lacks("checkpoints kept by their steps; checkpoint.keep counts them"),
    "save_last_n_epochs_state": Not(RESUMES),
    "save_last_n_steps_state": Not(RESUMES),
    "save_model_as": Not("a LoRA is saved for diffusers and for A1111 and ComfyUI, a model as a diffusers folder"),
    "save_precision": To("method.file_dtype", _dtype),
    "sample_every_n_steps": To("samples.every_steps", whole),
    "sample_every_n_epochs": To("samples.every_epochs", number),
    "sample_at_first": Lacks("samples before the first step"),
    "sample_prompts": Lacks("file of prompts; write them into samples.prompts"),
    "sample_sampler": To("samples.sampler", SAMPLER),
    "logging_dir": Not(LOGS),
    "log_prefix": Not(LOGS),
    "log_config": Not(LOGS),
    "log_tracker_name": Not(LOGS),
    "log_tracker_config": Not(LOGS),
    "wandb_run_name": Not(LOGS),
    "console_log_level": Not(LOGS),
    "console_log_file": Not(LOGS),
    "console_log_simple": Not(LOGS),
    "config_file": Not("it is the file itself"),
    "output_config": Not("the settings of a run are always kept in its folder"),
    **{
        f"metadata_{name}": Not("a model is described when it is published")
        for name in ("title", "author", "description", "license", "tags")
    },
    **dict.fromkeys(
        ("huggingface_repo_id", "huggingface_repo_type", "huggingface_path_in_repo", "huggingface_repo_visibility"),
        Not("a model is published after it was judged: fusain publish RUN"),
    ),
    **dict.fromkeys(("async_upload", "save_state_to_huggingface", "resume_from_huggingface"), Not(RESUMES)),
}
RULES: Final[dict[str, Rule]] = {**MODEL, **TRAINING, **NETWORK, **DATA, **OUTPUT}
OF_XL: Final[dict[str, Rule]] = {
    "clip_skip": Not("encoders of XL are read before their last layer, there and here"),
    "train_text_encoder": To("method.text_encoder", flag),
    "block_lr": Lacks("rates of blocks by a list; write train.parts"),
    "fused_backward_pass": To("train.fused_backward", flag),
    "fused_optimizer_groups": Not(MEMORY),
    "sdxl": Not("it is said by family.kind"),
}
"""What only the scripts for XL know, or read otherwise."""
