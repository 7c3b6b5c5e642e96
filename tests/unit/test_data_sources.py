"""What each source lists, and the whole text of what each refuses."""

import json
import sys

import numpy as np
import pytest

import fusain.data.sources
from fusain.data.dataset import DataSettings, prepare
from fusain.data.settings import kinds
from fusain.errors import DataError, FusainError, UnsafeFileError
from tests.unit.pictures import encoded, fill, noise, write


def made(path, **settings):
    return prepare(DataSettings(path=path, **settings), size=16)


def refusal(path, error=DataError, **settings):
    with pytest.raises(FusainError) as caught:
        made(path, **settings)
    assert type(caught.value) is error
    return str(caught.value)


def test_a_plain_folder(tmp_path):
    fill(tmp_path, 3)
    write(tmp_path / "deep" / "er" / "x.PNG", 9)
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "000.txt").write_text("  a cat,\n sitting ", encoding="utf-8-sig")
    (tmp_path / "001.caption").write_text("ein Hündchen", encoding="utf-16")
    (tmp_path / "notes.md").write_text("x")
    dataset = made(tmp_path)
    assert dataset.source.kind == "images"
    assert dataset.names == ["000.png", "001.png", "002.png", "deep/er/x.PNG"]
    assert dataset.captions == ["a cat, sitting", "ein Hündchen", "", ""]
    assert dataset.classes == ()
    assert dataset.class_counts() == {}
    assert dataset.expected_shares() == {}
    assert dict(dataset.ignored) == {".md": 1}
    assert np.array_equal(dataset.pixels(np.asarray([3, 1])), np.stack([noise(9), noise(1)]))


def test_a_folder_a_class(tmp_path):
    fill(tmp_path / "dog", 3)
    fill(tmp_path / "Cat" / "deeper", 2, 10)
    fill(tmp_path / "Cat", 1, 20)
    dataset = made(tmp_path)
    assert dataset.source.kind == "classes"
    assert dataset.classes == ("Cat", "dog")
    assert dataset.class_counts() == {"Cat": 3, "dog": 3}
    assert dataset.label_ids.tolist() == [0, 0, 0, 1, 1, 1]


def test_an_image_beside_the_class_folders_is_put_aside(tmp_path):
    fill(tmp_path / "a", 6)
    fill(tmp_path / "b", 6, 10)
    write(tmp_path / "z.png", 99)
    dataset = made(tmp_path, kind="classes")
    assert [str(entry) for entry in dataset.quarantined] == ["E-DATA-019 'z.png' lies in no class folder."]
    assert made(tmp_path).source.kind == "images"


def test_train_and_val_folders_are_a_split_and_no_classes(tmp_path):
    for part, start in (("train", 0), ("val", 50)):
        fill(tmp_path / part / "a", 3, start)
        fill(tmp_path / part / "b", 3, start + 10)
    dataset = made(tmp_path)
    assert dataset.classes == ("a", "b")
    assert {name.partition("/")[0] for name in dataset.names_of(dataset.held_out)} == {"val"}
    write(tmp_path / "val" / "b" / "copy.png", 1)
    assert refusal(tmp_path) == (
        "E-DATA-023 1 held-out images show what training images show: 'train/a/001.png' = 'val/b/copy.png'.\n"
        f"Where: {tmp_path}\n"
        "Why: What was learnt by heart would be measured as if it were understood.\n"
        "Do: Remove one of each pair, or let Fusain split by content: data.held_out = 0.05"
    )
    assert len(made(tmp_path, held_out=0.2).held_out) == 3


def test_kohya_folders(tmp_path):
    fill(tmp_path / "10_sks dog", 3)
    fill(tmp_path / "2_a  cat" / "deep", 2, 10)
    (tmp_path / "10_sks dog" / "001.txt").write_text("sks dog in the snow")
    dataset = made(tmp_path)
    assert dataset.source.kind == "kohya"
    assert dataset.captions == ["sks dog", "sks dog in the snow", "sks dog", "a cat", "a cat"]
    assert dataset.repeats.tolist() == [10, 10, 10, 2, 2]
    assert dataset.entries == 34
    assert dict(dataset.report().lines())["repeats"] == "2 images 2 x, 3 images 10 x"
    assert dataset.classes == ()
    assert made(tmp_path, repeats=2).report().repeats == {"4": 2, "20": 3}
    assert not [notice for notice in dataset.notices if notice.code == "W-DATA-011"]


