"""Data sets beyond the disk: Parquet files that are read window by window, each draw a function of (seed, n)."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from fusain.data import shards, stream
from fusain.data.batch import to_images
from fusain.data.dataset import check_batch
from fusain.data.dataset import prepare as prepare_on_disk
from fusain.data.settings import DataSettings
from fusain.data.shards import Folder
from fusain.data.stream import StreamLoader
from fusain.errors import FusainError
from fusain.training.team import Team
from tests.unit.test_data_hugging_face import picture, rows

LENGTHS = (10, 7, 13)


def write(path: Path, count: int, start: int = 0, **columns: list[Any]) -> None:
    """Rows in groups of four; picture and caption of each are called after its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(rows(count, start, **columns).data.table, path, row_group_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    start = 0
    for place, count in enumerate(LENGTHS):
        write(tmp_path / "set" / "data" / f"train-{place:05d}-of-00003.parquet", count, start)
        start += count
    return tmp_path / "set"


def settings_of(path: Path, **changes: Any) -> DataSettings:
    usual = {"path": path, "caption_column": "texte", "streaming": True, "stream_window": 8, "held_out": 6}
    return DataSettings.model_validate(usual | changes)


def prepared(path: Path, *, batch_size: int = 4, size: int = 8, needs_captions: bool = True, lock: Any = None,
             report: Any = None, **changes: Any) -> Any:  # fmt: skip
    return stream.prepare(
        settings_of(path, **changes), Folder(path), size=size, batch_size=batch_size, needs_captions=needs_captions,
        lock=lock, report=report,
    )  # fmt: skip


def drawn(dataset: Any, count: int, *, start: int = 0, batch_size: int = 4, seed: int = 0, report: Any = None,
          share: slice = slice(None)) -> Any:  # fmt: skip
    loader = StreamLoader(
        dataset, dataset.settings, seed=seed, batch_size=batch_size, start_draw=start, report=report, share=share
    )  # fmt: skip
    batches = iter(loader)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def items(batches: Any) -> list[int]:
    return np.concatenate([batch.items for batch in batches]).tolist()


def assert_equal(some: Any, others: Any) -> None:
    assert items(some) == items(others)
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.pixels_BCHW, other.pixels_BCHW)
        assert torch.equal(one.framings_B4, other.framings_B4)
        assert (one.captions, one.draws.tolist()) == (other.captions, other.draws.tolist())


def test_every_epoch_uses_each_row_once_and_none_that_is_held_out(folder: Path) -> None:
    dataset = prepared(folder)
    first, second = items(drawn(dataset, 6)), items(drawn(dataset, 12)[6:])
    assert sorted(first) == sorted(second) == list(range(6, 30))
    assert first != second
    assert [sorted(first[start : start + 8]) != first[start : start + 8] for start in (0, 8, 16)] == [True] * 3
    assert dataset.names_of(dataset.held_out) == [f"train/{row:08d}" for row in range(6)]
    assert (dataset.entries, len(dataset.stream)) == (24, 24)


