"""diffusers' training scripts: the command that starts one, out of a shell script or a text file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from fusain.errors import SettingsError
from fusain.runs.imports.account import Account, Lacks, Not, Rule, To, flag, number, whole
from fusain.runs.imports.diffusers_keys import LAUNCHER
from fusain.runs.imports.diffusers_text import WHY, dreambooth_lora_xl, lora_xl, text_to_image, text_to_image_xl
from fusain.runs.imports.diffusers_xl_keys import SCRIPTS
from fusain.runs.imports.names import take_detail

NAME: Final = "diffusers"
OPTIONS: Final = {"adam_beta1": 0, "adam_beta2": 1, "adam_epsilon": None}
APART: Final = (
    *OPTIONS,
    *("use_ema", "ema_max_decay", "lr_warmup_steps", "scale_lr", "report_to", "logger", "num_train_epochs"),
    *("validation_epochs", "center_crop", "train_batch_size"),
    *("num_validation_images", "lr_num_cycles", "lr_power", "optimizer", "use_8bit_adam", "instance_prompt"),
    *("with_prior_preservation", "prior_loss_weight", "class_data_dir", "class_prompt", "num_class_images"),
    *("text_encoder_lr", "adam_weight_decay_text_encoder"),
)
LOGS: Final = {"tensorboard": ("track.tensorboard", True), "wandb": ("track.wandb", "online")}
_SETS: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)")
_NAMED: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def parse(text: str) -> dict[str, Any]:
    """The script of the first command that runs one, its flags and those of the launcher; nothing is run."""
    names: dict[str, str] = {}
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and (found := _SETS.fullmatch(words[0] if words[0] != "export" else " ".join(words[:2]))):
            names[found[1]] = _filled(found[2], names)
            words = words[2 if words[0] == "export" else 1 :]
        words = [_filled(word, names) for word in words]
        place = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
        if place is not None:
            launcher, script = dict(_flags(words[:place])), PurePath(words[place]).name
            return {"script": script, "launcher": launcher, "flags": dict(_flags(words[place + 1 :]))}
    return {}


def _filled(word: str, names: Mapping[str, str]) -> str:
    """With what the file itself says of a name; the environment is not looked at."""
    return _NAMED.sub(lambda found: names.get(found[1] or found[2], found[0]), word)


def _flags(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Each flag with its value: True where it has none, a list where it has several."""
    name, values = "", list[str]()
    for word in [*words, "--"]:
        if not word.startswith("--"):
            values.append(word)
            continue
        if name:
            yield name, values if len(values) > 1 else values[0] if values else True
        name, has_value, value = word[2:].partition("=")
        name, values = name.replace("-", "_"), [value] if has_value else []


def fits(values: Mapping[str, Any]) -> bool:
    """Whether this is a command that was read here."""
    return set(values) == {"script", "launcher", "flags"}


def other_model(values: Mapping[str, Any]) -> str:
    """None: which model is trained is the script's."""
    return ""


@dataclass(frozen=True)
class Script:
    """What a script trains, and what is said of it when all flags were read."""

    family: str
    method: str
    finish: Callable[[Account, Mapping[str, Any]], None]
    schedule: str = "constant"
    first_beta: float = 0.9
    log_flag: str = "report_to"
    batch_size: int = 16


def read(values: Mapping[str, Any]) -> Account:
    """What each flag became, and what the script does without being told."""
    name, flags = values["script"], values["flags"]
    script, rules = BY_NAME.get(name), SCRIPTS.get(name)
    if script is None or rules is None:
        known = f"{', '.join([*SCRIPTS][:-1])} or {[*SCRIPTS][-1]}"
        raise SettingsError("E-IMP-009", where=name, script=name, known=known)
    account = Account()
    account.assume("family.kind", script.family, "what that script trains")
    account.assume("method.kind", script.method, "all weights learn" if script.method == "full" else "a LoRA learns")
    account.take(values["launcher"], _launched(values["launcher"]), "accelerate --")
    account.take({key: value for key, value in flags.items() if key not in APART or key not in rules}, rules, "--")
    known_flags = {key: value for key, value in flags.items() if key in rules}
    _batch(account, known_flags, script.batch_size)
    _data(account, known_flags)
    _options(account, known_flags, script.first_beta)
    _warm_up(account, known_flags, script.schedule)
    _average(account, known_flags)
    _logs(account, known_flags, script.log_flag)
    script.finish(account, known_flags)
    _defaults(account)
    return account


def _launched(flags: Mapping[str, Any]) -> Mapping[str, Rule]:
    """The rules of the launcher; how many GPUs there are it says by another flag, or finds out by itself."""
    told: dict[str, Rule] = {"multi_gpu": Not("num_processes says how many")} if "num_processes" in flags else {}
    return {**LAUNCHER, **told}


def _batch(account: Account, flags: Mapping[str, Any], usual: int) -> None:
    """Each process of such a script has a batch of its own; here they share one."""
    count = account.settings.get("engine.processes", 1)
    words = f"so many on each of {count} processes, which share one batch here" if count > 1 else ""
    rule = To("train.batch_size", lambda value: whole(value) * count, words)
    account.take({key: flags[key] for key in ("train_batch_size",) if key in flags}, {"train_batch_size": rule}, "--")
    account.assume("train.batch_size", usual * count, WHY)


