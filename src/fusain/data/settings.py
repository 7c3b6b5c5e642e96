"""The settings of the data: where the images are and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import field_validator

import fusain.data.sources
from fusain.data.captions import CaptionSettings
from fusain.data.class_images import ClassImageSettings
from fusain.data.fitting import Crop
from fusain.data.masks import MaskSettings
from fusain.data.order import Balance
from fusain.data.shapes import Shapes
from fusain.data.source import Source
from fusain.data.subjects import SubjectSettings
from fusain.errors import SettingsError
from fusain.plugins import find
from fusain.settings.section import Section, advanced, basic


def kinds() -> dict[str, type[Source]]:
    """The sources by kind, in the order in which `auto` asks them."""
    found = find(fusain.data.sources, Source)
    return dict(sorted(found.items(), key=lambda pair: (pair[1].rank, pair[0])))


WITH_BUCKETS: Final[dict[str, Any]] = {"only_when": {"buckets": True}}


class DataSettings(Section):
    """Where the images come from and how they are drawn."""

    path: Path = basic()
    """A folder of images, one with a folder a class, `.npy` arrays, Parquet; with `kind = "datasets"` also a hub id."""
    kind: str = advanced("auto")
    """How the path is read: `images`, `classes`, `kohya`, `arrays`, `metadata`, `datasets`; `auto` looks."""
    labels_path: Path | None = advanced(None)
    """The labels that belong to a single `.npy` file of images. In a folder of two arrays they are found."""
    caption_column: str | None = advanced(None, min_length=1)
    """The column of a metadata file or a data set that holds the captions. Without it, `text` or `caption`."""
    image_column: str | None = advanced(None, min_length=1)
    """The column of a data set that holds the images. Without it, the only one that does."""
    revision: str | None = advanced(None, min_length=1)
    """Branch, tag or commit of a data set of the hub. A run keeps the commit that it began with."""
    streaming: bool = advanced(False)
    """Read Parquet files while it trains, window by window, here or from the hub: for sets beyond the disk."""
    stream_window: int = advanced(1_024, ge=1, le=1_000_000, json_schema_extra={"only_when": {"streaming": True}})
    """Images of a window, which are shuffled; so are the groups of rows that windows are filled with. Two windows
    are held in memory, each of at most half of `memory_gb`."""
    captions: CaptionSettings = CaptionSettings()
    subject: SubjectSettings = SubjectSettings()
    class_images: ClassImageSettings = ClassImageSettings()
    masks: MaskSettings = MaskSettings()
    balance: Balance = basic("none")
    """How classes are drawn: as they come (`none`), `equal`, by `complement` (1 - n/N an image) or by `weights`."""
    class_weights: dict[str, float] = advanced(default_factory=dict)
    """The share of each class for `balance = "weights"`, as in { cat = 2, dog = 1 }. Every class needs one."""
    repeats: int = advanced(1, ge=1, le=100_000)
    """How often an epoch uses each image. For a handful of images 10 to 100 makes epochs of a usable length."""
    held_out: Literal["auto", "none"] | int | float = advanced("auto", union_mode="left_to_right")
    """Images set aside to measure on: `auto` (5 %, at most 2,000), `none`, a share (0.1) or a count (500)."""
    crop: Crop = basic("center")
    """Which part of an image is used. `random` shows all of it in time, but may cut the subject."""
    buckets: bool = basic(False)
    """Learn wide and tall images in shapes near their own, not as squares cut from them. Each batch has one shape."""
    bucket_aspect: float = advanced(2.0, ge=1, le=8, json_schema_extra=WITH_BUCKETS)
    """Longest bucket, as longer side by shorter side; what is longer is cropped."""
    max_upscale: float = advanced(1.0, ge=1, le=8, json_schema_extra=WITH_BUCKETS)
    """How far an image may be enlarged for a bucket. At 1 small ones go to smaller buckets; tiny ones are put aside."""
    small: Literal["enlarge", "skip"] = advanced("enlarge", json_schema_extra={"only_when": {"buckets": False}})
    """What happens to images smaller than `family.size`: they are enlarged, which makes them soft, or put aside."""
    flip: bool = basic(False)
    """Mirror half of the draws. Good for small sets; wrong for text, and for anything with a left and a right."""
    cache: Literal["auto", "none"] = advanced("auto")
    """Encode images and captions once, where nothing changes them later, and keep that on disk for every run."""
    workers: int = advanced(0, ge=0, le=256)
    """Processes that decode ahead. 0 suits images held in memory; 2 to 8 keep a GPU busy with large files. With
    `streaming` any number but 0 fetches the next window ahead."""
    max_pixels: int = advanced(100_000_000, ge=1)
    """Larger images are put aside before they are decoded, for they could fill the memory."""
    max_quarantined: float = advanced(0.1, ge=0, le=1)
    """Share of broken images above which nothing is trained: then more is wrong than a few files."""
    memory_gb: float = advanced(2.0, ge=0)
    """Images are held decoded in memory when they need no more than this; else each is read when it is drawn."""

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        if kind != "auto" and kind not in kinds():
            raise ValueError(f"'{kind}' is no kind of source; known are auto, {', '.join(kinds())}")
        return kind

    @field_validator("held_out")
    @classmethod
    def _held_out_is_a_part(cls, held_out: str | int | float) -> str | int | float:
        if not isinstance(held_out, str) and (held_out < 0 or (held_out > 1 and held_out != int(held_out))):
            raise ValueError(f"{held_out} is neither a share below 1 nor a whole number of images")
        return held_out

    @field_validator("class_weights")
    @classmethod
    def _weights_are_positive(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"the weight of '{name}' is {weight:g}, which is below 0")
        return weights

    def shapes(self, size: int, multiple: int) -> Shapes:
        """The rule for the shape of each image."""
        return Shapes(
            size, multiple, self.bucket_aspect if self.buckets else None, self.max_upscale, self.small == "skip"
        )

    def silent_settings(self) -> Mapping[str, str]:
        silent = {}
        if self.class_weights and self.balance != "weights":
            silent["class_weights"] = f"data.balance is '{self.balance}'; set it to 'weights'"
        if self.revision and self.kind != "datasets":
            silent["revision"] = 'only data sets of the hub have one, with data.kind = "datasets"'
        if self.streaming:
            silent["cache"] = "nothing of a stream is kept (data.streaming = true)"
        return silent

    def faults(self) -> Iterator[SettingsError]:
        """What would need all images of a stream at hand."""
        is_share = isinstance(self.held_out, float) and 0 < self.held_out < 1
        refused = {
            "kind": (self.kind not in ("auto", "datasets"), "Only Parquet files are streamed."),
            "labels_path": (self.labels_path is not None, "Labels of a stream are a column."),
            "held_out": (is_share, "The first rows of a stream are held out: say how many."),
            "balance": (self.balance != "none", "The classes of all images would have to be counted first."),
            "repeats": (self.repeats != 1, "An epoch of a stream uses each image once."),
            "subject.identifier": (self.subject.identifier is not None, "It calls for a few images of one subject."),
            "class_images.weight": (bool(self.class_images.weight), "They go with a few images of one subject."),
            "masks.use": (self.masks.use != "none", "Masks are read when they are drawn, images of a stream before."),
        }
        for name, (is_set, why) in refused.items():
            if self.streaming and is_set:
                key, value = f"data.{name}", reduce(getattr, name.split("."), self)
                yield SettingsError("E-DATA-090", where=key, key=key, value=value, why=why)
