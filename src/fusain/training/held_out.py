"""The held-out loss: the same images, times and noises at every measurement, so that its curve means something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusain.data.batch import Batch
from fusain.models.family import Family
from fusain.training.engine import Engine
from fusain.training.method import Method

QUANTILES = 8
"""Times are the middles of this many equal parts of the noise schedule, dealt out to the images in turn."""
NOISE_SEED = 0


def held_out_loss(family: Family, method: Method, batches: Sequence[Batch], engine: Engine) -> float:
    """The mean over all images; the seed of the run has no part in it, so runs can be compared.

    One process measures and tells the others: what follows from it must be the same everywhere. What is split over all
    is run by all.
    """
    if engine.shard:
        return engine.team.gathered(_measured(family, method, batches, engine))[0]
    return engine.team.firsts(lambda: _measured(family, method, batches, engine))


def _measured(family: Family, method: Method, batches: Sequence[Batch], engine: Engine) -> float:
    total = count = 0.0
    for batch in batches:
        quantiles = (batch.draws % QUANTILES + 0.5) / QUANTILES
        with engine.accelerator.autocast():
            loss = method.loss(family, batch.to(engine.device), seed=NOISE_SEED, quantiles=np.asarray(quantiles))
        total += float(loss.images_B.sum())
        count += len(batch)
    return total / count
