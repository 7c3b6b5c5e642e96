"""What diffusers' training scripts that learn from captions do with several flags at once, and without being told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fusain.runs.imports.account import Account, flag, number, whole
from fusain.runs.imports.diffusers_keys import USE_8BIT
from fusain.runs.imports.diffusers_xl_keys import PRIOR

WHY: Final = "what that script does by itself"
BOTH_FOLDERS: Final = "an epoch there is as long as the longer of both folders, here it counts the subject's"
Flags = Mapping[str, Any]
Details = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""Settings by flag, each with its conversion."""


def text_to_image(account: Account, flags: Flags) -> None:
    """Stable Diffusion 1.x and 2.x, all weights."""
    drawn = {"samples.every_epochs": 5.0, "samples.steps": 20, "samples.guidance": 7.5, "samples.count": 1}
    _eight_bit(account, flags)
    _length(account, flags, epochs=100.0)
    _scaled_rate(account, flags)
    _samples(account, flags, "validation_prompts", drawn)
    account.assume("family.size", 512, WHY)
    account.assume("method.condition_dropout", 0.0, "that script hides no captions")


def text_to_image_xl(account: Account, flags: Flags) -> None:
    """Stable Diffusion XL, all weights of the UNet."""
    _eight_bit(account, flags)
    _xl(account, flags, epochs=100.0, every=1.0, steps=25)
    account.assume("method.condition_dropout", 0.0, "that script hides no captions")


def lora_xl(account: Account, flags: Flags) -> None:
    """A LoRA for it."""
    _eight_bit(account, flags)
    _xl(account, flags, epochs=100.0, every=1.0, steps=50)
    _lora(account)
    if account.settings["method.text_encoder"]:
        account.assume("method.text_encoder_rate", 1.0, WHY)


def dreambooth_lora_xl(account: Account, flags: Flags) -> None:
    """A LoRA of a subject, with class images beside it or without."""
    _prompt(account, flags)
    _optimizer(account, flags)
    _xl(account, flags, epochs=1.0, every=50.0, steps=50)
    if "samples.prompts" in account.settings:
        account.assume("samples.sampler", "dpm++-2m", WHY)
    account.assume("train.weight_decay", 1e-4, WHY)
    _lora(account)
    _text_encoders(account, flags)
    _class_images(account, flags)


def _xl(account: Account, flags: Flags, *, epochs: float, every: float, steps: int) -> None:
    drawn = {"samples.every_epochs": every, "samples.steps": steps, "samples.guidance": 5.0, "samples.count": 4}
    _length(account, flags, epochs=epochs)
    _scaled_rate(account, flags)
    _samples(account, flags, "validation_prompt", drawn)
    account.assume("family.size", 1024, WHY)


def _length(account: Account, flags: Flags, *, epochs: float) -> None:
    remark = BOTH_FOLDERS if flag(flags.get("with_prior_preservation", False)) else ""
    if "max_train_steps" in flags and "num_train_epochs" in flags:
        account.needless("--num_train_epochs", flags["num_train_epochs"], "max_train_steps stands in its place")
    elif "num_train_epochs" in flags:
        given = flags["num_train_epochs"]
        account.put("--num_train_epochs", given, "train.epochs", number(given), remark)
    elif "max_train_steps" not in flags:
        account.assume("train.epochs", epochs, f"{WHY}; {remark}" if remark else WHY)


def _scaled_rate(account: Account, flags: Flags) -> None:
    account.assume("train.learning_rate", 1e-4, WHY)
    if flag(flags.get("scale_lr", False)):
        images = account.settings["train.batch_size"] * account.settings.get("train.accumulation", 1)
        rate = float(f"{account.settings['train.learning_rate'] * images:.6g}")
        where = "" if "engine.processes" in account.settings else ", on one GPU"
        words = f"the rate times {images} images a step{where}"
        account.put("--scale_lr", flags["scale_lr"], "train.learning_rate", rate, words)
    elif "scale_lr" in flags:
        account.needless("--scale_lr", flags["scale_lr"], "it is off")


def _samples(account: Account, flags: Flags, prompts: str, drawn: Mapping[str, Any]) -> None:
    """Nothing is drawn where there is no prompt."""
    details: Details = {
        "validation_epochs": ("samples.every_epochs", number),
        "num_validation_images": ("samples.count", whole),
    }
    is_drawn = "samples.prompts" in account.settings
    if not is_drawn:
        account.assume("samples.every_steps", 0, f"without {prompts} that script draws nothing")
    for key, (target, convert) in details.items():
        if key in flags and is_drawn:
            account.put(f"--{key}", flags[key], target, convert(flags[key]))
        elif key in flags:
            account.needless(f"--{key}", flags[key], f"without {prompts} nothing is drawn")
    for target, value in drawn.items() if is_drawn else ():
        account.assume(target, value, WHY)