def test_kohya_folders_of_which_one_says_no_repeats(tmp_path):
    fill(tmp_path / "10_sks", 2)
    fill(tmp_path / "dog", 1, 10)
    write(tmp_path / "top.png", 20)
    dataset = made(tmp_path)
    assert dataset.captions == ["sks", "sks", "dog", ""]
    assert dataset.repeats.tolist() == [10, 10, 1, 1]
    assert [str(notice) for notice in dataset.notices if notice.code == "W-DATA-011"] == [
        "W-DATA-011 No repeats in the name of '.', 'dog': read as 1 repeat. "
        "In a kohya data set the name of each folder of images begins with its repeats. "
        "Rename the folder, as in '10_dog', or set data.repeats for all; for classes set data.kind = \"classes\"."
    ]


@pytest.mark.parametrize("names", [("cat", "dog"), ("001_cat", "002_dog"), ("0_cat", "a_dog"), ("3_d", "cat", "dog")])
def test_folders_that_are_classes_and_no_repeats(tmp_path, names):
    for number, name in enumerate(names):
        fill(tmp_path / name, 2, 10 * number)
    assert made(tmp_path).source.kind == "classes"


def arrays(folder, images, labels, names=""):
    folder.mkdir()
    np.save(folder / "sprites.npy", images)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    if names:
        (folder / "classes.txt").write_text(names)
    return folder


IMAGES = np.stack([noise(seed) for seed in range(6)])


def test_arrays(tmp_path):
    one_hot = made(arrays(tmp_path / "one", IMAGES, np.eye(3)[[0, 1, 2, 2, 1, 0]], "x\ny\nz\n"))
    assert one_hot.classes == ("x", "y", "z")
    assert one_hot.label_vectors is None
    assert one_hot.label_ids.tolist() == [0, 1, 2, 2, 1, 0]
    assert np.array_equal(one_hot.pixels(np.asarray([4])), IMAGES[4:5])
    ids = made(arrays(tmp_path / "two", IMAGES, np.asarray([0, 1, 1, 0, 2, 2])))
    assert ids.classes == ("0", "1", "2")
    mixed = made(arrays(tmp_path / "three", IMAGES, np.asarray([[0.6, 0.4]] * 6)))
    assert mixed.label_vectors[0].tolist() == pytest.approx([0.6, 0.4])
    single = made(tmp_path / "one" / "sprites.npy", labels_path=tmp_path / "two" / "labels.npy")
    assert single.label_ids.tolist() == [0, 1, 1, 0, 2, 2]
    assert made(tmp_path / "one" / "sprites.npy").classes == ()
    larger = made(arrays(tmp_path / "large", IMAGES.repeat(2, 1).repeat(2, 2), None))
    assert larger.pixels(np.asarray([0])).shape == (1, 16, 16, 3)


def test_arrays_that_cannot_be_used(tmp_path):
    floats = arrays(tmp_path / "a", IMAGES / 255.0, None)
    assert refusal(floats) == (
        "E-DATA-051 'sprites.npy' holds 6 x 16 x 16 x 3 float64; images are N x height x width x 3 uint8.\n"
        f"Where: {floats / 'sprites.npy'}\nDo: Save the images as bytes from 0 to 255 with three colours last."
    )
    short = arrays(tmp_path / "b", IMAGES, np.zeros(4, int))
    assert refusal(short) == (
        "E-DATA-053 'labels.npy' holds 4 int64, which are no labels of 6 images.\n"
        f"Where: {short / 'labels.npy'}\n"
        "Do: Give one label an image: a class number each, or a row with a share of each class."
    )
    empty = arrays(tmp_path / "c", IMAGES, np.eye(3)[[0] * 5 + [1]] * [[1]] * 5 + [[0, 0, 1]] - [[0, 0, 1]])
    np.save(empty / "labels.npy", np.asarray([[1, 0]] * 5 + [[0, 0]]))
    assert refusal(empty) == (
        "E-DATA-054 'labels.npy' has a label that cannot be used in row 5: "
        "a label needs a share above 0 for some class, and none below.\n"
        f"Where: {empty / 'labels.npy'}\nDo: Mend the labels."
    )
    np.save(empty / "labels.npy", np.asarray([0, 1, 2, -1, 0, 0]))
    assert "row 0: class numbers are 0, 1, 2 ..." in refusal(empty)
    few = arrays(tmp_path / "d", IMAGES, np.arange(6) % 3, "x\ny\n")
    assert refusal(few) == (
        "E-DATA-055 2 classes are named, but the labels have 3.\n"
        f"Where: {few / 'classes.txt'}\nDo: Name each class on a line of its own, in the order of the labels."
    )
    np.save(few / "more.npy", IMAGES)
    assert refusal(few) == (
        "E-DATA-052 Which array holds the images and which the labels cannot be told: labels.npy (6 int64), "
        "more.npy (6 x 16 x 16 x 3 uint8), sprites.npy (6 x 16 x 16 x 3 uint8).\n"
        f"Where: {few}\n"
        "Why: One array of four axes (images) and at most one of one or two axes (labels) are expected.\n"
        "Do: Give the file of the images as data.path and that of the labels as data.labels_path."
    )


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "it is cut off or damaged"),
        (
            lambda path: np.save(path, np.asarray([{"a": 1}]), allow_pickle=True),
            "it holds Python objects, or is no array file; such files are never opened, for they can run code",
        ),
    ],
)
def test_array_files_that_cannot_be_read(tmp_path, spoil, problem):
    folder = arrays(tmp_path / "a", IMAGES, None)
    spoil(folder / "sprites.npy")
    assert refusal(folder) == (
        f"E-DATA-050 'sprites.npy' cannot be read as an array: {problem}.\nWhere: {folder / 'sprites.npy'}\n"
        "Do: Save it anew with numpy.save(path, array, allow_pickle=False)."
    )


