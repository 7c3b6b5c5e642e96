"""Where and how the arithmetic runs: device, precision and threads, each `auto` resolved once and written down."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field

from fusain.data.cores import usable_cores
from fusain.errors import EnvironmentFault, SettingsError
from fusain.models.family import Family
from fusain.models.packed import Bits
from fusain.settings.section import Section, basic
from fusain.training import rounding, sharding
from fusain.training.team import Team

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class EngineSettings(Section):
    """The machine that a run uses."""

    device: str = basic("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU where there is one."""
    precision: Precision = basic("auto")
    """Arithmetic of the forward pass. `auto` takes bf16 where the hardware has it or `weights` ask for it, else fp32;
    fp16 needs a GPU."""
    threads: int | Literal["auto"] = Field("auto", union_mode="left_to_right")
    """CPU threads. Results are equal to the last bit at one count only."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: about half the memory of a step for a third more time."""
    base_bits: Bits = 32
    """Bits of each number of the base's denoiser, where a method leaves it as it is: 16 loses nothing of most bases, 8
    next to nothing, 4 some. What is saved fits the whole base, and `generate` draws with that."""
    weights: Literal["fp32", "bf16"] = "fp32"
    """What weights that learn are kept in, where a method changes the base. bf16 takes half the room, and each step is
    rounded up or down by chance, so that small ones count in the mean. It wants `train.fused_backward`."""
    compile: Literal["auto", "on", "off"] = "off"
    """Have PyTorch compile the denoiser: on GPUs steps may be faster, after a minute or more for each shape of images.
    `auto` measures both and takes what makes this run shorter."""
    channels_last: Literal["auto", "on", "off"] = "off"
    """How images lie in memory within the denoiser. Recent GPUs convolve them faster with the channels last, CPUs not;
    `auto` is on for convolutions on an NVIDIA GPU."""
    processes: int = Field(1, ge=1, le=1024)
    """Processes that share each batch, on a GPU each. On a CPU they gain little: threads do the same there."""
    shard: bool = False
    """Split weights, gradients and what the optimizer remembers over the processes (FSDP2), in place of all in each:
    for models that leave no room on one GPU. Slower."""

    def faults(self) -> Iterator[SettingsError]:
        if self.shard and self.processes == 1:
            yield SettingsError("E-SHARD-001", where="engine.shard")
        if self.shard and self.compile != "off":
            yield SettingsError("E-SHARD-002", where="engine.shard", compile=self.compile)
        if self.shard and self.base_bits != 32:
            yield SettingsError("E-SHARD-003", where="engine.shard", bits=self.base_bits)
        if self.shard and self.precision == "fp16":
            yield SettingsError("E-SHARD-004", where="engine.shard")
        if self.processes > 1 and self.device not in ("auto", "cpu", "cuda"):
            yield SettingsError("E-CFG-035", where="engine.processes", processes=self.processes, device=self.device)