def _data(account: Account, flags: Mapping[str, Any]) -> None:
    if "dataset_name" in flags:
        account.assume("data.kind", "datasets", "dataset_name is a name of the hub")
    is_centred = flag(flags.get("center_crop", False))
    if "center_crop" in flags:
        account.put("--center_crop", flags["center_crop"], "data.crop", "center" if is_centred else "random")
    account.assume("data.crop", "random", "without center_crop that script cuts at random")
    account.assume("data.held_out", "none", "that script holds nothing out")


def _options(account: Account, flags: Mapping[str, Any], first_beta: float) -> None:
    """Three flags that are one setting; they are written down where they are not what Fusain's AdamW has."""
    betas, epsilon = [first_beta, 0.999], 1e-8
    for key, place in OPTIONS.items():
        if key not in flags:
            continue
        value = number(flags[key])
        if place is None:
            epsilon = value
        else:
            betas[place] = value
        options = {"betas": list(betas), "eps": epsilon}
        account.put(f"--{key}", flags[key], "train.optimizer_options", options)
    if first_beta != 0.9 or str(flags.get("optimizer")).lower() == "prodigy":
        account.assume("train.optimizer_options", {"betas": betas, "eps": epsilon}, WHY)


def _warm_up(account: Account, flags: Mapping[str, Any], schedule: str) -> None:
    """diffusers' `constant` takes no warm-up, whatever is said; its other schedules do."""
    account.assume("train.schedule", schedule, WHY)
    cycles, power = ("train.schedule_cycles", whole), ("train.schedule_power", number)
    given_as = {f"--{key}": value for key, value in flags.items()}
    take_detail(account, given_as, "--lr_num_cycles", "cosine_with_restarts", cycles)
    take_detail(account, given_as, "--lr_power", "polynomial", power)
    given = flags.get("lr_warmup_steps")
    if flags.get("lr_scheduler", schedule) == "constant":
        if given is not None:
            account.needless("--lr_warmup_steps", given, "constant takes no warm-up there; constant_with_warmup does")
    elif given is None:
        account.assume("train.warmup_steps", 500, WHY)
    else:
        account.put("--lr_warmup_steps", given, "train.warmup_steps", whole(given))


def _average(account: Account, flags: Mapping[str, Any]) -> None:
    """`use_ema` switches it on; how far it reaches is another flag, or the script's own number."""
    is_on, most = flag(flags.get("use_ema", False)), flags.get("ema_max_decay")
    decay = number(most if most is not None else 0.9999) if is_on else 0.0
    if "use_ema" in flags:
        account.put("--use_ema", flags["use_ema"], "train.ema_decay", decay)
    account.assume("train.ema_decay", decay, "without use_ema that script keeps no average of the weights")
    if most is not None and is_on:
        account.put("--ema_max_decay", most, "train.ema_decay", decay)
    elif most is not None:
        account.needless("--ema_max_decay", most, "it belongs to use_ema")


def _logs(account: Account, flags: Mapping[str, Any], key: str) -> None:
    value = flags.get(key)
    for name in LOGS if value == "all" else (value,):
        if name in LOGS:
            account.put(f"--{key}", value, *LOGS[name])
        elif value is not None:
            account.take({key: value}, {key: Lacks(f"tracker {value}", ("none",), "it is off")}, "--")


def _unconditional(account: Account, _: Mapping[str, Any]) -> None:
    account.assume("train.weight_decay", 1e-6, WHY)
    for target, value in {
        "family.size": 64,
        "family.channels": [128, 128, 256, 256, 512, 512],
        "family.attention_levels": [4],
        "train.epochs": 100.0,
        "samples.sampler": "ddpm",
        "samples.steps": 1000,
        "samples.count": 16,
        "samples.every_epochs": 10.0,
    }.items():
        account.assume(target, value, WHY)
    if account.settings.get("family.prediction") == "sample":
        words = "that script weighs the errors of images by their SNR; here by at most a hundred of it"
        account.assume("method.loss.min_snr_gamma", 100.0, words)


def _defaults(account: Account) -> None:
    account.assume("train.learning_rate", 1e-4, WHY)
    account.assume("checkpoint.every_steps", 500, WHY)
    account.assume("engine.precision", "fp32", "what accelerate does where it is told nothing")


BY_NAME: Final[dict[str, Script]] = {
    "train_unconditional.py": Script("pixel", "full", _unconditional, "cosine", 0.95, "logger"),
    "train_text_to_image.py": Script("sd", "full", text_to_image),
    "train_text_to_image_sdxl.py": Script("sdxl", "full", text_to_image_xl),
    "train_text_to_image_lora_sdxl.py": Script("sdxl", "lora", lora_xl),
    "train_dreambooth_lora_sdxl.py": Script("sdxl", "lora", dreambooth_lora_xl, batch_size=4),
}
