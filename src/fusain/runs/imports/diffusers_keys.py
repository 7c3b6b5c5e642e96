"""What each flag of diffusers' training scripts becomes, and of `accelerate launch` before them."""

from __future__ import annotations

from typing import Any, Final

from fusain.runs.imports.account import OFF, Lacks, Lost, Not, Rule, To, chosen, compiler, flag, number, whole

MEMORY: Final = "it changes memory and speed only"
RESUMES: Final = "every checkpoint holds the whole state, and the same command resumes"
PUBLISHED: Final = "a model is published after it was judged: fusain publish RUN"
COPIED: Final = "finished weights are copied there; the run itself lies in runs_folder"


def _precision(value: Any) -> str:
    return {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}[str(value)]


def _prediction(value: Any) -> str:
    known = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
    if value not in known:
        raise Lost(f"Fusain predicts {', '.join(known.values())}, not {value}")
    return known[value]


def _betas(value: Any) -> str:
    known = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
    if value not in known:
        raise Lost(f"family.betas has {', '.join(known.values())}, not {value}")
    return known[value]


def _eight_bit(value: Any) -> str:
    if not flag(value):
        raise Lost("it is off")
    return "adamw_8bit"


USE_8BIT: Final = To("train.optimizer", _eight_bit)


def _prompts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


LAUNCHER: Final[dict[str, Rule]] = {
    "mixed_precision": To("engine.precision", _precision),
    "num_processes": To("engine.processes", whole),
    "num_machines": Lacks("several machines", (*OFF, "1")),
    "multi_gpu": Lacks("count of GPUs of its own; write engine.processes"),
    "gpu_ids": Not("choose a GPU by engine.device"),
    "num_cpu_threads_per_process": To("engine.threads", whole),
    "cpu": To("engine.device", lambda value: "cpu" if flag(value) else "auto"),
    "main_process_port": Not("it belongs to several processes"),
    "dynamo_backend": To("engine.compile", compiler),
    "config_file": Lacks("reading of accelerate's own file; write engine.precision and engine.device"),
    "use_deepspeed": Lacks("DeepSpeed"),
    "use_fsdp": Lacks("reading of its FSDP settings; write engine.shard"),
}

BOTH: Final[dict[str, Rule]] = {
    "dataset_name": To("data.path"),
    "dataset_config_name": Lacks("choice of a configuration of a data set; save that one to disk and name its folder"),
    "train_data_dir": To("data.path"),
    "output_dir": To("weights_folder", None, COPIED),
    "cache_dir": Not("the hub's own cache is used; HF_HOME moves it"),
    "resolution": To("family.size", whole),
    "center_crop": To("data.crop", lambda value: "center" if flag(value) else "random"),
    "random_flip": To("data.flip", flag),
    "train_batch_size": To("train.batch_size", whole),
    "dataloader_num_workers": To("data.workers", whole),
    "gradient_accumulation_steps": To("train.accumulation", whole),
    "learning_rate": To("train.learning_rate", number),
    "lr_scheduler": To("train.schedule", chosen("train.schedule", same={"constant_with_warmup": "constant"})),
    "lr_warmup_steps": To("train.warmup_steps", whole),
    "adam_beta1": To("train.optimizer_options"),
    "adam_beta2": To("train.optimizer_options"),
    "adam_epsilon": To("train.optimizer_options"),
    "adam_weight_decay": To("train.weight_decay", number),
    "use_ema": To("train.ema_decay"),
    "push_to_hub": Not(PUBLISHED),
    "hub_token": Not("tokens have no place in settings; the hub's own store is used"),
    "hub_model_id": Not(PUBLISHED),
    "logging_dir": Not("curves are always written into the run folder"),
    "local_rank": Not("it is set by the launcher"),
    "mixed_precision": To("engine.precision", _precision),
    "prediction_type": To("family.prediction", _prediction),
    "checkpointing_steps": To("checkpoint.every_steps", whole),
    "checkpoints_total_limit": To("checkpoint.keep", whole),
    "resume_from_checkpoint": Not(RESUMES),
    "enable_xformers_memory_efficient_attention": Not("PyTorch's own attention is used, which needs no choice"),
}

UNCONDITIONAL: Final[dict[str, Rule]] = {
    **BOTH,
    "model_config_name_or_path": Lacks(
        "reading of a network's file; write family.channels and family.attention_levels"
    ),
    "overwrite_output_dir": Not("a run that is there is gone on with, never written over"),
    "eval_batch_size": To("samples.count", whole, "so many samples each time"),
    "num_epochs": To("train.epochs", number),
    "save_images_epochs": To("samples.every_epochs", number),
    "save_model_epochs": Not("final weights are written at the end, and checkpoint.snapshots keeps others"),
    "ema_inv_gamma": Lacks("such warm-up of the average; its decay rises as (1 + step) / (10 + step)"),
    "ema_power": Lacks("such warm-up of the average; its decay rises as (1 + step) / (10 + step)"),
    "ema_max_decay": To("train.ema_decay", number),
    "hub_private_repo": Not(PUBLISHED),
    "logger": To("track.tensorboard"),
    "ddpm_num_steps": To("family.train_timesteps", whole),
    "ddpm_num_inference_steps": To("samples.steps", whole),
    "ddpm_beta_schedule": To("family.betas", _betas),
    "preserve_input_precision": Lacks("images of more than 8 bits a channel"),
}

TEXT_TO_IMAGE: Final[dict[str, Rule]] = {
    **BOTH,
    "pretrained_model_name_or_path": To("family.base"),
    "revision": To("family.revision"),
    "variant": Not("the files with full precision are read, or those with half where there are no others"),
    "image_column": To("data.image_column"),
    "caption_column": To("data.caption_column"),
    "max_train_samples": Lacks("limit to some of the images; make a folder of them"),
    "validation_prompts": To("samples.prompts", _prompts),
    "validation_epochs": To("samples.every_epochs", number),
    "seed": To("train.seed", whole),
    "num_train_epochs": To("train.epochs", number),
    "max_train_steps": To("train.steps", whole),
    "gradient_checkpointing": To("engine.gradient_checkpointing", flag),
    "scale_lr": To("train.learning_rate"),
    "snr_gamma": To("method.loss.min_snr_gamma", number),
    "dream_training": Lacks("DREAM"),
    "dream_detail_preservation": Not("it belongs to dream_training"),
    "use_8bit_adam": USE_8BIT,
    "allow_tf32": Lacks("switch for TF32 arithmetic; engine.precision = bf16 is faster still"),
    "offload_ema": Not(MEMORY),
    "foreach_ema": Not(MEMORY),
    "non_ema_revision": Lacks("other weights than the base's to begin from; name them as family.revision"),
    "max_grad_norm": To("train.clip_norm", number),
    "input_perturbation": To("method.loss.input_perturbation", number),
    "noise_offset": To("method.loss.noise_offset", number),
    "report_to": To("track.tensorboard"),
    "tracker_project_name": To("track.project"),
    "image_interpolation_mode": Lacks("choice of interpolation", (*OFF, "lanczos"), "it is Lanczos here too"),
}