def _lora(account: Account) -> None:
    account.assume("method.rank", 4, WHY)
    account.assume("method.alpha", float(account.settings["method.rank"]), "as much as the rank")
    account.assume("method.targets", "attention", WHY)
    account.assume("method.text_encoder", False, "without train_text_encoder that script leaves them as they are")


def _eight_bit(account: Account, flags: Flags) -> None:
    if "use_8bit_adam" in flags:
        account.take({"use_8bit_adam": flags["use_8bit_adam"]}, {"use_8bit_adam": USE_8BIT}, "--")


def _optimizer(account: Account, flags: Flags) -> None:
    """Two flags for one choice: Prodigy, or AdamW in 8 bit or not."""
    name = flags.get("optimizer")
    if str(name).lower() != "prodigy":
        _eight_bit(account, flags)
        if name is not None and "train.optimizer" in account.settings:
            account.needless("--optimizer", name, "use_8bit_adam says which AdamW")
        elif name is not None:
            remark = "" if str(name).lower() == "adamw" else "that script knows AdamW and Prodigy only"
            account.put("--optimizer", name, "train.optimizer", "adamw", remark)
        return
    account.put("--optimizer", name, "train.optimizer", "prodigy")
    if "use_8bit_adam" in flags:
        account.needless("--use_8bit_adam", flags["use_8bit_adam"], "it belongs to AdamW")


def _prompt(account: Account, flags: Flags) -> None:
    """One caption for all images of the subject."""
    if "instance_prompt" in flags:
        said = str(flags["instance_prompt"])
        remark = "the caption of images that have none; that script takes others by caption_column only"
        account.put("--instance_prompt", said, "data.captions.fallback", said, remark)
        account.assume("data.captions.missing", "fallback", "instance_prompt is the caption")


def _text_encoders(account: Account, flags: Flags) -> None:
    """Their own rate, which Prodigy passes over, and their own decay."""
    learns, is_prodigy = account.settings["method.text_encoder"], account.settings.get("train.optimizer") == "prodigy"
    given, rate = flags.get("text_encoder_lr"), account.settings["train.learning_rate"]
    if learns and is_prodigy:
        account.assume("method.text_encoder_rate", 1.0, "with Prodigy that script has one rate for all")
    elif learns:
        share = float(f"{number(given if given is not None else 5e-6) / rate:.6g}")
        if given is None:
            account.assume("method.text_encoder_rate", share, f"{WHY}: 5e-6")
        else:
            words = "as a factor of train.learning_rate"
            account.put("--text_encoder_lr", given, "method.text_encoder_rate", share, words)
    if given is not None and (is_prodigy or not learns):
        account.needless("--text_encoder_lr", given, "the text encoders have no rate of their own")
    decay = flags.get("adam_weight_decay_text_encoder")
    if decay is not None and not learns:
        account.needless("--adam_weight_decay_text_encoder", decay, "the text encoders do not learn")
    elif decay is not None:
        words = "one decay for all; for the text encoders alone write train.parts"
        account.lost("--adam_weight_decay_text_encoder", decay, words)


def _class_images(account: Account, flags: Flags) -> None:
    """They come beside the subject's, and the batch grows by as many."""
    details: Details = {
        "class_data_dir": ("data.class_images.path", str),
        "class_prompt": ("data.class_images.prompt", str),
        "num_class_images": ("data.class_images.count", whole),
    }
    is_on, weight = flag(flags.get("with_prior_preservation", False)), flags.get("prior_loss_weight")
    if "with_prior_preservation" in flags:
        result = number(weight if weight is not None else 1.0) if is_on else 0.0
        account.put("--with_prior_preservation", is_on, "data.class_images.weight", result)
    if weight is not None:
        account.needless("--prior_loss_weight", weight, "told with with_prior_preservation" if is_on else PRIOR)
    for key, (target, convert) in details.items():
        if key in flags and not is_on:
            account.needless(f"--{key}", flags[key], PRIOR)
        elif key == "num_class_images" and key in flags and "class_data_dir" in flags:
            account.needless(f"--{key}", flags[key], "all images of class_data_dir are used, and none is added to them")
        elif key in flags:
            account.put(f"--{key}", flags[key], target, convert(flags[key]))
    if is_on:
        size = account.settings["train.batch_size"]
        account.withdraw("train.batch_size", "doubled: that script adds as many class images to each batch")
        account.assume("train.batch_size", 2 * size, f"{size} images of the subject and {size} of its class")
