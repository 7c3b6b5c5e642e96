"""The table of optimizers; each is imported only where it is chosen."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import torch
from pydantic import StringConstraints

from fusain.errors import EnvironmentFault, SettingsError
from fusain.settings.notice import Notice
from fusain.settings.section import Section, advanced
from fusain.training.paces import Paces, PartSettings, paces

if TYPE_CHECKING:
    from fusain.training.trainer import TrainSettings

OptimizerName = Literal[
    "adam",
    "adamw",
    "lion",
    "muon",
    "adafactor",
    "came",
    "prodigy",
    "schedule_free_adamw",
    "adamw_8bit",
    "paged_adamw",
    "paged_adamw_8bit",
]
OTHERS: Final = "pytorch_optimizer"
"""The package of which any optimizer may be named: well kept, and with nothing but torch and numpy below it. It also
brings CAME, Prodigy and schedule-free AdamW, so that one package does for all. Adafactor comes with transformers."""
OtherName = Annotated[str, StringConstraints(pattern=rf"^{OTHERS}\.[A-Za-z]\w*$")]
EXTRAS: Final = {OTHERS: "optimizers", "bitsandbytes": "gpu"}
"""What of Fusain's extras brings a package."""


class OptimizerSettings(Section):
    """What moves the weights."""

    optimizer: OptimizerName | OtherName = "adamw"
    """`adamw` is safe; `muon` brings fresh weights far in few steps; `lion` wants a third to a tenth of the rate;
    `prodigy` finds the rate itself (give 1); `adafactor` and those in 8 bit need less memory. Or any of
    pytorch_optimizer, such as `pytorch_optimizer.ADOPT`."""
    optimizer_options: dict[str, Any] = advanced({})
    """The optimizer's own options by their names there, as in { betas = [0.9, 0.99], eps = 1e-6 }."""
    weight_decay: float = advanced(0.01, ge=0, le=1)
    """Pulls weights towards zero; 0.0001 to 0.01."""
    fused_backward: bool = advanced(False)
    """Move each weight as soon as its gradient is there, and give the gradient back: the memory of all gradients is
    saved. `train.clip_norm` then holds for each weight by itself."""

    @property
    def is_schedule_free(self) -> bool:
        """Whether it averages its steps in place of a schedule."""
        return "schedulefree" in self.optimizer.lower().replace("_", "")

    def silent_settings(self) -> dict[str, str]:
        own = f'the optimizer keeps an average of its own (train.optimizer = "{self.optimizer}")'
        return {"ema_decay": own} if self.is_schedule_free else {}

    def notices(self) -> Iterable[Notice]:
        if self.fused_backward:
            yield Notice("W-FUSE-001", where="train.fused_backward")


@dataclass(frozen=True)
class Kind:
    """What is known of an optimizer before it is imported."""

    path: str
    states: float
    """Numbers in fp32 that it keeps for each weight, at most."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Its options where they are not its own defaults."""
    pace: tuple[float, float] | None = (1, 1)
    """By what the lowest and the highest usual rate of AdamW are multiplied for it; None where nothing is known."""
    on: str = ""
    """The only kind of device on which it runs."""
    factored: tuple[int, int] | None = None
    """Where it makes rows and columns of matrices: how many of its memories are whole, and how many so."""
    each_alone: bool = False
    """Whether it looks at each number of a weight alone, so that processes may share the weight out."""

    @property
    def package(self) -> str:
        return self.path.partition(".")[0]

    @property
    def needs(self) -> tuple[str, ...]:
        """The packages that must be there; one of Fusain's own modules may stand on another."""
        return (OTHERS,) if self.path == _PRODIGY else (self.package,)


_PRODIGY: Final = "fusain.training.prodigy.Prodigy"
# One kernel over all weights: a third of the plain step's time.
_FUSED: Final = {"fused": True}
# The learning rate is the user's, as everywhere else, and no second one is hidden in it.
_OWN_RATE_ONLY: Final = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
# As diffusers' own scripts have it: without these the first steps and a warm-up spoil the distance that it finds.
_STEADY: Final = {"betas": (0.9, 0.99), "bias_correction": True, "safeguard_warmup": True}

KINDS: Final[Mapping[str, Kind]] = {
    "adam": Kind("torch.optim.Adam", 2, _FUSED, each_alone=True),
    "adamw": Kind("torch.optim.AdamW", 2, _FUSED, each_alone=True),
    "lion": Kind("fusain.training.lion.Lion", 1, pace=(1 / 10, 1 / 3), each_alone=True),
    "muon": Kind("fusain.training.muon.Muon", 1),
    "adafactor": Kind("transformers.optimization.Adafactor", 0.7, _OWN_RATE_ONLY, factored=(0, 1)),
    "came": Kind(f"{OTHERS}.CAME", 2.4, pace=(1 / 10, 1), factored=(1, 2)),
    "prodigy": Kind(_PRODIGY, 4, _STEADY, pace=None),
    "schedule_free_adamw": Kind(f"{OTHERS}.ScheduleFreeAdamW", 2, pace=(1, 10)),
    "adamw_8bit": Kind("bitsandbytes.optim.AdamW8bit", 0.53),
    "paged_adamw": Kind("bitsandbytes.optim.PagedAdamW", 2, on="cuda"),
    "paged_adamw_8bit": Kind("bitsandbytes.optim.PagedAdamW8bit", 0.53, on="cuda"),
}
OURS: Final = frozenset({"params", "named", "paces", "lr", "weight_decay"})
"""What an optimizer takes that is no option of its own: Fusain's settings say it."""