def metadata(folder, *rows):
    fill(folder, 3)
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "metadata.jsonl").write_text(text + "\n")
    return folder


def test_metadata(tmp_path):
    dataset = made(
        metadata(
            tmp_path,
            {"file_name": "002.png", "text": "two", "label": 10, "weight": 0.5, "repeats": 3},
            {"file_name": "000.png", "text": "zero", "label": "9"},
            "",
            {"file_name": "./001.png", "label": 9, "split": "test"},
        )
    )
    assert dataset.source.kind == "metadata"
    assert dataset.names == ["000.png", "001.png", "002.png"]
    assert dataset.captions == ["zero", "", "two"]
    assert dataset.classes == ("9", "10")
    assert dataset.label_ids.tolist() == [0, 0, 1]
    assert dataset.weights.tolist() == [1, 1, 0.5]
    assert dataset.held_out.tolist() == [1]
    assert dataset.entries == 4
    assert dataset.train_entries.tolist() == [0, 2, 2, 2]


def test_metadata_as_a_table(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "metadata.csv").write_text('file_name,text\n000.png,"a, b"\n001.png,c\n', encoding="utf-8-sig")
    assert made(tmp_path).captions == ["a, b", "c"]
    assert made(tmp_path / "metadata.csv").captions == ["a, b", "c"]
    (tmp_path / "metadata.csv").write_text("file_name,text\n000.png,a\n001.png\n")
    assert refusal(tmp_path) == (
        "E-DATA-042 A line of the metadata cannot be used: it has not the 2 columns of the first line.\n"
        f"Where: {tmp_path / 'metadata.csv'}, line 3\nDo: Mend the line."
    )
    (tmp_path / "metadata.jsonl").write_text("{}")
    assert refusal(tmp_path) == (
        "E-DATA-045 One metadata file is needed, and there are: metadata.jsonl and metadata.csv.\n"
        f"Where: {tmp_path}\n"
        "Do: Leave one of metadata.jsonl and metadata.csv, or give the one that is meant as data.path."
    )


def test_the_column_of_the_captions(tmp_path):
    rows = [{"file_name": f"00{n}.png", "texte": f"un chat {n}", "text": "a cat"} for n in range(3)]
    folder = metadata(tmp_path / "a", *rows[:2], {"file_name": "002.png", "text": "a cat", "note": 1})
    assert made(folder).captions == ["a cat"] * 3
    assert made(folder, caption_column="texte").captions == ["un chat 0", "un chat 1", ""]
    assert refusal(folder, caption_column="texto") == (
        "E-CAP-002 There is no column 'texto' to take captions from: its columns are: texte, text, note.\n"
        "Where: data.caption_column\nDo: Correct data.caption_column, or leave it out."
    )
    assert refusal(fill(tmp_path / "b", 2), caption_column="texte") == (
        "E-CAP-002 There is no column 'texte' to take captions from: data of kind 'images' has no columns.\n"
        "Where: data.caption_column\nDo: Correct data.caption_column, or leave it out."
    )