@dataclass(frozen=True)
class Engine:
    """The resolved engine."""

    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]
    threads: int
    accelerator: Any
    team: Team = field(default_factory=Team)
    shard: bool = False
    weights: Literal["fp32", "bf16"] = "fp32"

    def brought(self, family: Family, learning: dict[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
        """All on the device, and what learns as this process keeps it: in few bits, or of what is split its own part.

        In few bits first: in full there may be no room for it.
        """
        if self.weights == "bf16":
            rounding.narrow(learning.values())
        family.to(self.device)
        if not self.shard:
            return learning
        return sharding.split(family.network, learning, device=self.device.type, processes=self.team.size)

    def drawing(self) -> contextlib.AbstractContextManager[Any]:
        """Around drawing from the network as it trains: narrow weights meet what is in full as in a step."""
        is_narrow = self.weights == "bf16"
        return self.accelerator.autocast() if is_narrow else contextlib.nullcontext()

    def wrapped(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network in the precision of the run, with the sum of gradients over all processes in its backward pass.

        One that is split sums them by itself.
        """
        wrapped: torch.nn.Module = self.accelerator.prepare_model(network, evaluation_mode=self.shard)
        return wrapped

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Tensors as they are saved; of what is split whole ones in the first process, and all must come."""
        return sharding.gathered(tensors, keep=self.team.is_first) if self.shard else tensors

    def brought_together(self, network: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within, the first process holds a network whole that is split; all must come."""
        here = self.team.is_first
        return sharding.brought_together(network, here=here) if self.shard else contextlib.nullcontext()

    def summed(self, network: torch.nn.Module, *, at_once: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a forward pass: whether the gradients of all processes are summed in its backward pass."""
        return (
            contextlib.nullcontext()
            if at_once or self.shard or self.team.size == 1  # split gradients take less room than whole ones that wait
            else self.accelerator.no_sync(network)
        )

    def wrapped_again(self, network: torch.nn.Module) -> torch.nn.Module:
        """The wrapper of a network of which other parts learn now: it sums the gradients of those that it found."""
        if self.team.size == 1 or self.shard:
            return network
        bare = self.accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        self.accelerator._models.clear()  # accelerate has no other way to let one wrapper go and keep the optimizer
        del network
        gc.collect()  # the hooks of the old one
        wrapped: torch.nn.Module = self.accelerator.prepare_model(bare)
        return wrapped


def resolve(settings: EngineSettings, *, here: bool = True) -> EngineSettings:
    """`auto` values as what they mean on this machine, and what it lacks is an error; or on one that has the device."""
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if here and device.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentFault("E-ENV-002", where="engine.device", device=device, built=torch.version.cuda or "no CUDA")
    if here and device == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentFault("E-ENV-003", where="engine.device")
    kind = device.partition(":")[0]
    if settings.precision == "fp16" and kind == "cpu":
        raise EnvironmentFault("E-ENV-004", where="engine.precision")
    precision = settings.precision
    if precision == "auto":
        has_it = has_bf16(kind) if here or kind == "cpu" else kind == "cuda"
        precision = "bf16" if has_it or settings.weights == "bf16" else "fp32"
    if here and precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise EnvironmentFault("E-ENV-005", where="engine.precision", device=torch.cuda.get_device_name())
    gpus = torch.cuda.device_count()
    if here and kind == "cuda" and settings.processes > gpus:
        raise EnvironmentFault("E-ENV-009", where="engine.processes", processes=settings.processes, gpus=gpus)
    threads = settings.threads if settings.threads != "auto" else max(1, usable_cores() // settings.processes)
    return settings.model_copy(update={"device": device, "precision": precision, "threads": threads})


def has_bf16(kind: str) -> bool:
    """Whether the hardware itself multiplies in bf16; emulated bf16 is slower than fp32."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def start(settings: EngineSettings, team: Team | None = None) -> Engine:
    """An engine from resolved settings; without a team for this process alone."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    assert settings.threads != "auto", "engine settings are resolved before they are started"
    assert settings.precision != "auto"
    team = team or Team()
    device = torch.device(settings.device)
    if team.size > 1 and device.type == "cuda":
        device = torch.device("cuda", team.rank)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # else a second run in one process keeps the first precision
    mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[settings.precision]
    # Clip skip leaves layers unused; no buffer of ours changes, and the first process measures and draws by itself.
    wrapper = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)  # accelerate's only way
    with _as_accelerate_reads_it(team):
        if team.size > 1:
            team.meet(device.type)
        accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu", kwargs_handlers=[wrapper])
    torch.set_num_threads(settings.threads)  # last, for accelerate sets a number of its own
    shard = settings.shard and team.size > 1
    return Engine(device, settings.precision, settings.threads, accelerator, team, shard, settings.weights)


@contextlib.contextmanager
def _as_accelerate_reads_it(team: Team) -> Iterator[None]:
    """Within, the environment says of the team what a launcher would have said."""
    from accelerate.utils import patch_environment

    if team.size == 1:
        yield
        return
    rank, size = str(team.rank), str(team.size)
    place = {"master_addr": "127.0.0.1", "master_port": "0", "omp_num_threads": "1"}
    with patch_environment(rank=rank, local_rank=rank, world_size=size, local_world_size=size, **place):
        yield


def give_back() -> None:
    """The memory of what nobody has any more: hooks hold networks in circles, and PyTorch keeps a GPU's for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def stop() -> None:
    """The end of a team in this process."""
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
