"""Data sets of Hugging Face `datasets` on disk: saved, Parquet or Arrow, with columns that the user names."""

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from fusain.data.dataset import prepare
from fusain.data.settings import DataSettings
from fusain.data.sources.hugging_face import HuggingFace
from fusain.errors import DataError, EnvironmentFault, FusainError


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(count: int, start: int = 0, **columns: list[Any]) -> datasets.Dataset:
    """Pictures with captions in French, and two classes that the data set names."""
    numbers = range(start, start + count)
    labels = datasets.ClassLabel(names=["chat", "os"])
    features = datasets.Features({"photo": datasets.Image(), "texte": datasets.Value("string"), "label": labels})
    told = {
        "photo": [{"bytes": picture(number), "path": None} for number in numbers],
        "texte": [f"image  {number}" for number in numbers],
        "label": [number % 2 for number in numbers],
    }
    return datasets.Dataset.from_dict(told | columns, features=features)


def saved(folder: Path, form: str) -> Path:
    train, test = rows(6), rows(2, start=6)
    if form == "saved":
        datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(folder))
    if form == "parquet":
        (folder / "data").mkdir(parents=True)
        rows(4).to_parquet(folder / "data" / "train-00000-of-00002.parquet")
        rows(2, start=4).to_parquet(folder / "data" / "train-00001-of-00002.parquet")
        test.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    if form == "arrow":
        for name, part in {"train": train, "test": test}.items():
            part.save_to_disk(str(folder / "whole" / name))
            (stored,) = (folder / "whole" / name).glob("*.arrow")
            stored.rename(folder / f"{name}.arrow")
        shutil.rmtree(folder / "whole")
    return folder


def looked_at(path: Path, **more: Any) -> Any:
    settings = DataSettings.model_validate({"path": path, "caption_column": "texte", **more})
    return prepare(settings, size=8, needs_captions=True)


@pytest.mark.parametrize("form", ["saved", "parquet", "arrow"])
def test_images_captions_classes_and_splits(tmp_path: Path, form: str) -> None:
    dataset = looked_at(saved(tmp_path / "set", form))
    assert dataset.source.kind == "datasets"
    assert dataset.names == [f"test/{row:08d}" for row in range(2)] + [f"train/{row:08d}" for row in range(6)]
    assert dataset.captions == [f"image {number}" for number in (6, 7, 0, 1, 2, 3, 4, 5)]
    assert dataset.classes == ("chat", "os")
    assert dataset.label_ids.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert dataset.held_out.tolist() == [0, 1]
    assert dataset.columns == ("texte", "label")
    shown = dataset.pixels(np.asarray([2, 0]))
    for pixels, number in zip(shown, (0, 6), strict=True):
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(picture(number)))))


def test_the_same_images_are_the_same_data_wherever_they_lie(tmp_path: Path) -> None:
    ids = {looked_at(saved(tmp_path / form, form)).id for form in ("saved", "parquet", "arrow")}
    assert len(ids) == 1


def test_one_file_and_one_split(tmp_path: Path) -> None:
    rows(3).to_parquet(tmp_path / "all.parquet")
    rows(3).save_to_disk(str(tmp_path / "saved"))
    names = [f"train/{row:08d}" for row in range(3)]
    assert looked_at(tmp_path / "all.parquet").names == names
    assert looked_at(tmp_path / "saved").names == names


def test_images_are_read_when_they_are_drawn_where_memory_is_short(tmp_path: Path) -> None:
    dataset = looked_at(saved(tmp_path / "set", "saved"), memory_gb=0)
    assert dataset.held is None
    assert np.array_equal(dataset.pixels(np.asarray([3]))[0], np.asarray(Image.open(io.BytesIO(picture(1)))))


def test_a_process_that_is_handed_the_source_opens_it_itself(tmp_path: Path) -> None:
    source = HuggingFace(saved(tmp_path / "set", "saved"))
    source.listing()
    sent = pickle.dumps(source)
    assert len(sent) < 2_000
    assert pickle.loads(sent).read("train/00000003") == picture(3)


