"""kohya's sd-scripts and kohya_ss: the TOML of a training, and the one of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fusain.runs.imports.account import Account, Lacks, Not, Rule, To, flag, number, whole
from fusain.runs.imports.kohya_keys import OF_XL, RULES
from fusain.runs.imports.names import take_bits, take_detail, take_narrow_weights, take_option

NAME: Final = "kohya"
OTHER_MODELS: Final = ("clip_l", "clip_g", "t5xxl", "ae", "gemma2", "qwen3", "llm_adapter_path")
"""Keys that only scripts for other kinds of models read."""

APART: Final = (
    *("unet_lr", "text_encoder_lr", "lr_warmup_steps", "optimizer_args", "network_args", "wandb_api_key", "log_with"),
    *("lr_scheduler_num_cycles", "lr_scheduler_power", "multires_noise_iterations", "multires_noise_discount"),
    *("learning_rate_te1", "learning_rate_te2", "fp8_base", "full_bf16"),
)
ENCODERS_RATES: Final = {"learning_rate_te1": "text_encoder", "learning_rate_te2": "text_encoder_2"}
ONLY_XL: Final = (
    *("learning_rate_te1", "learning_rate_te2", "train_text_encoder", "block_lr", "fused_optimizer_groups"),
    *("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"),
)
"""Keys that of the scripts whose files are read only those for XL know."""

OWN: Final = {
    *("pretrained_model_name_or_path", "network_module", "network_dim", "network_alpha", "train_data_dir"),
    *("dataset_config", "max_train_steps", "max_train_epochs", "train_batch_size", "unet_lr", "lr_scheduler"),
    *("output_name", "mixed_precision", "save_every_n_epochs", "max_token_length", "optimizer_type"),
}
"""Keys by which a file is known; others have some of the rest too."""


def read(values: Mapping[str, Any]) -> Account:
    """A training's file, of a data set's, or one that holds both; names of its sections mean nothing there."""
    account = Account()
    if "datasets" in values or "general" in values:
        _data_set(account, values)
        values = {key: value for key, value in values.items() if key not in ("datasets", "general")}
        if not values:
            return account
    flat = dict(_flat(values))
    account.assume("family.kind", *_family(flat))
    if "network_module" not in flat:
        account.assume("method.kind", "full", "without network_module all weights learn")
    with_huber = flat.get("loss_type") in ("huber", "smooth_l1")
    unused = {} if with_huber else {key: value for key, value in flat.items() if key.startswith("huber_")}
    account.take(unused, dict.fromkeys(unused, Not("it belongs to another loss")))
    rules = RULES | OF_XL if account.settings["family.kind"] == "sdxl" else RULES
    account.take({key: value for key, value in flat.items() if key not in (*APART, *unused)}, rules)
    _rates(account, flat)
    _encoders_rates(account, flat)
    _schedule(account, flat)
    _pyramid(account, flat)
    _logs(account, flat)
    _arguments(account, flat)
    _defaults(account, flat)
    if "fp8_base" in flat:
        take_bits(account, "fp8_base", flat["fp8_base"], 8 if flag(flat["fp8_base"]) else 0)
    if flag(flat.get("full_bf16", False)):
        take_narrow_weights(account, "full_bf16", flat["full_bf16"])
    elif "full_bf16" in flat:
        account.needless("full_bf16", flat["full_bf16"], "it is off")
    return account


def _family(flat: Mapping[str, Any]) -> tuple[str, str]:
    """Which family, and how that is known: there the script is chosen by it, and the file does not say so."""
    base = re.split(r"[^a-z0-9]+", str(flat.get("pretrained_model_name_or_path", "")).lower())
    named = next((key for key in ONLY_XL if flat.get(key)), "")
    if any(part in ("xl", "sdxl") or part.endswith("xl") for part in base):
        return "sdxl", "by the name of the base; set it to sd if that is no XL"
    if named:
        return "sdxl", f"only scripts for XL know {named}; set it to sd if the base is no XL"
    return "sd", "the base says which version it is; set it to sdxl if that is one of XL"


def _flat(values: Mapping[str, Any]) -> Any:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield key, value


def _data_set(account: Account, values: Mapping[str, Any]) -> None:
    """The first folder of images is learnt, the first of class images is learnt beside it; more are said to be lost."""
    account.take(values.get("general", {}), RULES, "general.")
    sets = values.get("datasets", [])
    for rank, one in enumerate(sets if isinstance(sets, list) else []):
        place = f"datasets.{rank}."
        subsets = one.get("subsets", [])
        own = {key: value for key, value in one.items() if key != "subsets"}
        if rank == 0:
            account.take(own, RULES, place)
        for key, value in own.items() if rank else ():
            account.lost(place + key, value, "Fusain learns from one data set")
        for inner, subset in enumerate(subsets):
            _subset(account, subset, f"{place}subsets.{inner}.")


def _subset(account: Account, subset: Mapping[str, Any], place: str) -> None:
    target = "data.class_images.path" if subset.get("is_reg") else "data.path"
    if target in account.settings:
        for key, value in subset.items():
            account.lost(place + key, value, f"{target} is one folder; put the images of both below one")
        return
    rest = dict(subset)
    if subset.get("is_reg"):
        folder = rest.pop("image_dir", None)
        if folder is not None:
            account.put(f"{place}image_dir", folder, target, folder)
        account.assume("data.class_images.weight", 1.0, "class images count as much as others")
        word = rest.pop("class_tokens", None)
        if word is not None:
            account.put(f"{place}class_tokens", word, "data.class_images.prompt", word)
        for key in ("num_repeats",):
            if key in rest:
                account.lost(place + key, rest.pop(key), "class images are drawn as often as the others")
    account.take(rest, RULES, place)


def _rates(account: Account, flat: Mapping[str, Any]) -> None:
    """`unet_lr` stands in place of the learning rate, and the text encoder's becomes a factor of it."""
    rate = flat.get("unet_lr")
    if rate not in (None, "", 0):
        account.put("unet_lr", rate, "train.learning_rate", float(rate), "it stands in place of learning_rate")
    elif "unet_lr" in flat:
        account.needless("unet_lr", rate, "it is off")
    of_text, overall = flat.get("text_encoder_lr"), account.settings.get("train.learning_rate")
    remark = "as a factor of train.learning_rate"
    if isinstance(of_text, list):
        if len(set(of_text)) > 1:
            remark += "; both encoders have the first one's"
        of_text = of_text[0] if of_text else None
    if "text_encoder_lr" in flat and not of_text:
        account.put("text_encoder_lr", of_text, "method.text_encoder", False)
    elif of_text and overall:
        share = float(f"{float(of_text) / overall:.6g}")
        account.put("text_encoder_lr", flat["text_encoder_lr"], "method.text_encoder_rate", share, remark)
    elif "text_encoder_lr" in flat:
        account.lost("text_encoder_lr", of_text, "there is no learning rate that it could be a factor of")
    _warm_up(account, flat)


