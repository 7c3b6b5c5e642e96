"""What each key of OneTrainer's configurations becomes."""

from __future__ import annotations

from typing import Any, Final

from fusain.runs.imports.account import Lacks, Lost, Not, Rule, Taken, To, chosen, flag, number, side, whole
from fusain.runs.imports.names import OPTIMIZER

MEMORY: Final = "it changes memory and speed only"
WORKPLACE: Final = "a run has a folder of its own, below runs_folder"
CURVES: Final = "curves are always written into the run folder"
UNUSED: Final = (*(None, 0, 0.0), "")


def _method(value: Any) -> str:
    methods = {"FINE_TUNE": "full", "LORA": "lora", "EMBEDDING": "textual_inversion", "FINE_TUNE_VAE": "autoencoder"}
    return methods[str(value)]


def _precision(value: Any) -> Any:
    known = {"FLOAT_32": "fp32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}
    if value == "TFLOAT_32":
        return Taken("fp32", "without TF32")
    return known[str(value)]


def _dtype(value: Any) -> str:
    return {"FLOAT_32": "fp32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16"}[str(value)]


def _targets(value: Any) -> Any:
    known = {"full": "all", "attn-mlp": "attention+feed_forward", "attn-only": "attention"}
    if value == "blocks":
        return Taken("all", "with the first and the last layers too")
    if value not in known:
        raise Lost("write patterns into method.targets")
    return known[str(value)]


SCHEDULE: Final = chosen(
    "train.schedule",
    same={"cosine_with_hard_restarts": "cosine_with_restarts"},
    near={
        "cosine_with_restarts": (
            "cosine_with_restarts",
            "it starts anew at once, where that tool rises as slowly as it fell",
        ),
        "rex": ("rex", "a little less steep at its end"),
    },
)
RULES: Final[dict[str, Rule]] = {
    "__version": Not("it says how the file is laid out"),
    "training_method": To("method.kind", _method),
    "model_type": Not("a base says itself of which kind it is"),
    "base_model_name": To("family.base"),
    "resolution": To("family.size", side),
    "vae.model_name": To("family.vae"),
    "text_encoder_layer_skip": To("family.clip_skip", whole),
    "force_v_prediction": To("family.prediction", lambda value: "v" if flag(value) else "auto"),
    "force_epsilon_prediction": Lacks("need to force it; set family.prediction"),
    "learning_rate": To("train.learning_rate", number),
    "learning_rate_scheduler": To("train.schedule", SCHEDULE),
    "learning_rate_warmup_steps": To("train.warmup_steps", whole),
    "learning_rate_min_factor": Lacks("end of a schedule above zero", UNUSED),
    "learning_rate_scaler": Lacks("scaling of the rate by the batch"),
    "custom_learning_rate_scheduler": Lacks("schedule by the name of a class"),
    "scheduler_params": Lacks("further arguments of a schedule", (None, [])),
    "epochs": To("train.epochs", number),
    "batch_size": To("train.batch_size", whole),
    "gradient_accumulation_steps": To("train.accumulation", whole),
    "clip_grad_norm": To("train.clip_norm", number),
    "optimizer.optimizer": To("train.optimizer", OPTIMIZER),
    "optimizer.weight_decay": To("train.weight_decay", number),
    "optimizer.fused_back_pass": To("train.fused_backward", flag),
    "ema_update_step_interval": Lacks("average at some steps only; it is kept at each", (None, 1)),
    "train_dtype": To("engine.precision", _precision),
    "fallback_train_dtype": Not(MEMORY),
    "train_device": To("engine.device"),
    "temp_device": Not(MEMORY),
    "aspect_ratio_bucketing": To("data.buckets", flag),
    "latent_caching": To("data.cache", lambda value: "auto" if flag(value) else "none"),
    "image_caching": To("data.cache", lambda value: "auto" if flag(value) else "none"),
    "text_caching": Not("captions are encoded once wherever nothing changes them later"),
    "clear_cache_before_training": Not("what is stored is held against what it was made of"),
    "mse_strength": Not("it is the loss l2, where no other has a strength"),
    "log_cosh_strength": Lacks("log-cosh loss", UNUSED),
    "vb_loss_strength": Not("it is for other kinds of models"),
    "huber_delta": To("method.loss.huber_delta", number),
    "offset_noise_weight": To("method.loss.noise_offset", number),
    "generalized_offset_noise": Lacks("noise offset that changes with the noise level"),
    "perturbation_noise_weight": To(
        "method.loss.input_perturbation", number, "here only what is added has it, not what is asked for"
    ),
    "rescale_noise_scheduler_to_zero_terminal_snr": To(
        "family.zero_terminal_snr", lambda value: "on" if flag(value) else "auto", "it needs a base that predicts v"
    ),
    "min_noising_strength": Lacks("lowest noise level", UNUSED),
    "max_noising_strength": Lacks("highest noise level", (None, 1, 1.0)),
    "timestep_distribution": Lacks("such distribution of noise levels", (None, "UNIFORM"), "it is the usual one"),
    **dict.fromkeys(
        ("noising_weight", "noising_bias", "timestep_shift", "dynamic_timestep_shifting", "cep_gamma"),
        Not("it has a meaning with other distributions of noise levels, or for other kinds of models"),
    ),
    **dict.fromkeys(
        (f"{part}.{what}" for part in ("unet", "text_encoder", "vae") for what in ("__version", "include")),
        Not("a base is whole"),
    ),
    "text_encoder.dropout_probability": To("method.condition_dropout", number),
    "text_encoder.train_embedding": Not("it belongs to embeddings"),
    "unet.model_name": Lacks("UNet from elsewhere than the base"),
    "text_encoder.model_name": Lacks("text encoder from elsewhere than the base"),
    "unet.dropout_probability": Not("it means nothing for a UNet"),
    "unet.stop_training_after_unit": Not("see unet.stop_training_after"),
    "unet.train": Lacks("training without the UNet", (None, True), "it learns"),
    "unet.learning_rate": Lacks("rate of the UNet alone; set train.learning_rate"),
    "unet.stop_training_after": Lacks("end of the UNet's training before the others'"),
    "text_encoder.stop_training_after": Not("see text_encoder.stop_training_after_unit"),
    "text_encoder_sequence_length": Not("captions have windows of 75 tokens: family.text_windows"),
    "masked_training": To("data.masks.use", lambda value: "files" if flag(value) else "none"),
    "unmasked_weight": To("data.masks.outside", number),
    "unmasked_probability": Lacks("chance that a mask is left out", UNUSED),
    "normalize_masked_area_loss": Lacks("such scale of the masked loss"),
    "masked_prior_preservation_weight": Lacks("prior preservation outside of masks", UNUSED),
    "custom_conditioning_image": Lacks("images as conditions"),
    "peft_type": Lacks("such adapter; it is a LoRA here", (None, "", "LORA"), "it is a LoRA"),
    "lora_model_name": To("method.start"),
    "lora_rank": To("method.rank", whole),
    "lora_alpha": To("method.alpha", number),
    "lora_decompose": To("method.dora", flag),
    "lora_decompose_norm_epsilon": Not("it is a detail of DoRA"),
    "lora_decompose_output_axis": Lacks("DoRA over outputs"),
    "lora_weight_dtype": Not("a LoRA learns in fp32"),
    "dropout_probability": To("method.dropout", number),
    "layer_filter_preset": To("method.targets", _targets),
    "lora_layer_preset": To("method.targets", _targets),
    "layer_filter": Lacks("list of layers in that form; write patterns into method.targets"),
    "lora_layers": Lacks("list of layers in that form; write patterns into method.targets"),
    "layer_filter_regex": Not("it says how layer_filter is read"),
    "bundle_additional_embeddings": Not("there are no further embeddings"),
    "additional_embeddings": Lacks("learning of several embeddings at once", (None, [])),
    "embedding.placeholder": To("method.token"),
    "embedding.token_count": To("method.vectors", whole),
    "embedding.initial_embedding_text": To("method.start_word"),
    "embedding.model_name": To("method.start"),
    "embedding_learning_rate": Lacks("rate of the embedding alone; set train.learning_rate"),
    "preserve_embedding_norm": Lacks("such limit to an embedding"),
    "embedding_weight_dtype": Not("an embedding learns in fp32"),
    "concept_file_name": Lacks("list of concepts in another file; import that file's folder as data.path"),
    "samples": Lacks("list of samples in this form; write samples.prompts", (None, [])),
    "sample_definition_file_name": Lacks("prompts in another file; write samples.prompts"),
    "output_model_destination": Not("finished weights lie in the run; set weights_folder to have them copied"),
    "output_model_format": Not(
        "a LoRA is saved for diffusers and for A1111 and ComfyUI, a model as a diffusers folder"
    ),
    "output_dtype": To("method.file_dtype", _dtype),
    "rolling_backup_count": To("checkpoint.keep", whole),
    "tensorboard": To("track.tensorboard", flag),
    "validation": Not("images are held out by data.held_out"),
    "validate_after": Not("see train.held_out_every_steps"),
    "validate_after_unit": Not("see train.held_out_every_steps"),
    "multi_gpu": Lacks("reading of how many GPUs; write engine.processes"),
    "compile": To("engine.compile", lambda value: "on" if flag(value) else "off"),
    "force_circular_padding": Lacks("seamless images"),
    "only_cache": Lacks("mode that only encodes"),
    "loss_scaler": Lacks("loss that grows with the batch"),
    **dict.fromkeys(
        (
            *(
                "dataloader_threads",
                "caching_threads",
                "prefetch_next_batch",
                "attention_mechanism",
                "async_offloading",
            ),
            *("enable_autocast_cache", "enable_async_offloading", "enable_activation_offloading", "device_indexes"),
            *("layer_offload_fraction", "fused_gradient_reduce", "async_gradient_reduce", "gradient_reduce_precision"),
            *("async_gradient_reduce_buffer", "vae.weight_dtype"),
            *("text_encoder.weight_dtype", "frames", "sample_video_format", "sample_audio_format"),
        ),
        Not(MEMORY),
    ),
    **dict.fromkeys(("workspace_dir", "cache_dir", "debug_mode", "debug_dir"), Not(WORKPLACE)),
    **dict.fromkeys(
        ("tensorboard_expose", "tensorboard_always_on", "tensorboard_port", "samples_to_tensorboard"), Not(CURVES)
    ),
    **dict.fromkeys(
        ("continue_last_backup", "backup_before_save", "rolling_backup"),
        Not("every checkpoint holds the whole state, and the same command resumes"),
    ),
    **dict.fromkeys(("prevent_overwrites", "include_train_config", "save_filename_prefix"), Not(WORKPLACE)),
    **dict.fromkeys(("sample_image_format", "non_ema_sampling"), Not("samples are PNGs drawn with the average")),
    "sample_skip_first": Lacks("samples left out at the start", UNUSED),
    "save_skip_first": Lacks("checkpoints left out at the start", UNUSED),
}
OF_CONCEPT: Final[dict[str, Rule]] = {
    "path": To("data.path"),
    "balancing": To("data.repeats", whole),
    "repeats": To("data.repeats", whole),
    "balancing_strategy": Lacks("counting of samples an epoch", (None, "REPEATS"), "repeats are counted"),
    "image.enable_random_flip": To("data.flip", flag),
    "image.enable_crop_jitter": To("data.crop", lambda value: "random" if flag(value) else "center"),
    "text.enable_tag_shuffling": To("data.captions.shuffle_tokens", flag),
    "text.keep_tags_count": To("data.captions.keep_tokens", whole),
    "text.tag_delimiter": Lacks("other separator than the comma", (None, "", ",")),
    "text.prompt_source": Lacks("captions from there", (None, "sample"), "captions lie beside the images"),
    "loss_weight": Lacks("weight of a folder", (None, 1, 1.0)),
    "include_subdirectories": Not("folders within folders are always read"),
    **dict.fromkeys(("name", "seed", "enabled", "validation_concept", "__version"), Not("one folder is learnt")),
    **dict.fromkeys(("image_variations", "text_variations"), Not("each draw is varied anew")),
}