def test_what_changed_since_is_told_by_name(tmp_path: Path) -> None:
    lock = looked_at(saved(tmp_path / "set", "parquet")).lock()
    changed = rows(2, start=6, photo=[{"bytes": picture(6), "path": None}, {"bytes": picture(99), "path": None}])
    changed.to_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    settings = DataSettings(path=tmp_path / "set", caption_column="texte")
    with pytest.raises(DataError) as caught:
        prepare(settings, size=8, needs_captions=True, lock=lock)
    assert "1 changed ('test/00000001')" in str(caught.value)


def test_rows_that_are_broken_are_put_aside(tmp_path: Path) -> None:
    stored: list[Any] = [{"bytes": picture(number), "path": None} for number in range(20)]
    stored[3] = {"bytes": picture(3)[:60], "path": None}
    stored[5] = {"bytes": None, "path": "elsewhere.png"}
    pyarrow.parquet.write_table(rows(20, photo=stored).data.table, tmp_path / "all.parquet")
    dataset = looked_at(tmp_path / "all.parquet", max_quarantined=0.2)
    assert [entry.name for entry in dataset.quarantined] == ["train/00000003", "train/00000005"]
    assert dataset.quarantined[1].reason == (
        "'train/00000005' has no image stored in the data set, but none or a path elsewhere."
    )


def told(path: Path, **more: Any) -> str:
    with pytest.raises(FusainError) as caught:
        looked_at(path, **more)
    assert isinstance(caught.value, DataError | EnvironmentFault)
    return str(caught.value)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "set", "saved")
    assert told(path, image_column="bild") == (
        "E-DATA-081 There is no one column 'bild' of images. The columns are: photo, texte, label.\n"
        "Where: data.image_column\n"
        "Do: Name the one that holds them: --data.image_column NAME"
    )
    assert told(path, caption_column="text") == (
        "E-CAP-002 There is no column 'text' to take captions from: its columns are: texte, label.\n"
        "Where: data.caption_column\nDo: Correct data.caption_column, or leave it out."
    )
    twice = rows(3).add_column("other", [{"bytes": picture(9), "path": None}] * 3)
    twice.cast_column("other", datasets.Image()).save_to_disk(str(tmp_path / "twice"))
    assert told(tmp_path / "twice").startswith(
        "E-DATA-081 There is no one column 'image' of images. The columns are: photo, texte, label, other.\n"
    )
    assert looked_at(tmp_path / "twice", image_column="photo").names[0] == "train/00000000"


def test_captions_that_are_no_text(tmp_path: Path) -> None:
    rows(2).add_column("five", [["a", "b"], ["c"]]).save_to_disk(str(tmp_path / "set"))
    assert told(tmp_path / "set", caption_column="five") == (
        "E-DATA-082 The column 'five' holds no texts but values of the kind 'list'.\n"
        "Where: five\n"
        "Do: Name another with data.caption_column, or make texts of it with the datasets library."
    )


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    rows(4).to_parquet(tmp_path / "all.parquet")
    whole = (tmp_path / "all.parquet").read_bytes()
    (tmp_path / "all.parquet").write_bytes(whole[: len(whole) // 2])
    text = told(tmp_path / "all.parquet")
    assert text.startswith("E-DATA-080 The data set 'all.parquet' cannot be opened: ")
    assert text.endswith(
        f"Where: {tmp_path / 'all.parquet'}\n"
        "Do: Look whether all its files are whole and of one form, and save or download it anew."
    )


def test_a_folder_of_images_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(picture(0))
    with pytest.raises(DataError) as caught:
        prepare(DataSettings(path=tmp_path, image_column="photo"), size=8)
    assert str(caught.value) == (
        "E-DATA-081 There is no one column 'photo' of images. "
        "The columns are: none, for it is of kind 'images'.\n"
        "Where: data.image_column\n"
        "Do: Name the one that holds them: --data.image_column NAME"
    )


def test_without_the_extra(tmp_path: Path, monkeypatch: Any) -> None:
    path = saved(tmp_path / "set", "saved")
    monkeypatch.setattr("fusain.data.sources.hugging_face.importlib.util.find_spec", lambda package: None)
    assert told(path) == (
        "E-ENV-006 datasets is not installed.\n"
        "Where: data.path\nDo: pip install 'fusain[data]', or leave data.path out."
    )
