"""ai-toolkit: the YAML (or JSON) of a training job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fusain.runs.imports.account import Account, Lacks, Lost, Not, Rule, Taken, To, chosen, flag, number, whole
from fusain.runs.imports.names import OPTIMIZER, SAMPLER, take_bits, take_option

NAME: Final = "ai-toolkit"
MEMORY: Final = "it changes memory and speed only"
ARCHITECTURES: Final = ("", "sd1", "sd15", "sd2", "sd", "sdxl")
XL: Final = ("is_xl", "is_sdxl")
OTHER_MODELS: Final = (
    *("is_v3", "is_flux", "is_pixart", "is_auraflow", "is_lumina2", "is_ssd", "is_vega"),
    *("is_pixart_sigma", "use_flux_cfg", "is_omnigen2", "is_hidream"),
)
DETAILS: Final[tuple[Any, ...]] = (None, False, 0, 0.0, "", [], {})
RATE: Final = 1e-6
QUANTIZE: Final = "model.quantize"
PUBLISHED: Final = "a model is published after it was judged: fusain publish RUN"


def _precision(value: Any) -> str:
    known = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "fp32": "fp32", "float32": "fp32"}
    return known[str(value)]


def _largest(value: Any) -> Any:
    """Of several sizes, at each of which that tool shows every image, the largest."""
    sizes = [whole(one) for one in value] if isinstance(value, list) else [whole(value)]
    if len(sizes) == 1:
        return sizes[0]
    return Taken(max(sizes), f"Fusain learns at one size, with buckets around it; of {', '.join(map(str, sizes))}")


def _network(value: Any) -> str:
    if str(value).lower() != "lora":
        raise Lost(f"of networks Fusain trains LoRAs, not {value}; a plain LoRA is set instead")
    return "lora"


RULES: Final[dict[str, Rule]] = {
    "type": Not("it says which part of that tool works"),
    "training_folder": To("runs_folder"),
    "sqlite_db_path": Not("runs are folders; there is no database"),
    "performance_log_every": Not("speed is always written into the run folder"),
    "device": To("engine.device", lambda value: "cuda" if str(value) == "cuda" else str(value)),
    "trigger_word": To("data.captions.trigger_word", None, "it stands before every caption"),
    "network.type": To("method.kind", _network),
    "network.linear": To("method.rank", whole),
    "network.rank": To("method.rank", whole),
    "network.linear_alpha": To("method.alpha", number),
    "network.alpha": To("method.alpha", number),
    "network.conv": Lacks("rank of convolutions alone; method.targets = all has them"),
    "network.conv_alpha": Not("it belongs to network.conv"),
    "network.dropout": To("method.dropout", number),
    "network.pretrained_lora_path": To("method.start"),
    "network.lokr_full_rank": Not("it belongs to other networks"),
    "network.lokr_factor": Not("it belongs to other networks"),
    "network.network_kwargs": Lacks("choice of layers in that form; write patterns into method.targets", DETAILS),
    "network.transformer_only": Not("it is for other kinds of models"),
    "save.dtype": To("method.file_dtype", _precision),
    "save.save_every": To("checkpoint.every_steps", whole),
    "save.max_step_saves_to_keep": To("checkpoint.keep", whole),
    "save.save_format": Not("a LoRA is saved for diffusers and for A1111 and ComfyUI, a model as a diffusers folder"),
    "save.push_to_hub": Not(PUBLISHED),
    "save.hf_repo_id": Not(PUBLISHED),
    "save.hf_private": Not(PUBLISHED),
    "train.batch_size": To("train.batch_size", whole),
    "train.steps": To("train.steps", whole),
    "train.gradient_accumulation_steps": To("train.accumulation", whole),
    "train.gradient_accumulation": To("train.accumulation", whole),
    "train.train_unet": Lacks("training without the UNet", (None, True), "it learns"),
    "train.train_text_encoder": To("method.text_encoder", flag),
    "train.unet_lr": Lacks("rate of the UNet alone; set train.learning_rate"),
    "train.gradient_checkpointing": To("engine.gradient_checkpointing", flag),
    "train.noise_scheduler": Lacks("such noise schedule", (None, "ddpm"), "it is the base's own"),
    "train.timestep_type": Lacks(
        "such distribution of noise levels", (None, "sigmoid", "linear", ""), "it is for others"
    ),
    "train.content_or_style": Lacks("such distribution of noise levels", (None, "balanced"), "it is the usual one"),
    "train.linear_timesteps": Lacks("such distribution of noise levels"),
    "train.optimizer": To("train.optimizer", OPTIMIZER),
    "train.optimizer_params.weight_decay": To("train.weight_decay", number),
    "train.lr": To("train.learning_rate", number),
    "train.lr_scheduler": To("train.schedule", chosen("train.schedule")),
    "train.lr_scheduler_params": Lacks("further arguments of a schedule", DETAILS),
    "train.lr_warmup_steps": To("train.warmup_steps", whole),
    "train.max_grad_norm": To("train.clip_norm", number),
    "train.min_snr_gamma": To("method.loss.min_snr_gamma", number),
    "train.snr_gamma": Lacks("such weight of noise levels; min-SNR is method.loss.min_snr_gamma"),
    "train.loss_type": To("method.loss.kind", chosen("method.loss.kind", same={"mse": "l2", "mae": "l1"})),
    "train.noise_offset": To("method.loss.noise_offset", number),
    "train.min_denoising_steps": Lacks("lowest noise level", DETAILS),
    "train.max_denoising_steps": Lacks("highest noise level", (None, 1000, 999)),
    "train.prompt_dropout_prob": To("method.condition_dropout", number),
    "train.seed": To("train.seed", whole),
    "train.dtype": To("engine.precision", _precision),
    "train.xformers": Not("PyTorch's own attention is used, which needs no choice"),
    "train.sdp": Not("PyTorch's own attention is used, which needs no choice"),
    "train.skip_first_sample": Not("the first samples are drawn after the first interval"),
    "train.force_first_sample": Lacks("samples before the first step"),
    "train.disable_sampling": To("samples.every_steps", lambda value: _never(value)),
    "train.unload_text_encoder": Not("encoders take no memory once all is encoded"),
    "train.cache_text_embeddings": Not("captions are encoded once wherever nothing changes them later"),
    "train.bypass_guidance_embedding": Not("it is for other kinds of models"),
    "train.diff_output_preservation": Lacks("preservation of the class by its outputs; see data.class_images"),
    "train.diff_output_preservation_multiplier": Not("it belongs to diff_output_preservation"),
    "train.diff_output_preservation_class": Not("it belongs to diff_output_preservation"),
    "model.name_or_path": To("family.base"),
    "model.arch": Not("a base says itself of which kind it is"),
    "model.vae_path": To("family.vae"),
    "model.is_v2": Not("a base says itself of which version it is"),
    "model.is_v_pred": To("family.prediction", lambda value: "v" if flag(value) else "auto"),
    "model.quantize_te": Lacks("8-bit text encoder"),
    "model.qtype": Not("it belongs to model.quantize"),
    "model.qtype_te": Not("it belongs to model.quantize_te"),
    "model.low_vram": Not(MEMORY),
    "model.refiner_name_or_path": Lacks("refiner of XL"),
    "train.train_refiner": Lacks("refiner of XL", (*DETAILS, True), "there is none"),
    "train.refiner_lr": Not("it belongs to a refiner"),
    "sample.refiner_start_at": Lacks("refiner of XL"),
    "model.lora_path": Lacks("LoRA merged into the base before; use: fusain models merge"),
    "sample.sampler": To("samples.sampler", SAMPLER),
    "sample.sample_every": To("samples.every_steps", whole),
    "sample.sample_start_step": Lacks("first sample at a later step", DETAILS),
    "sample.width": Not("samples have the size that is learnt; generate --size draws others"),
    "sample.height": Not("samples have the size that is learnt; generate --size draws others"),
    "sample.neg": To("samples.negative"),
    "sample.seed": To("samples.seed", whole),
    "sample.walk_seed": Not("each further image has the next seed"),
    "sample.guidance_scale": To("samples.guidance", number),
    "sample.sample_steps": To("samples.steps", whole),
    "sample.guidance_rescale": Lacks("rescaling of guidance", DETAILS),
    "sample.num_frames": Not("it is for videos"),
    "sample.fps": Not("it is for videos"),
    "sample.ext": Not("samples are PNGs"),
    "logging.log_every": Not("curves are always written into the run folder"),
    "logging.use_ui_logger": Not("curves are always written into the run folder"),
    "logging.verbose": Not("curves are always written into the run folder"),
    "logging.use_wandb": To("track.wandb", lambda value: "online" if flag(value) else "off"),
    "logging.project_name": To("track.project"),
    "logging.run_name": Not("a run is named by itself there too"),
}
OF_DATA: Final[dict[str, Rule]] = {
    "folder_path": To("data.path"),
    "dataset_path": To("data.path"),
    "caption_ext": Lacks(
        "captions in files of that name; rename them to .txt or .caption",
        (None, "", "txt", ".txt", "caption", ".caption"),
        "both .txt and .caption files are read",
    ),
    "default_caption": Lacks("one caption for all; see data.captions.trigger_word and missing"),
    "trigger_word": To("data.captions.trigger_word"),
    "caption_dropout_rate": To("method.condition_dropout", number),
    "shuffle_tokens": To("data.captions.shuffle_tokens", flag),
    "keep_tokens": To("data.captions.keep_tokens", whole),
    "token_dropout_rate": Lacks("dropout of single tokens"),
    "resolution": To("family.size", _largest),
    "buckets": To("data.buckets", flag),
    "bucket_tolerance": Not("sides of buckets are multiples of 64, or less for small sizes"),
    "num_repeats": To("data.repeats", whole),
    "network_weight": Lacks("weight of a folder", (None, 1, 1.0)),
    "random_crop": To("data.crop", lambda value: "random" if flag(value) else "center"),
    "random_scale": Lacks("random enlargement"),
    "flip_x": To("data.flip", flag),
    "flip_y": Lacks("mirroring upside down"),
    "augments": Lacks("such changes of images", DETAILS),
    "augmentations": Lacks("such changes of images", DETAILS),
    "mask_path": Lacks("masks in another folder; put files beside the images, see data.masks.use"),
    "mask_min_value": To("data.masks.outside", number),
    "alpha_mask": To("data.masks.use", lambda value: "alpha" if flag(value) else "none"),
    "is_reg": Lacks("such folder here; see data.class_images.path"),
    "prior_reg": Lacks("such folder here; see data.class_images.path"),
    "control_path": Lacks("images as conditions"),
    "cache_latents": To("data.cache", lambda value: "auto" if flag(value) else "none"),
    "cache_latents_to_disk": Not("what is encoded once is always kept on disk"),
    "cache_text_embeddings": Not("captions are encoded once wherever nothing changes them later"),
    "cache_clip_vision_to_disk": Not("it is for other kinds of models"),
    "num_workers": To("data.workers", whole),
    "prefetch_factor": Not(MEMORY),
    "num_frames": Lacks("videos", (None, 1)),
    "shrink_video_to_frames": Not("it is for videos"),
    "do_i2v": Not("it is for videos"),
    "fps": Not("it is for videos"),
}


def _never(value: Any) -> int:
    if not flag(value):
        raise Lost("it is off, and sample.sample_every holds")
    return 0


def process(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first of the things that the job does."""
    config = values.get("config", {})
    listed = config.get("process", []) if isinstance(config, dict) else []
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}