GOOD = {"file_name": "000.png"}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            '{"file_name": "001.png"',
            "E-DATA-042 A line of the metadata cannot be used: it is no JSON "
            "(Expecting ',' delimiter: line 1 column 24 (char 23)).\nWhere: {file}, line 2\nDo: Mend the line.",
        ),
        (
            "[1]",
            "E-DATA-042 A line of the metadata cannot be used: it is no JSON object.\n"
            "Where: {file}, line 2\nDo: Mend the line.",
        ),
        (
            {"file": "001.png", "text": "x"},
            "E-DATA-043 A line of the metadata has no 'file_name' (it has: file, text).\nWhere: {file}, line 2\n"
            "Do: Name the image that the line is about in a column 'file_name'.",
        ),
        (
            {"file_name": "sub/../000.png"},
            "E-DATA-044 '000.png' stands in the metadata twice, first in line 1.\nWhere: {file}, line 2\n"
            'Do: Remove one of the lines; to use an image more often write "repeats": 2.',
        ),
        (
            '{"file_name": "001.png", "text": "half of \\ud83d"}',
            "E-DATA-042 A line of the metadata cannot be used: 'text' holds U+D83D, which is no character of a text.\n"
            "Where: {file}, line 2\nDo: Mend the line.",
        ),
        (
            {"file_name": "001.png", "text": "a\0b"},
            "E-DATA-042 A line of the metadata cannot be used: 'text' holds U+0000, which is no character of a text.\n"
            "Where: {file}, line 2\nDo: Mend the line.",
        ),
        (
            '{"file_name": "\\ud83d.png"}',
            "E-DATA-042 A line of the metadata cannot be used: 'file_name' holds U+D83D, which is no character of a "
            "text.\nWhere: {file}, line 2\nDo: Mend the line.",
        ),
        (
            {"file_name": "001.png", "text": ["a cat", "a black cat"]},
            "E-DATA-042 A line of the metadata cannot be used: 'text' is a list and no text.\n"
            "Where: {file}, line 2\nDo: Mend the line.",
        ),
        (
            {"file_name": "001.png", "repeats": 1.5},
            "E-DATA-042 A line of the metadata cannot be used: 'repeats' is 1.5, which is no number from 1 up.\n"
            "Where: {file}, line 2\nDo: Mend the line.",
        ),
    ],
)
def test_metadata_lines_that_cannot_be_used(tmp_path, row, text):
    folder = metadata(tmp_path, GOOD, row)
    assert refusal(folder) == text.replace("{file}", str(folder / "metadata.jsonl"))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "..\\b.png", "C:\\b.png"])
def test_metadata_cannot_reach_outside(tmp_path, name):
    folder = metadata(tmp_path, GOOD, {"file_name": name})
    assert refusal(folder, UnsafeFileError) == (
        f"E-SEC-003 '{name}' lies outside of the data set.\nWhere: {folder / 'metadata.jsonl'}, line 2\n"
        "Why: Data from others could reach your other files in this way.\n"
        "Do: Use names below the folder of the metadata file."
    )


def test_metadata_rows_without_image_or_label_are_put_aside(tmp_path):
    rows = [{"file_name": f"00{n}.png", "label": "x"} for n in range(2)]
    folder = metadata(tmp_path, *rows, {"file_name": "002.png"}, {"file_name": "gone.png", "label": "x"})
    dataset = made(folder, max_quarantined=0.5)
    assert [str(entry) for entry in dataset.quarantined] == [
        "E-DATA-020 '002.png' has no label, though others have one.",
        "E-DATA-010 'gone.png' cannot be read: No such file or directory.",
    ]


def test_a_source_is_added_as_one_file(tmp_path, monkeypatch):
    plugs = tmp_path / "plugs"
    plugs.mkdir()
    (plugs / "drawn_dots.py").write_text(
        """
import numpy as np
from fusain.data.source import Listing, Source

class DrawnDots(Source):
    kind = "dots"

    @classmethod
    def recognises(cls, path):
        return (path / "dots").exists()

    def listing(self):
        nothing = np.zeros(3, np.int64)
        return Listing(["a", "b", "c"], nothing, nothing, captions=["one", "two", "three"])

    def read(self, name):
        return (self.path / "dots").read_bytes()
"""
    )
    monkeypatch.setattr(fusain.data.sources, "__path__", [*fusain.data.sources.__path__, str(plugs)])
    data = tmp_path / "data"
    data.mkdir()
    (data / "dots").write_bytes(encoded(noise()))
    assert "dots" in kinds()
    dataset = made(data)
    assert dataset.source.kind == "dots"
    assert dataset.captions == ["one", "two", "three"]
    assert made(data, kind="dots").id == dataset.id
    sys.modules.pop("fusain.data.sources.drawn_dots")


def test_an_unknown_kind_is_told_with_those_that_are_known():
    known = "auto, metadata, arrays, datasets, kohya, classes, images"
    with pytest.raises(ValueError, match=f"'foldr' is no kind of source; known are {known}"):
        DataSettings(path="x", kind="foldr")
