"""What a judgement is made from: image sets and what reads them, with everything derived from them computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fusain.evaluation.neighbours import Neighbours, nearest

Images = npt.NDArray[np.uint8]
"""N x H x W x 3."""
Reader = Callable[[Images], npt.NDArray[np.float32]]
"""Images to one row of numbers each."""

NEIGHBOURS = 50
"""How many of the nearest training images say how crowded a place is."""


@dataclass(frozen=True)
class ImageSet:
    """Some images with what is known of them."""

    images: Images
    labels: npt.NDArray[np.int64] | None = None
    """The class of each image; of generated ones the class that was asked for."""
    names: tuple[str, ...] = ()
    """What each image is called in the report."""

    def __len__(self) -> int:
        return len(self.images)

    def name(self, row: int) -> str:
        return self.names[row] if self.names else f"image {row + 1}"


@dataclass(frozen=True)
class Evidence:
    """All that metrics may ask for; what is None was not to be had, and metrics that need it are left out."""

    generated: ImageSet
    held_out: ImageSet | None = None
    training: ImageSet | None = None
    classes: tuple[str, ...] = ()
    """The names of the classes, in the order of the labels."""
    classify: Reader | None = None
    """Images to probabilities N x K, by a judge that had no part in the training."""
    features: Reader | None = None
    """Images to features N x d, in which near means alike."""

    def has(self, need: str) -> bool:
        """Whether a need of a metric is met: a field of this record, or `labels` for the generated images' classes."""
        if need == "labels":
            return self.generated.labels is not None and bool(self.classes)
        field = getattr(self, need)
        return field is not None and (not isinstance(field, ImageSet) or len(field) > 0)

    @cached_property
    def generated_features(self) -> npt.NDArray[np.float32]:
        return self._read(self.features, self.generated)

    @cached_property
    def held_out_features(self) -> npt.NDArray[np.float32]:
        return self._read(self.features, self.held_out)

    @cached_property
    def generated_probabilities(self) -> npt.NDArray[np.float32]:
        return self._read(self.classify, self.generated)

    @cached_property
    def held_out_probabilities(self) -> npt.NDArray[np.float32]:
        return self._read(self.classify, self.held_out)

    @cached_property
    def generated_neighbours(self) -> Neighbours:
        """The nearest training images of each generated one, in pixels."""
        return self._nearest(self.generated)

    @cached_property
    def held_out_neighbours(self) -> Neighbours:
        return self._nearest(self.held_out)

    def _read(self, reader: Reader | None, images: ImageSet | None) -> npt.NDArray[np.float32]:
        assert reader is not None, "a metric must name what it needs"
        assert images is not None, "a metric must name what it needs"
        return reader(images.images)

    def _nearest(self, images: ImageSet | None) -> Neighbours:
        assert images is not None, "a metric must name what it needs"
        assert self.training is not None, "a metric must name what it needs"
        return nearest(images.images, self.training.images, count=NEIGHBOURS)