def _encoders_rates(account: Account, flat: Mapping[str, Any]) -> None:
    """Where all weights of XL learn, each text encoder may have a rate of its own."""
    parts, learns = [], account.settings.get("method.text_encoder", False)
    for key, name in ENCODERS_RATES.items():
        rate = flat.get(key)
        if key in flat and not learns:
            account.needless(key, rate, "the text encoders do not learn (train_text_encoder)")
        elif key in flat and not rate:
            account.lost(key, rate, "both text encoders learn or none; this one learns at train.learning_rate")
        elif key in flat:
            parts.append({"names": name, "learning_rate": number(rate)})
            account.put(key, rate, "train.parts", list(parts))


def _warm_up(account: Account, flat: Mapping[str, Any]) -> None:
    if "lr_warmup_steps" not in flat:
        return
    given, steps = float(flat["lr_warmup_steps"] or 0), account.settings.get("train.steps")
    if given >= 1 or given == 0:
        account.put("lr_warmup_steps", given, "train.warmup_steps", int(given))
    elif steps:
        account.put("lr_warmup_steps", given, "train.warmup_steps", round(given * steps), "a share of all steps")
    else:
        account.lost("lr_warmup_steps", given, "a share of steps that are not known; set train.warmup_steps")


def _schedule(account: Account, flat: Mapping[str, Any]) -> None:
    cycles, power = ("train.schedule_cycles", whole), ("train.schedule_power", number)
    take_detail(account, flat, "lr_scheduler_num_cycles", "cosine_with_restarts", cycles)
    take_detail(account, flat, "lr_scheduler_power", "polynomial", power)