def read(values: Mapping[str, Any]) -> Account:
    """A job that trains."""
    account = Account()
    own = process(values)
    is_xl = _is_xl(own.get("model") or {})
    words = "the model is called so" if is_xl else "the base says which version it is"
    account.assume("family.kind", "sdxl" if is_xl else "sd", words)
    place = "config.process.0."
    _around(account, values)
    flat = dict(_flat({key: value for key, value in own.items() if key != "datasets"}))
    if flat.get("train.disable_sampling") is False:
        account.needless(f"{place}train.disable_sampling", flat.pop("train.disable_sampling"), "samples are drawn")
    rest = {key: value for key, value in flat.items() if not _apart(account, key, value, flat)}
    account.take(rest, RULES, place)
    for key, value in flat.items():
        if key.startswith("train.optimizer_params.") and key not in RULES:
            take_option(account, place + key, key.rpartition(".")[2], value)
    _datasets(account, own.get("datasets", []))
    _defaults(account, own)
    if QUANTIZE in flat:
        kind, value = str(flat.get("model.qtype", "")), flat[QUANTIZE]
        few = 4 if any(digit in kind for digit in "234") else 8
        take_bits(account, f"{place}{QUANTIZE}", value, few if flag(value) else 0)
    return account


def _around(account: Account, values: Mapping[str, Any]) -> None:
    """What stands around the process: names, and further things to do."""
    config = values.get("config", {})
    account.take({"job": values.get("job")}, {"job": Not("it is a training")})
    if "name" in config:
        account.needless("config.name", config["name"], f"name the run: fusain train FILE --name {config['name']}")
    for key, value in config.items():
        if key not in ("name", "process"):
            account.take({key: value}, {}, "config.")
    for place, further in enumerate(config.get("process", [])[1:], 1):
        account.lost(f"config.process.{place}", dict(further).get("type"), "one file is one training")
    for key, value in values.items():
        if key == "meta":
            account.needless(key, value, "a model is described when it is published")
        elif key not in ("job", "config"):
            account.take({key: value}, {})


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    whole_ones = ("network.network_kwargs", "train.lr_scheduler_params")
    for key, value in values.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in whole_ones:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _apart(account: Account, key: str, value: Any, flat: Mapping[str, Any]) -> bool:
    place = f"config.process.0.{key}"
    if key == "train.ema_config.use_ema":
        decay = float(flat.get("train.ema_config.ema_decay", 0.999)) if flag(value) else 0.0
        account.put(place, value, "train.ema_decay", decay)
    elif key == "train.ema_config.ema_decay":
        account.needless(place, value, "told with use_ema")
    elif key in ("sample.prompts", "sample.samples"):
        _prompts(account, place, value, flat)
    elif key.startswith("train.optimizer_params.") and key not in RULES:
        pass  # it has a meaning once the optimizer is known
    elif key.removeprefix("model.") in XL:
        account.needless(place, value, "it is said by family.kind")
    elif key == QUANTIZE:
        pass  # once it is known what learns
    elif key == "train.text_encoder_lr":
        _text_rate(account, place, value, flat)
    elif key.removeprefix("model.") in OTHER_MODELS:
        account.needless(place, value, "it is off")
    else:
        return False
    return True


