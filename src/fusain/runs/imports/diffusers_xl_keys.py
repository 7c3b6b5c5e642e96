"""What the flags of diffusers' training scripts for Stable Diffusion XL become, beside those that they share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from fusain.runs.imports.account import OFF, Lacks, Lost, Not, Rule, To, flag, number, whole
from fusain.runs.imports.diffusers_keys import MEMORY, TEXT_TO_IMAGE, UNCONDITIONAL

PRIOR: Final = "there are no class images without with_prior_preservation"
_HUB_ID: Final = re.compile(r"\w[\w.-]*/[\w.-]+")


def _autoencoder(value: Any) -> str:
    if _HUB_ID.fullmatch(str(value)) and not Path(str(value)).exists():
        raise Lost("it is a folder or a file here: fetch it and set family.vae; the base's own works in fp32 anyway")
    return str(value)


OF_SD_ALONE: Final = (
    *("validation_prompts", "input_perturbation", "dream_training", "dream_detail_preservation", "offload_ema"),
    *("foreach_ema", "non_ema_revision", "tracker_project_name"),
)
OF_LORA: Final[dict[str, Rule]] = {
    "train_text_encoder": To("method.text_encoder", flag),
    "rank": To("method.rank", whole),
}
XL: Final[dict[str, Rule]] = {
    **{key: rule for key, rule in TEXT_TO_IMAGE.items() if key not in OF_SD_ALONE},
    "pretrained_vae_model_name_or_path": To("family.vae", _autoencoder),
    "validation_prompt": To("samples.prompts", lambda value: [str(value)]),
    "num_validation_images": To("samples.count", whole),
}
TEXT_TO_IMAGE_XL: Final[dict[str, Rule]] = {
    **XL,
    "proportion_empty_prompts": To(
        "method.condition_dropout", number, "an empty caption there, what the base has for a hidden one here"
    ),
    "timestep_bias_strategy": Lacks("such distribution of noise levels", (*OFF, "none"), "it is off"),
    **dict.fromkeys(
        (f"timestep_bias_{name}" for name in ("multiplier", "begin", "end", "portion")),
        Not("it belongs to timestep_bias_strategy"),
    ),
    "enable_npu_flash_attention": Not(MEMORY),
}
LORA_XL: Final[dict[str, Rule]] = {
    **{key: rule for key, rule in XL.items() if key != "use_ema"},
    **OF_LORA,
    "enable_npu_flash_attention": Not(MEMORY),
    "debug_loss": Not("the loss of each step is always written"),
}
DREAMBOOTH_LORA_XL: Final[dict[str, Rule]] = {
    **{
        key: rule
        for key, rule in XL.items()
        if key not in ("use_ema", "train_data_dir", "max_train_samples", "prediction_type", "noise_offset")
    },
    **OF_LORA,
    "instance_data_dir": To("data.path"),
    "repeats": To("data.repeats", whole),
    "instance_prompt": To("data.captions.fallback"),
    "with_prior_preservation": To("data.class_images.weight"),
    "prior_loss_weight": To("data.class_images.weight", number),
    "class_data_dir": To(
        "data.class_images.path", None, "all its images are used; without it they are drawn, and kept for every run"
    ),
    "class_prompt": To("data.class_images.prompt"),
    "num_class_images": To("data.class_images.count", whole),
    "sample_batch_size": Not(MEMORY),
    "prior_generation_precision": Not(MEMORY),
    "do_edm_style_training": Lacks("training in the way of EDM"),
    "output_kohya_format": Not("a LoRA is saved for diffusers and for A1111 and ComfyUI"),
    "text_encoder_lr": To("method.text_encoder_rate", None, "as a factor of train.learning_rate"),
    "lr_num_cycles": To("train.schedule_cycles", whole),
    "lr_power": To("train.schedule_power", number),
    "optimizer": To("train.optimizer"),
    "prodigy_beta3": Lacks("third beta of Prodigy"),
    **dict.fromkeys(
        ("prodigy_decouple", "prodigy_use_bias_correction", "prodigy_safeguard_warmup"),
        Lacks("Prodigy without that", (None, "", True, "True", "true", "1"), "it is on here too"),
    ),
    "adam_weight_decay_text_encoder": Lacks("decay of the text encoders alone by a flag; write train.parts"),
    "lora_dropout": To("method.dropout", number),
    "use_dora": To("method.dora", flag),
}
SCRIPTS: Final[dict[str, dict[str, Rule]]] = {
    "train_unconditional.py": UNCONDITIONAL,
    "train_text_to_image.py": TEXT_TO_IMAGE,
    "train_text_to_image_sdxl.py": TEXT_TO_IMAGE_XL,
    "train_text_to_image_lora_sdxl.py": LORA_XL,
    "train_dreambooth_lora_sdxl.py": DREAMBOOTH_LORA_XL,
}
