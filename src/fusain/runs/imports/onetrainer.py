"""OneTrainer: the JSON of a preset or of a saved configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fusain.runs.imports.account import Account, Lacks, Not, Rule, flag, whole
from fusain.runs.imports.names import OPTION, take_bits, take_detail, take_narrow_weights
from fusain.runs.imports.onetrainer_keys import MEMORY, OF_CONCEPT, RULES, UNUSED

NAME: Final = "OneTrainer"
MODELS: Final = ("STABLE_DIFFUSION_15", "STABLE_DIFFUSION_20", "STABLE_DIFFUSION_20_BASE", "STABLE_DIFFUSION_21")
XL: Final = "STABLE_DIFFUSION_XL_10_BASE"
MODELS_BASE: Final = (*MODELS, "STABLE_DIFFUSION_21_BASE", XL)
OTHER_PARTS: Final = (
    *("prior", "transformer", "unconditional_transformer", "text_encoder_3", "text_encoder_4"),
    *("effnet_encoder", "decoder", "decoder_text_encoder", "decoder_vqgan"),
)
"""Parts that Stable Diffusion does not have."""
BASE_SAYS: Final = "the base says which version it is"
SECOND: Final = "text_encoder_2"
"""The part that only XL has."""
NOTHING_FOR: Final = (
    *("quantization", "cloud", "optimizer_defaults", "secrets"),
    *(f"text_encoder_{part}_{what}" for part in (3, 4) for what in ("layer_skip", "sequence_length")),
)
APART: Final = (
    *("ema", "ema_decay", "mae_strength", "huber_strength", "loss_weight_fn", "loss_weight_strength"),
    *("learning_rate_cycles", "weight_dtype", "unet.weight_dtype"),
)
BITS: Final = {"FLOAT_8": 8, "INT_8": 8, "FLOAT_W8A8": 8, "INT_W8A8": 8, "NFLOAT_4": 4}
"""Forms of the weights in which they take less than half of 32 bits."""
ROUNDING: Final = "optimizer.stochastic_rounding"
INTERVALS: Final = {"backup_after": "checkpoint", "sample_after": "samples", "save_every": "checkpoint"}


def read(values: Mapping[str, Any]) -> Account:
    """A configuration, as a preset says it or as it was saved whole."""
    account = Account()
    is_xl = values.get("model_type") == XL
    account.assume("family.kind", "sdxl" if is_xl else "sd", "model_type" if is_xl else BASE_SAYS)
    concepts = values.get("concepts") or []
    flat = dict(_flat({key: value for key, value in values.items() if key != "concepts"}))
    flat_of_method = {key: value for key, value in flat.items() if not _elsewhere(account, key, value, flat)}
    rest = {key: value for key, value in flat_of_method.items() if not _apart(account, key, value)}
    account.take(rest, RULES)
    if "concepts" in values and not concepts:
        account.needless("concepts", values["concepts"], "there are none")
    _concepts(account, concepts)
    _average(account, flat)
    cycles = ("train.schedule_cycles", whole)
    take_detail(account, flat, "learning_rate_cycles", "cosine_with_restarts", cycles)
    _loss(account, flat)
    _intervals(account, flat)
    _text_encoder(account, flat)
    if is_xl:
        _second_encoder(account, {key: value for key, value in flat.items() if key.startswith(SECOND)}, flat)
    _checkpointing(account, flat)
    _defaults(account)
    _bits(account, flat)
    return account


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in NOTHING_FOR:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _elsewhere(account: Account, key: str, value: Any, flat: Mapping[str, Any]) -> bool:
    """Whether a key belongs to something that this training does not do; a saved configuration holds them all."""
    method = flat.get("training_method")
    owners = {"embedding.": method == "EMBEDDING", "lora_": method == "LORA", "layer_filter": method == "LORA"}
    owners |= {"unmasked_": flat.get("masked_training"), "huber_delta": flat.get("huber_strength")}
    if any(key.startswith(start) and not is_used for start, is_used in owners.items()):
        account.needless(key, value, "it belongs to what this training does not do")
        return True
    return False


def _apart(account: Account, key: str, value: Any) -> bool:
    """Keys that are read together with others, and those of parts that these models have not."""
    head, _, last = key.partition(".")
    is_second = key.startswith(SECOND)
    if is_second and account.settings["family.kind"] == "sdxl":
        return True
    if is_second or head in OTHER_PARTS or key in NOTHING_FOR:
        shown = "…" if head in ("secrets", "cloud", "optimizer_defaults") else value
        account.needless(key, shown, "it belongs to other models or other work, and was not copied")
        return True
    if key.startswith(("oft_", "lokr_", "dora_oft")):
        account.needless(key, value, "it belongs to other adapters")
        return True
    if head == "optimizer" and key != ROUNDING and last not in ("optimizer", "weight_decay", "fused_back_pass"):
        if value in (None, False):
            account.needless(key, value, "it is off")
        else:
            account.lost(key, value, OPTION)
        return True
    intervals = [name for start in INTERVALS for name in (start, f"{start}_unit")]
    return (
        key in (*APART, ROUNDING) or key in intervals or key in TEXT_ENCODER or key.endswith("gradient_checkpointing")
    )


TEXT_ENCODER: Final = ("text_encoder.train", "text_encoder.stop_training_after_unit", "text_encoder.learning_rate")


def _concepts(account: Account, concepts: Any) -> None:
    for place, concept in enumerate(concepts if isinstance(concepts, list) else []):
        flat = dict(_flat(concept))
        if place == 0 and flat.get("enabled", True):
            account.take(flat, _concept_rules(flat), "concepts.0.")
            continue
        for key, value in flat.items():
            account.lost(f"concepts.{place}.{key}", value, "Fusain learns from one folder; put the images below one")


def _concept_rules(flat: Mapping[str, Any]) -> dict[str, Rule]:
    """What is not in the table changes images or captions, and is off by default."""
    rest: dict[str, Rule] = {
        key: Lacks("such change of images or captions", (None, False, 0, 0.0, ""))
        for key in flat
        if key.startswith(("image.enable_", "text.tag_dropout_enable", "text.caps_randomize_enable"))
    }
    belongs: dict[str, Rule] = {
        key: Not("it belongs to a change that is told apart")
        for key in flat
        if key.startswith(("image.random_", "image.resolution_", "text.tag_dropout_", "text.caps_", "text.prompt_path"))
    }
    return belongs | rest | OF_CONCEPT


def _average(account: Account, flat: Mapping[str, Any]) -> None:
    mode = flat.get("ema", "OFF")
    if mode == "OFF":
        account.assume("train.ema_decay", 0.0, "ema is OFF")
        for key in ("ema", "ema_decay"):
            if key in flat:
                account.needless(key, flat[key], "no average is kept")
        return
    account.put("ema", mode, "train.ema_decay", float(flat.get("ema_decay", 0.999)))
    if "ema_decay" in flat:
        account.needless("ema_decay", flat["ema_decay"], "told with ema")


def _loss(account: Account, flat: Mapping[str, Any]) -> None:
    for key, kind in (("mae_strength", "l1"), ("huber_strength", "huber")):
        value = flat.get(key)
        if value in UNUSED:
            if key in flat:
                account.needless(key, value, "it is off")
        elif flat.get("mse_strength", 1.0) in UNUSED and "method.loss.kind" not in account.settings:
            account.put(key, value, "method.loss.kind", kind)
        else:
            account.lost(key, value, "Fusain has no sum of losses; choose one: method.loss.kind")
    _weighting(account, flat)


def _weighting(account: Account, flat: Mapping[str, Any]) -> None:
    """How much each noise level counts."""
    weighting = flat.get("loss_weight_fn", "CONSTANT")
    strength = flat.get("loss_weight_strength", 5.0)
    if weighting == "MIN_SNR_GAMMA":
        account.put("loss_weight_fn", weighting, "method.loss.min_snr_gamma", float(strength))
    elif weighting == "P2":
        account.put("loss_weight_fn", weighting, "method.loss.p2_gamma", float(strength))
    elif weighting == "DEBIASED_ESTIMATION":
        account.put("loss_weight_fn", weighting, "method.loss.debiased", True)
    elif weighting != "CONSTANT":
        account.lost("loss_weight_fn", weighting, "Fusain has no such weight of noise levels")
    elif "loss_weight_fn" in flat:
        account.needless("loss_weight_fn", weighting, "all noise levels count alike")
    if "loss_weight_strength" in flat:
        account.needless("loss_weight_strength", strength, "it belongs to loss_weight_fn")


def _intervals(account: Account, flat: Mapping[str, Any]) -> None:
    """How often something is done, in steps or epochs; Fusain does not count minutes."""
    for key, section in INTERVALS.items():
        if key not in flat and f"{key}_unit" not in flat:
            continue
        every, unit = flat.get(key), str(flat.get(f"{key}_unit", "MINUTE"))
        word = {"STEP": "steps", "EPOCH": "epochs"}.get(unit)
        taken = any(f"{section}.every_{name}" in account.settings for name in ("steps", "epochs"))
        if unit in ("NEVER", "ALWAYS") or not every:
            account.needless(key, every, f"the unit is {unit}")
        elif word and not taken:
            account.put(key, every, f"{section}.every_{word}", int(every) if word == "steps" else float(every))
        else:
            why = f"{section} has one interval" if taken else f"Fusain counts steps or epochs: {section}.every_steps"
            account.lost(key, every, why)
        if f"{key}_unit" in flat:
            account.needless(f"{key}_unit", unit, f"told with {key}")


def _text_encoder(account: Account, flat: Mapping[str, Any]) -> None:
    learns = flat.get("text_encoder.train", True)
    if "text_encoder.train" in flat:
        account.put("text_encoder.train", learns, "method.text_encoder", flag(learns))
    else:
        account.assume("method.text_encoder", True, "what OneTrainer does by itself")
    rate, overall = flat.get("text_encoder.learning_rate"), flat.get("learning_rate", 3e-6)
    if rate:
        share = float(f"{rate / overall:.6g}")
        account.put("text_encoder.learning_rate", rate, "method.text_encoder_rate", share, "as a factor")
    else:
        if "text_encoder.learning_rate" in flat:
            account.needless("text_encoder.learning_rate", rate, "it has the rate of the rest")
        account.assume("method.text_encoder_rate", 1.0, "what OneTrainer does by itself")
    unit = flat.get("text_encoder.stop_training_after_unit", "EPOCH")
    if "text_encoder.stop_training_after_unit" not in flat:
        return
    if unit == "NEVER" or not learns:
        account.needless("text_encoder.stop_training_after_unit", unit, "it learns to the end, or not at all")
    elif unit == "STEP" and flat.get("text_encoder.stop_training_after"):
        steps = int(flat["text_encoder.stop_training_after"])
        account.put("text_encoder.stop_training_after_unit", unit, "method.text_encoder_steps", steps)
    else:
        account.lost("text_encoder.stop_training_after_unit", unit, "set method.text_encoder_steps")


def _second_encoder(account: Account, second: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
    """Both encoders learn or none, at one rate: what the second is told apart from the first is lost."""
    for key, value in second.items():
        rest = key.removeprefix(SECOND)
        first = f"text_encoder{rest}"
        if rest.endswith(SECOND_IS_LIKE) and value != flat.get(first, OF_ENCODERS.get(rest)):
            account.lost(key, value, f"both text encoders are as {first} says")
        elif rest.endswith(SECOND_IS_LIKE):
            account.needless(key, value, f"told with {first}")
        else:
            rule = RULES.get(first, Not("it belongs to the text encoders"))
            account.take({key: value}, {key: rule if isinstance(rule, Not | Lacks) else Not(f"told with {first}")})


SECOND_IS_LIKE: Final = (
    *(".train", ".learning_rate", ".stop_training_after", ".stop_training_after_unit", ".dropout_probability"),
    "_layer_skip",
)
OF_ENCODERS: Final[Mapping[str, Any]] = {".train": True, ".dropout_probability": 0.0, "_layer_skip": 0}
"""What OneTrainer has where a key is left out; else it is nothing."""


def _checkpointing(account: Account, flat: Mapping[str, Any]) -> None:
    """One switch here; a switch a part, or one of three words, there."""
    others = (*OTHER_PARTS, SECOND)
    keys = [key for key in flat if key.endswith("gradient_checkpointing") and key.split(".")[0] not in others]
    for place, key in enumerate(keys):
        is_on = flat[key] not in (False, "OFF")
        if place == 0:
            account.put(key, flat[key], "engine.gradient_checkpointing", is_on)
        else:
            account.needless(key, flat[key], "one switch holds for all parts: engine.gradient_checkpointing")
    account.assume("engine.gradient_checkpointing", True, "what OneTrainer does by itself")


def _bits(account: Account, flat: Mapping[str, Any]) -> None:
    """The UNet's form of weights, which is that of all parts where it has none of its own."""
    has_own = flat.get("unet.weight_dtype") not in (None, "NONE")
    for key, decides in (("weight_dtype", not has_own), ("unet.weight_dtype", has_own)):
        if key in flat and decides and flat[key] in BITS:
            take_bits(account, key, flat[key], BITS[flat[key]])
        elif key in flat and decides and flat[key] == "BFLOAT_16":
            take_narrow_weights(account, key, flat[key])
        elif key in flat:
            account.needless(key, flat[key], MEMORY)
    if ROUNDING in flat:
        is_narrow = account.settings.get("engine.weights") == "bf16"
        reason = "weights in bf16 are always rounded so" if is_narrow else "weights in fp32 need no rounding"
        account.needless(ROUNDING, flat[ROUNDING], reason)


def _defaults(account: Account) -> None:
    why = "what OneTrainer does by itself"
    if account.settings["family.kind"] == "sd":
        account.assume("family.base", "stable-diffusion-v1-5/stable-diffusion-v1-5", why)
    for target, value in DEFAULTS.items():
        account.assume(target, value, why)
    if account.settings["method.kind"] == "lora":
        account.assume("method.rank", 16, why)
        account.assume("method.alpha", 1.0, why)
        account.assume("method.targets", "all", why)


DEFAULTS: Final[dict[str, Any]] = {
    "method.kind": "full",
    "family.size": 512,
    "train.learning_rate": 3e-6,
    "train.warmup_steps": 200,
    "train.epochs": 100.0,
    "train.batch_size": 1,
    "data.buckets": True,
    "data.held_out": "none",
}


def other_model(values: Mapping[str, Any]) -> str:
    """The kind of model that Fusain does not train, or ''."""
    named = str(values.get("model_type", MODELS[0]))
    return "" if named in MODELS_BASE else named


def fits(values: Mapping[str, Any]) -> bool:
    """Whether these are keys of a preset or a configuration."""
    return "training_method" in values and ("model_type" in values or "base_model_name" in values)
