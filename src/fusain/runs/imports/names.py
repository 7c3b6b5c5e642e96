"""What other tools call optimizers and samplers, and the details that belong to some of them only."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, Final

from fusain.generation.samplers import ELSEWHERE
from fusain.runs.imports.account import Account, To, chosen

EIGHT_BIT: Final = "with full-sized states, which need more memory and learn alike"
_OWN_RATE: Final = "it learns at train.learning_rate, never at a rate of its own"
OPTIMIZER: Final = chosen(
    "train.optimizer",
    same={
        "adamw8bit": "adamw_8bit",
        "pagedadamw": "paged_adamw",
        "pagedadamw32bit": "paged_adamw",
        "pagedadamw8bit": "paged_adamw_8bit",
        "adamwschedulefree": "schedule_free_adamw",
    },
    near={
        "adafactor": ("adafactor", _OWN_RATE),
        "adam8bit": ("adam", EIGHT_BIT),
        "adam_8bit": ("adam", EIGHT_BIT),
        "lion8bit": ("lion", EIGHT_BIT),
        "lion_8bit": ("lion", EIGHT_BIT),
        "pagedlion8bit": ("lion", EIGHT_BIT),
    },
)
SAMPLER: Final = chosen(
    "samples.sampler", same={**ELSEWHERE, **{name.replace("-", "_"): ours for name, ours in ELSEWHERE.items()}}
)
_ALIKE: Final = ("betas", "eps")
"""Options that mean the same wherever they exist."""
_WITH_THEM: Final = ("adam", "adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "schedule_free_adamw", "prodigy")
OPTION: Final = "set it in train.optimizer_options, by the name that it has there"


def take_option(account: Account, key: str, name: str, value: Any) -> None:
    """An optimizer's own option; names of others than those that are alike everywhere differ between packages."""
    if name not in _ALIKE or account.settings.get("train.optimizer") not in _WITH_THEM:
        account.lost(key, value, OPTION)
        return
    try:
        parsed = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        account.lost(key, value, OPTION)
        return
    target = "train.optimizer_options"
    result = list(parsed) if isinstance(parsed, tuple) else parsed
    account.put(key, value, target, {**account.settings.get(target, {}), name: result})


def take_bits(account: Account, key: str, value: Any, bits: int) -> None:
    """A base in fewer bits, which there is where a method leaves it as it is; 0 where it is whole."""
    if not bits:
        account.needless(key, value, "it is off")
    elif account.settings.get("method.kind") in ("lora", "textual_inversion"):
        account.put(key, value, "engine.base_bits", bits, "packed in Fusain's own way")
    else:
        account.lost(key, value, "all weights learn, and only such as stay as they are can be packed")


def take_narrow_weights(account: Account, key: str, value: Any) -> None:
    """Weights that learn in bf16, with the setting that they need; where that does not fit, what to change."""
    if account.settings.get("method.kind") in ("lora", "textual_inversion"):
        account.needless(key, value, "what learns is small and stays in fp32; the base stays as it is")
        return
    unfit = [name for name, able in _FUSED.items() if account.settings.get(name, able[0]) not in able]
    if unfit:
        named = ", ".join(f"{name} = {account.settings[name]}" for name in unfit)
        why = f"weights learn in fp32: engine.weights = bf16 does not go with {named}"
        account.lost(key, value, why)
        return
    account.put(key, value, "engine.weights", "bf16", "each step is rounded up or down by chance")
    if account.settings.get("train.fused_backward") is False:
        account.withdraw("train.fused_backward", "weights in bf16 need it on")
    account.assume("train.fused_backward", True, "weights in bf16 need it")


_FUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "train.accumulation": (1,),
    "engine.precision": ("auto", "bf16"),
    "engine.compile": ("off",),
}
"""What weights in bf16, which move one after the other in the backward pass, go with."""


def take_detail(
    account: Account, flat: Mapping[str, Any], key: str, schedule: str, rule: tuple[str, Callable[[Any], Any]]
) -> None:
    """A number that only one schedule reads; those tools count 1 where it is left out."""
    target, convert = rule
    if account.settings.get("train.schedule") != schedule:
        if key in flat:
            account.needless(key, flat[key], "it belongs to another schedule")
    elif flat.get(key):
        account.take({key: flat[key]}, {key: To(target, convert)})
    else:
        if key in flat:
            account.needless(key, flat[key], "it is empty")
        account.assume(target, convert(1), f"what that tool does where there is no {key}")