def _pyramid(account: Account, flat: Mapping[str, Any]) -> None:
    """The number of scales switches it on there; here the discount does, and the scales go down to one place."""
    levels, discount = flat.get("multires_noise_iterations"), flat.get("multires_noise_discount")
    if levels:
        share = 0.3 if discount in (None, "") else float(discount)
        words = "with all scales, each half of the one before, counting as multires_noise_discount says"
        account.put("multires_noise_iterations", levels, "method.loss.pyramid_discount", share, words)
    elif "multires_noise_iterations" in flat:
        account.needless("multires_noise_iterations", levels, "it is off")
    if "multires_noise_discount" in flat:
        reason = "told with multires_noise_iterations" if levels else "it belongs to multires_noise_iterations"
        account.needless("multires_noise_discount", discount, reason)


def _logs(account: Account, flat: Mapping[str, Any]) -> None:
    value = flat.get("log_with")
    if value == "wandb":
        account.put("log_with", value, "track.wandb", "online")
    elif value in ("tensorboard", "all"):
        account.put("log_with", value, "track.tensorboard", True)
        if value == "all":
            account.assume("track.wandb", "online", "log_with is all")
    elif "log_with" in flat:
        account.needless("log_with", value, "curves are always written into the run folder")


def _arguments(account: Account, flat: Mapping[str, Any]) -> None:
    """`name=value` texts, of which each is a key of its own."""
    rules: dict[str, dict[str, Rule]] = {
        "optimizer_args": {"weight_decay": To("train.weight_decay", number)},
        "network_args": {"loraplus_lr_ratio": To("method.plus_ratio", number), "rank_dropout": Lacks("such dropout")},
    }
    for key, of_key in rules.items():
        given = flat.get(key) or []
        if key in flat and not given:
            account.needless(key, flat[key], "it is empty")
        for text in [given] if isinstance(given, str) else given:
            name, _, value = str(text).partition("=")
            if key == "optimizer_args" and name not in of_key:
                take_option(account, f"{key}.{name}", name, value)
            else:
                rule = of_key.get(name, Lacks("place for that argument of a network"))
                account.take({name: value}, {name: rule}, f"{key}.")
    if "wandb_api_key" in flat:
        account.needless("wandb_api_key", "…", "keys have no place in settings; it was not copied")


def _defaults(account: Account, flat: Mapping[str, Any]) -> None:
    """What sd-scripts does by itself, where that is not what Fusain does by itself."""
    why = "what sd-scripts does by itself"
    if account.settings.get("method.loss.min_snr_gamma") and account.settings.get("method.loss.debiased"):
        account.withdraw("method.loss.debiased", "one weight of noise levels only: min_snr_gamma holds", "lost")
    if "train.epochs" in account.settings:
        account.withdraw("train.steps", "max_train_epochs stands in its place")
    else:
        account.assume("train.steps", 1600, why)
    for section in ("checkpoint", "samples"):
        if f"{section}.every_steps" in account.settings:
            account.withdraw(f"{section}.every_epochs", f"one interval only: {section}.every_steps holds", "lost")
    account.assume("train.batch_size", 1, why)
    account.assume("train.learning_rate", 2e-6, why)
    account.assume("train.ema_decay", 0.0, "sd-scripts keeps no average of the weights")
    account.assume("data.held_out", "none", "sd-scripts holds nothing out")
    account.assume("family.size", 1024 if account.settings["family.kind"] == "sdxl" else 512, why)
    if "data.class_images.path" in account.settings:
        weight = float(flat.get("prior_loss_weight", 1.0))
        account.assume("data.class_images.weight", weight, "prior_loss_weight")
    if account.settings.get("method.kind") == "lora" or "network_module" in flat:
        account.assume("method.kind", "lora", "the nearest")
        account.assume("method.rank", 4, why)
        account.assume("method.alpha", 1.0, why)
        account.assume("method.targets", "attention+feed_forward", why)
        account.assume("method.text_encoder", True, why)
        account.assume("method.text_encoder_rate", 1.0, why)


def fits(values: Mapping[str, Any]) -> bool:
    """Whether these are keys of sd-scripts, whatever the sections are called."""
    datasets = values.get("datasets")
    if isinstance(datasets, list) and any(isinstance(one, dict) and "subsets" in one for one in datasets):
        return True
    return len({key for key, _ in _flat(values)} & OWN) >= 2


def other_model(values: Mapping[str, Any]) -> str:
    """The kind of model that Fusain does not train, or ''."""
    flat = {key for key, _ in _flat(values)}
    named = next((key for key in OTHER_MODELS if key in flat), "")
    return f"a model with the part {named}" if named else ""
