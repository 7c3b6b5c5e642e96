"""The peak memory of a step from shapes alone: a step of the real code on tensors without numbers, every one counted.

Weights are made on the `meta` device and then pretend to lie on a CPU, so that autocast and the attention behave as
they do there. The autocast of a GPU computes norms in fp32 besides, which is imitated.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusain.data.batch import Batch
from fusain.data.dataset import Dataset
from fusain.models.family import Family
from fusain.runs import encoding
from fusain.runs.assembly import Learner
from fusain.runs.settings import RunSettings
from fusain.training import rounding, sharding
from fusain.training.optimizers import bytes_remembered


@dataclass(frozen=True)
class Forecast:
    """Bytes on the device of a run, at the peak of a step."""

    weights: int
    """Of the base and of what learns beside it."""
    gradients: int
    optimizer: int
    average: int
    """Of the weights; on a GPU run it lies in the machine's memory and counts nothing here."""
    activations: int
    """All else that lives at the peak: activations, and copies of weights in fewer bits."""

    @property
    def peak(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that live, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor):
                self.hold(one)
        return made

    def hold(self, tensor: torch.Tensor) -> None:
        """From now on until nothing has it any more; views of one memory count once."""
        storage = tensor.untyped_storage()
        key, count = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            self.now -= count
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.now += count
        self.peak = max(self.peak, self.now)


def of_a_step(settings: RunSettings, dataset: Dataset, learner: Learner) -> Forecast:
    """What a step needs at its peak. The learner lies on `meta`, what learns was chosen, and it is of no use after."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    family, train = learner.family, settings.train
    in_few_bits = settings.engine.weights == "bf16"
    if in_few_bits:
        rounding.narrow(one for one in family.network.parameters() if one.requires_grad)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.device("cpu"):
        _pretend(family, mode)
        if _on_gpu(settings):
            _norms_in_full(family.network)
        few = iter([_largest_batch(settings, dataset, family)])
        (batch,) = encoding.as_stored(family, learner.method, dataset, few)
        network, held = family.network.train(), Held()
        learning = [one for one in network.parameters() if one.requires_grad]
        with held:
            for one in _tensors(family):
                held.hold(one)
            weights = held.now
            _backward(settings, learner, batch, learning)
    counts = [one.numel() * one.element_size() for one in learning]
    gradients = sum(sorted(counts)[-2:] if train.fused_backward else counts)
    if in_few_bits:
        gradients += 4 * max(counts)  # the one that moves and its gradient, in full
    exchanged = sum(counts) if settings.engine.processes > 1 else 0  # PyTorch sums them up in copies
    peak = max(held.peak, weights + gradients)
    has_average = bool(train.ema_decay) and not train.is_schedule_free and not _on_gpu(settings)
    found = Forecast(
        weights=weights,
        gradients=gradients + exchanged,
        optimizer=bytes_remembered(train.optimizer, [one.shape for one in learning]),
        average=4 * sum(one.numel() for one in learning) if has_average else 0,
        activations=peak - weights - gradients,
    )
    return _split(found, settings, network) if settings.engine.shard else found


def _split(found: Forecast, settings: RunSettings, network: torch.nn.Module) -> Forecast:
    """What one process holds of it: its own part, and what is brought together for the block that is at work.

    Of that block there are the weights, those that the next one is sent ahead, and copies for the exchange.
    """
    weights, gradients = found.weights, 0
    own = partial(sharding.share, processes=settings.engine.processes)
    for part in sharding.learning_parts(network):
        *blocks, outside = sharding.groups(part)
        weights += _bytes(outside) + 3 * max(map(_bytes, blocks), default=0)
        gradients += _bytes(_learning(outside)) + 2 * max((_bytes(_learning(block)) for block in blocks), default=0)
    split = [one for part in sharding.learning_parts(network) for one in part.parameters()]
    weights += sum(own(one.shape).numel() * one.element_size() for one in split) - _bytes(split)
    shapes = [own(one.shape) for one in _learning(split)]
    numbers = sum(shape.numel() for shape in shapes)
    return replace(
        found,
        weights=weights,
        gradients=4 * numbers + gradients,
        optimizer=bytes_remembered(settings.train.optimizer, shapes),
        average=4 * numbers if found.average else 0,
    )


def _learning(weights: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    return [one for one in weights if one.requires_grad]


def _bytes(weights: list[torch.nn.Parameter]) -> int:
    return sum(one.numel() * one.element_size() for one in weights)


def _on_gpu(settings: RunSettings) -> bool:
    return settings.engine.device.partition(":")[0] != "cpu"


def _backward(settings: RunSettings, learner: Learner, batch: Batch, learning: list[torch.nn.Parameter]) -> None:
    """As the loop does it; twice where gradients of a batch wait for those of the next."""
    if settings.train.fused_backward:
        for parameter in learning:
            parameter.register_post_accumulate_grad_hook(_give_back)  # type: ignore[no-untyped-call]
    for _ in range(min(2, settings.train.accumulation)):
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.engine.precision != "fp32"):
            loss = learner.method.loss(learner.family, batch, seed=settings.train.seed)
        torch.autograd.backward(loss.value)
        del loss


def _give_back(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _tensors(family: Family) -> Iterator[torch.Tensor]:
    for module in (family.network, *family.beside()):
        yield from module.parameters()
        yield from module.buffers()


def _pretend(family: Family, mode: Any) -> None:
    """Tensors without numbers that say that they lie on a CPU, in place of those of the `meta` device."""
    made: dict[int, torch.Tensor] = {}

    def pretended(one: torch.Tensor) -> torch.Tensor:
        if id(one) not in made:
            made[id(one)] = mode.fake_tensor_converter.from_meta_and_device(mode, one.detach(), torch.device("cpu"))
            if isinstance(one, torch.nn.Parameter):
                made[id(one)] = torch.nn.Parameter(made[id(one)], requires_grad=one.requires_grad)
        return made[id(one)]

    for network in (family.network, *family.beside()):
        for module in network.modules():
            for held in (module._parameters, module._buffers):
                for name, one in list(held.items()):
                    if one is not None and one.device.type == "meta":
                        held[name] = pretended(one)  # type: ignore[assignment]


def _norms_in_full(network: torch.nn.Module) -> None:
    """As the autocast of a GPU has it, and that of a CPU has not."""

    def widen(module: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0].float(), *given[1:]) if torch.is_autocast_enabled("cpu") else given

    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
            module.register_forward_pre_hook(widen)


def _largest_batch(settings: RunSettings, dataset: Dataset, family: Family) -> Batch:
    """Empty images in the largest shape of the data."""
    count, shapes = settings.largest_share, dataset.shapes
    height, width = shapes[int(np.argmax(shapes[:, 0] * shapes[:, 1]))].tolist()
    numbers, classes = np.arange(count), len(dataset.classes)
    said = None if dataset.captions is None else ("",) * count
    labels_BK = torch.zeros(count, classes) if classes and family.condition == "class" else None
    return Batch(numbers, numbers, torch.zeros(count, 3, height, width), torch.ones(count), labels_BK, said)