def _is_xl(model: Mapping[str, Any]) -> bool:
    return _arch(model) == "sdxl" or any(flag(model.get(key, False)) for key in XL)


def _arch(model: Mapping[str, Any]) -> str:
    return str(model.get("arch") or "").split(":")[0].lower()


def _text_rate(account: Account, place: str, value: Any, flat: Mapping[str, Any]) -> None:
    """The rate of the text encoders becomes a factor, where they learn."""
    if value and flag(flat.get("train.train_text_encoder", False)):
        share = float(f"{float(value) / float(flat.get('train.lr', RATE)):.6g}")
        account.put(place, value, "method.text_encoder_rate", share, "as a factor of train.learning_rate")
    else:
        account.needless(place, value, "the text encoders do not learn" if value else "it is empty")


def _prompts(account: Account, place: str, value: Any, flat: Mapping[str, Any]) -> None:
    """Prompts as texts or as tables, with the trigger word where it is meant."""
    texts = [one.get("prompt", "") if isinstance(one, dict) else str(one) for one in value or []]
    word = flat.get("trigger_word") or ""
    account.put(place, value, "samples.prompts", [text.replace("[trigger]", word) for text in texts])
    if any(isinstance(one, dict) and len(one) > 1 for one in value or []):
        account.lost(f"{place} (beside the prompts)", "…", "all samples have the same size, seed and guidance")