def kind_of(name: str) -> Kind:
    """What is known of an optimizer by its name; of one of another package little."""
    return KINDS.get(name) or Kind(name, 2, pace=None)


def bytes_remembered(name: str, shapes: Sequence[torch.Size]) -> int:
    """What an optimizer keeps of weights of these shapes."""
    kind = kind_of(name)
    if kind.factored is None:
        return round(4 * kind.states * sum(shape.numel() for shape in shapes))
    whole, factored = kind.factored
    numbers = 0
    for shape in shapes:
        rows, columns = shape[:-1].numel(), (*shape[:-2], *shape[-1:]) if len(shape) > 1 else ()
        numbers += whole * shape.numel()
        numbers += factored * (rows + torch.Size(columns).numel()) if columns else shape.numel()
    return 4 * numbers


def require(name: str, device: str) -> None:
    """Tell what is missing before anything else is done."""
    kind = kind_of(name)
    for package in kind.needs:
        if find_spec(package) is None:
            extra = EXTRAS.get(package, "")
            raise EnvironmentFault("E-ENV-007", where="train.optimizer", optimizer=name, package=package, extra=extra)
    if kind.on and device.partition(":")[0] != kind.on:
        raise EnvironmentFault("E-ENV-008", where="train.optimizer", optimizer=name, device=device)


def optimizer_of(
    train: TrainSettings, parameters: Mapping[str, torch.nn.Parameter], factors: Mapping[str, float]
) -> torch.optim.Optimizer:
    """The optimizer of a run, as its settings have it."""
    return make_optimizer(
        train.optimizer,
        parameters,
        factors,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        options=train.optimizer_options,
        parts=train.parts,
    )


def make_optimizer(
    name: str,
    parameters: Mapping[str, torch.nn.Parameter],
    factors: Mapping[str, float] | None = None,
    *,
    learning_rate: float,
    weight_decay: float,
    options: Mapping[str, Any] | None = None,
    parts: Sequence[PartSettings] = (),
) -> torch.optim.Optimizer:
    """A fresh optimizer over all parameters that learn; those of one pace are a group, which keeps its factor."""
    kind = kind_of(name)
    made = _import(name, kind)
    wanted = {**kind.options, **_read(name, made, options or {})}
    own = paces(parameters, factors or {}, parts, learning_rate=learning_rate, weight_decay=weight_decay)
    if "named" in inspect.signature(made).parameters:  # one to which not all weights are alike
        return _made(name, made, parameters, wanted, lr=learning_rate, weight_decay=weight_decay, paces=own)
    return _made(name, made, list(_groups(parameters, own)), wanted, lr=learning_rate, weight_decay=weight_decay)


def _groups(parameters: Mapping[str, torch.nn.Parameter], own: Paces) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        groups[own[name]["factor"], own[name]["weight_decay"]].append(parameter)
    for (factor, weight_decay), group in groups.items():
        yield {"params": group, "factor": factor, "weight_decay": weight_decay}


def _import(name: str, kind: Kind) -> type[torch.optim.Optimizer]:
    module, _, attribute = kind.path.rpartition(".")
    holder = importlib.import_module(module)
    found = getattr(holder, attribute, None)
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        return found
    known = [one for one, made in vars(holder).items() if isinstance(made, type) and _is_optimizer(made)]
    near = (difflib.get_close_matches(attribute, known, n=1, cutoff=0) or known)[0]
    facts: dict[str, Any] = {"package": module, "nearest": f"{module}.{near}"}
    raise SettingsError("E-TRAIN-005", where="train.optimizer", optimizer=name, **facts)


def _is_optimizer(made: type) -> bool:
    return issubclass(made, torch.optim.Optimizer) and made is not torch.optim.Optimizer


def _read(name: str, made: type[torch.optim.Optimizer], options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's options; one that the optimizer does not know is a mistake. Lists are meant as tuples."""
    known = [one for one in taken(made) if one not in OURS]
    for option in options:
        if option not in known:
            near = [*difflib.get_close_matches(option, known, n=1, cutoff=0.5), *known, "none"][0]
            facts: dict[str, Any] = {"option": option, "nearest": near, "known": ", ".join(known) or "none"}
            raise SettingsError("E-TRAIN-006", where="train.optimizer_options", optimizer=name, **facts)
    return {option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}


def taken(made: type[torch.optim.Optimizer]) -> list[str]:
    """The names of what an optimizer takes: its settings. All else in its groups is memory."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in inspect.signature(made).parameters.values() if one.kind in kinds]


def _made(
    name: str, made: type[torch.optim.Optimizer], learning: Any, options: Mapping[str, Any], **settings: Any
) -> torch.optim.Optimizer:
    try:
        return made(learning, **settings, **options)
    except (TypeError, ValueError, AssertionError) as fault:
        shown = ", ".join(f"{option} = {value}" for option, value in options.items()) or "no options"
        raise SettingsError(
            "E-TRAIN-007", where="train.optimizer_options", optimizer=name, options=shown, fault=str(fault).rstrip(".")
        ) from fault