@pytest.mark.parametrize("batch_size", [5, 7])
def test_a_batch_goes_over_into_the_next_window(folder: Path, batch_size: int) -> None:
    """No row is left out or comes twice, though neither windows nor epochs are multiples of the batch."""
    batches = drawn(prepared(folder, batch_size=batch_size), 24 * 2 // batch_size, batch_size=batch_size)
    found = items(batches)
    assert sorted(found[:24]) == list(range(6, 30))
    assert sorted({*found[24:]}) == sorted(found[24:])
    assert found == items(drawn(prepared(folder), 12))[: len(found)]
    for number, batch in enumerate(batches):
        assert batch.draws.tolist() == list(range(number * batch_size, (number + 1) * batch_size))
        assert batch.captions == tuple(f"image {row}" for row in batch.items)
        for place, row in enumerate(batch.items.tolist()):
            assert np.array_equal(to_images(batch.pixels_BCHW)[place], np.asarray(Image.open(io.BytesIO(picture(row)))))
    again = drawn(prepared(folder, workers=1), 3, start=batch_size, batch_size=batch_size)
    assert_equal(again, batches[1:4])


def test_rows_are_what_they_are_on_disk(folder: Path) -> None:
    dataset = prepared(folder)
    on_disk = prepare_on_disk(
        DataSettings(path=folder, caption_column="texte", held_out="none"), size=8, needs_captions=True
    )
    assert dataset.stream.names_of(np.arange(30)) == on_disk.names
    assert dataset.classes == on_disk.classes == ("chat", "os")
    for batch in drawn(dataset, 6):
        shown = to_images(batch.pixels_BCHW)
        for place, row in enumerate(batch.items.tolist()):
            assert np.array_equal(shown[place], np.asarray(Image.open(io.BytesIO(picture(row)))))
            assert batch.captions[place] == f"image {row}"
            assert batch.labels_BK[place].tolist() == [1 - row % 2, row % 2]


@pytest.mark.parametrize(
    "changes", [{"workers": 1}, {"flip": True, "crop": "random", "workers": 2}, {"memory_gb": 2e-6}]
)
@pytest.mark.parametrize("start", [0, 8, 20, 28])
def test_a_draw_is_the_same_wherever_the_stream_is_begun(folder: Path, changes: dict[str, Any], start: int) -> None:
    """Within a window, at its end, and in the next epoch; also where memory makes windows shorter."""
    whole = drawn(prepared(folder, **(changes | {"workers": 0})), 12)
    assert_equal(drawn(prepared(folder, **changes), 12 - start // 4, start=start), whole[start // 4 :])


def test_another_batch_size_draws_the_same_images(folder: Path) -> None:
    dataset = prepared(folder)
    assert (
        items(drawn(dataset, 12)) == items(drawn(dataset, 6, batch_size=8)) == items(drawn(dataset, 16, batch_size=3))
    )


@pytest.mark.parametrize("changes", [{"flip": True, "crop": "random"}, {"workers": 1, "stream_window": 12}])
@pytest.mark.parametrize("start", [0, 6, 18])
def test_processes_share_a_stream(folder: Path, changes: dict[str, Any], start: int) -> None:
    """In each batch disjoint rows, which together are those of one process in their order, wherever it is begun;
    also where a batch goes over into the next window."""
    alone = drawn(prepared(folder, **changes), 8, batch_size=6)[start // 6 :]
    for count in (2, 4):
        shares = [Team(rank, count).share(6) for rank in range(count)]
        parts = [
            drawn(prepared(folder, **changes), len(alone), start=start, batch_size=6, share=share) for share in shares
        ]
        for whole, *found in zip(alone, *parts, strict=True):
            assert [len(part.items) for part in found] == [share.stop - share.start for share in shares]
            assert len(set(whole.items.tolist())) == 6
            assert np.concatenate([part.items for part in found]).tolist() == whole.items.tolist()
            assert np.concatenate([part.draws for part in found]).tolist() == whole.draws.tolist()
            assert torch.equal(torch.cat([part.pixels_BCHW for part in found]), whole.pixels_BCHW)
            assert tuple(caption for part in found for caption in part.captions) == tuple(whole.captions)


def test_windows_are_of_groups_from_everywhere_and_of_nearly_one_length(folder: Path) -> None:
    one = prepared(folder, stream_window=9).stream
    edges = [(one.at(draw).start, one.at(draw).stop) for draw in range(48)]
    assert sorted(set(edges)) == [(start, start + 8) for start in range(0, 48, 8)]
    assert all(start <= draw < stop for draw, (start, stop) in enumerate(edges))
    assert [one.at(draw).number for draw in (0, 7, 8, 23, 24, 47)] == [0, 0, 1, 2, 3, 5]
    files = {piece.file for draw in (0, 8, 16) for piece in one.pieces_of(draw, draw + 8)}
    assert files == {0, 1, 2}
    assert sum(piece.rows for piece in one.pieces_of(3, 20)) == 17


def test_the_seed_decides_the_order(folder: Path) -> None:
    dataset = prepared(folder)
    assert items(drawn(dataset, 6)) == items(drawn(dataset, 6)) != items(drawn(dataset, 6, seed=1))


def test_files_that_are_called_so_are_held_out(folder: Path) -> None:
    write(folder / "data" / "test-00000-of-00001.parquet", 5, start=90)
    given = prepared(folder, held_out="auto")
    assert given.names_of(given.held_out) == [f"test/{row:08d}" for row in range(5)]
    assert [given.captions[row] for row in given.held_out] == [f"image {number}" for number in range(90, 95)]
    assert len(given.stream) == 30
    assert len(prepared(folder, held_out=2).held_out) == 2
    everything = prepared(folder, held_out="none")
    assert (len(everything.held_out), len(everything.stream)) == (0, 35)
    assert len(prepared(folder / "data" / "train-00000-of-00003.parquet", held_out="none").stream) == 10


def test_each_batch_has_one_shape_where_there_are_buckets(tmp_path: Path) -> None:
    sides = [(64, 64), (64, 40), (40, 64)]
    stored = []
    for number in range(24):
        height, width = sides[number % 3]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        stored.append({"bytes": file.getvalue(), "path": None})
    write(tmp_path / "all.parquet", 24, photo=stored)
    changes = {"buckets": True, "held_out": "none", "stream_window": 12}
    batches = drawn(prepared(tmp_path / "all.parquet", batch_size=2, size=32, **changes), 24, batch_size=2)
    assert {tuple(batch.pixels_BCHW.shape[2:]) for batch in batches} > {(32, 32)}
    again = prepared(tmp_path / "all.parquet", batch_size=2, size=32, **changes)
    assert_equal(drawn(again, 17, start=14, batch_size=2), batches[7:])


def test_what_cannot_be_learnt_is_put_aside_when_it_is_met(tmp_path: Path) -> None:
    stored: list[Any] = [{"bytes": picture(number), "path": None} for number in range(24)]
    stored[7] = {"bytes": picture(7)[:60], "path": None}
    stored[9] = {"bytes": None, "path": "elsewhere.png"}
    stored[14] = stored[2]  # which is held out
    texts = [f"image {number}" for number in range(24)]
    texts[20] = " "
    labels = [number % 2 for number in range(24)]
    labels[11] = -1
    write(tmp_path / "all.parquet", 24, photo=stored, texte=texts, label=labels)
    told: list[dict[str, Any]] = []
    dataset = prepared(
        tmp_path / "all.parquet", max_quarantined=0.6, held_out=4, report=lambda kind, **facts: told.append(facts)
    )
    told.clear()
    batches = drawn(dataset, 60, report=lambda kind, **facts: told.append(facts))
    assert set(items(batches)) == set(range(4, 24)) - {7, 9, 11, 14, 20}
    assert [len(batch.items) for batch in batches] == [4] * 60
    by_code = {row["code"]: row["text"] for row in told}
    assert len(told) == len(by_code) == 5, "each once, though every epoch meets it"
    drawn(dataset, 30, share=slice(2, 4), report=lambda kind, **facts: told.append(facts))
    assert len(told) == 5, "another process, which meets them too, leaves it to the first"
    assert by_code["E-DATA-083"].startswith("'train/00000009' has no image stored in the data set, but none or a path")
    assert by_code["E-DATA-020"].startswith("'train/00000011' has no label, though others have one. Put aside while")
    assert by_code["E-DATA-092"].startswith("'train/00000020' has no caption, though others have one. Put aside while")
    assert by_code["E-DATA-093"].startswith("'train/00000014' shows the same as an image that is held out. Put aside")
    with pytest.raises(FusainError) as caught:
        drawn(prepared(tmp_path / "all.parquet", max_quarantined=0.1, held_out=4), 15)
    assert caught.value.code == "E-DATA-006"


def test_rows_without_a_caption_may_have_another(tmp_path: Path) -> None:
    write(tmp_path / "all.parquet", 8, texte=["", *["a picture"] * 7])
    changes: dict[str, Any] = {"held_out": "none", "captions": {"missing": "fallback", "fallback": "a drawing"}}
    captions = [
        caption for batch in drawn(prepared(tmp_path / "all.parquet", **changes), 2) for caption in batch.captions
    ]
    assert sorted(captions) == ["a drawing", *["a picture"] * 7]


def test_what_is_said_of_a_stream(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream, "LOOKED_AT", 5)
    dataset = prepared(folder, stream_window=20, memory_gb=4e-6)
    (of_stream, of_windows) = [notice for notice in dataset.notices if notice.code in ("W-DATA-046", "W-DATA-047")]
    assert str(of_stream) == (
        "W-DATA-046 Of 30 images 24 are streamed and 6 held out; those and 5 more were looked at. What is said of the "
        "data is said of these. What is broken in the rest is put aside when it is met."
    )
    assert str(of_windows) == (
        "W-DATA-047 Windows have 10 images, not 20: two of them may take data.memory_gb = 4e-06. (data.memory_gb) "
        "Smaller windows shuffle less. For larger ones raise data.memory_gb."
    )
    report = dataset.report()
    assert (report.kind, report.train, report.held_out, report.draws_an_epoch) == ("datasets", 5, 6, 24)


def test_a_run_goes_on_with_the_same_files_only(folder: Path) -> None:
    lock = prepared(folder).lock()
    names = [f"data/train-{place:05d}-of-00003.parquet" for place in range(3)]
    footers = lock["stream"].pop("footers")
    assert lock["stream"] == {"files": dict(zip(names, LENGTHS, strict=True)), "learnt": 24}
    assert list(footers) == names
    assert prepared(folder, lock=lock).held_out.tolist() == prepared(folder).held_out.tolist(), "of an older Fusain"
    lock["stream"]["footers"] = footers
    assert prepared(folder, lock=lock).held_out.tolist() == prepared(folder).held_out.tolist()
    write(folder / "data" / "train-00003-of-00003.parquet", 4, start=50)
    write(folder / "data" / "train-00002-of-00003.parquet", 12, start=17)
    with pytest.raises(FusainError) as caught:
        prepared(folder, lock=lock)
    assert str(caught.value) == (
        "E-DATA-021 The images are not those that the run was started with: files added: "
        "'data/train-00003-of-00003.parquet'; files of other lengths: 'data/train-00002-of-00003.parquet'.\n"
        f"Where: {folder}\n"
        "Why: A run that goes on with other images is neither the old one nor a new one.\n"
        "Do: Put the files back as they were, or start a new run."
    )


def test_files_written_anew_with_as_many_rows_are_noticed(folder: Path, monkeypatch: Any) -> None:
    """What was looked at is the same, and the rest was not: the ends of the files tell."""
    monkeypatch.setattr(stream, "LOOKED_AT", 1)
    lock = prepared(folder).lock()
    last = folder / "data" / "train-00002-of-00003.parquet"
    write(last, LENGTHS[2], start=17)
    assert prepared(folder, lock=lock).id == lock["id"], "the same rows, written anew in the same way"
    write(last, LENGTHS[2], start=400)
    assert prepared(folder).id == lock["id"]
    with pytest.raises(FusainError) as caught:
        prepared(folder, lock=lock)
    assert str(caught.value) == (
        "E-DATA-021 The images are not those that the run was started with: files written anew: "
        "'data/train-00002-of-00003.parquet'.\n"
        f"Where: {folder}\n"
        "Why: A run that goes on with other images is neither the old one nor a new one.\n"
        "Do: Put the files back as they were, or start a new run."
    )


def told(path: Path, **changes: Any) -> str:
    with pytest.raises(FusainError) as caught:
        prepared(path, **changes)
    return str(caught.value)


def test_what_cannot_be_streamed(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    rows(3).save_to_disk(str(tmp_path / "saved"))
    assert told(tmp_path / "saved") == (
        f"E-DATA-091 There are no rows of Parquet files to stream in '{tmp_path / 'saved'}'.\n"
        "Where: data.path\n"
        "Why: Arrow files and sets that save_to_disk wrote are read where they lie, which takes no memory either.\n"
        "Do: Leave data.streaming out for those, or name a folder of Parquet files."
    )
    assert told(folder, image_column="bild").startswith("E-DATA-081 There is no one column 'bild' of images.")
    assert told(folder, caption_column="text") == (
        "E-CAP-002 There is no column 'text' to take captions from: its columns are: texte, label.\n"
        "Where: data.caption_column\nDo: Correct data.caption_column, or leave it out."
    )
    assert told(folder, caption_column=None).startswith("E-CAP-001 30 of 30 images have no caption: 'train/00000000'")
    assert told(folder, held_out=30).startswith("E-DATA-022 30 images are to be held out, but there are 30")
    with pytest.raises(FusainError) as caught:
        check_batch(prepared(folder), batch_size=8, accumulation=2)
    assert str(caught.value) == (
        "E-DATA-094 A step uses 16 images, and a window of the stream has 8 of all 24.\n"
        "Where: data.stream_window\nWhy: A step would use an image twice.\n"
        "Do: Choose one: a larger data.stream_window, with the data.memory_gb that it needs; or a smaller "
        "train.batch_size."
    )
    whole = (folder / "data" / "train-00001-of-00003.parquet").read_bytes()
    (folder / "data" / "train-00001-of-00003.parquet").write_bytes(whole[: len(whole) // 2])
    assert told(folder).startswith("E-DATA-080 The data set 'train-00001-of-00003.parquet' cannot be opened: ")
    monkeypatch.setattr(shards.importlib.util, "find_spec", lambda package: None)
    assert told(folder) == (
        "E-ENV-006 datasets is not installed.\n"
        "Where: data.path\nDo: pip install 'fusain[data]', or leave data.streaming out."
    )


def test_classes_without_names_are_not_counted(tmp_path: Path) -> None:
    """To know them all rows would have to be read."""
    table = rows(8).cast_column("label", datasets.Value("int64")).data.table
    pyarrow.parquet.write_table(table, tmp_path / "all.parquet")
    assert prepared(tmp_path / "all.parquet", held_out="none").classes == ()


@pytest.mark.parametrize(
    ("changes", "key", "value", "why"),
    [
        ({"kind": "images"}, "kind", "images", "Only Parquet files are streamed."),
        ({"labels_path": "labels.npy"}, "labels_path", "labels.npy", "Labels of a stream are a column."),
        ({"held_out": 0.1}, "held_out", "0.1", "The first rows of a stream are held out: say how many."),
        ({"balance": "equal"}, "balance", "equal", "The classes of all images would have to be counted first."),
        ({"repeats": 2}, "repeats", "2", "An epoch of a stream uses each image once."),
        (
            {"subject": {"identifier": "sks"}}, "subject.identifier", "sks",
            "It calls for a few images of one subject.",
        ),
        ({"class_images": {"weight": 1}}, "class_images.weight", "1.0", "They go with a few images of one subject."),
        (
            {"masks": {"use": "alpha"}}, "masks.use", "alpha",
            "Masks are read when they are drawn, images of a stream before.",
        ),
    ],
)  # fmt: skip
def test_settings_that_need_all_images(tmp_path: Path, changes: dict[str, Any], key: str, value: str, why: str) -> None:
    assert [str(fault) for fault in settings_of(tmp_path, **changes).faults()] == [
        f"E-DATA-090 data.streaming does not go with data.{key} = {value}.\n"
        f"Where: data.{key}\nWhy: {why}\n"
        f"Do: Leave data.{key} out, or read the whole set: --data.streaming false"
    ]
    assert list(settings_of(tmp_path, **changes, streaming=False).faults()) == []


def test_settings_without_effect(tmp_path: Path) -> None:
    assert settings_of(tmp_path).silent_settings()["cache"] == "nothing of a stream is kept (data.streaming = true)"