def _datasets(account: Account, datasets: Any) -> None:
    for rank, one in enumerate(datasets if isinstance(datasets, list) else []):
        place = f"config.process.0.datasets.{rank}."
        if rank == 0:
            account.take(one, OF_DATA, place)
            continue
        for key, value in one.items():
            account.lost(f"{place}{key}", value, "Fusain learns from one folder; put the images of all below one")


def _defaults(account: Account, own: Mapping[str, Any]) -> None:
    """What ai-toolkit does by itself, where that is not what Fusain does by itself."""
    why = "what ai-toolkit does by itself"
    account.assume("method.kind", "lora" if "network" in own else "full", why)
    account.assume("data.buckets", True, why)
    account.assume("data.held_out", "none", "ai-toolkit holds nothing out")
    account.assume("family.size", 512, why)
    account.assume("train.ema_decay", 0.0, why)
    account.assume("train.batch_size", 1, why)
    account.assume("train.steps", 1000, why)
    account.assume("train.learning_rate", RATE, why)
    if account.settings["method.kind"] == "lora":
        account.assume("method.rank", 4, why)
        account.assume("method.alpha", float(account.settings["method.rank"]), why)
        account.assume("method.targets", "attention+feed_forward", why)
        account.assume("method.text_encoder", False, why)
        if account.settings["method.text_encoder"]:
            account.assume("method.text_encoder_rate", 1.0, why)


def other_model(values: Mapping[str, Any]) -> str:
    """The kind of model that Fusain does not train, or ''."""
    model = process(values).get("model", {})
    if _arch(model) not in ARCHITECTURES:
        return str(model["arch"]).split(":")[0]
    named = next((key.removeprefix("is_") for key in OTHER_MODELS if model.get(key)), "")
    return named


def fits(values: Mapping[str, Any]) -> bool:
    """Whether this is a job."""
    return "job" in values and bool(process(values))
