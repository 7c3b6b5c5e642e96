"""Captions: which file belongs to which image, what it says, what is missing, and what becomes of the words."""

import codecs
import itertools
import os

import numpy as np
import pytest

from fusain.data.captions import CaptionSettings, processed
from fusain.data.dataset import DataSettings, prepare
from fusain.data.loader import Loader, held_out_batches
from fusain.errors import DataError, SettingsError
from fusain.settings.read import resolve
from fusain.settings.section import Section
from tests.unit.pictures import encoded, fill, noise, write

ONE_BY_ONE = "Rename or remove files until each image has one caption file of exactly its name."


def made(path, *, needs_captions=False, **settings):
    return prepare(DataSettings(path=path, **settings), size=16, needs_captions=needs_captions)


def refusal(path, **settings):
    with pytest.raises(DataError) as caught:
        made(path, **settings)
    assert caught.value.exit_code == 4
    return str(caught.value)


def told(dataset, code):
    return [str(notice) for notice in dataset.notices if notice.code == code]


def captioned(folder, texts, count=None):
    fill(folder, count or len(texts))
    for number, text in enumerate(texts):
        if text is not None:
            content = text if isinstance(text, bytes) else text.encode()
            (folder / f"{number:03d}.txt").write_bytes(content)
    return folder


# --- which file belongs to which image ---


def test_caption_files_without_an_image_are_told(tmp_path):
    folder = captioned(tmp_path, ["a cat"], 2)
    for name in ("notes.txt", "old/000.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    dataset = made(folder)
    assert dataset.captions == ["a cat", ""]
    assert told(dataset, "W-CAP-001") == [
        "W-CAP-001 2 caption files belong to no image: 'notes.txt', 'old/000.txt'. "
        "Rename them like their images, or remove them."
    ]


def test_only_orphans_are_no_captions(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / "LICENSE.txt").write_text("x")
    dataset = made(tmp_path)
    assert dataset.captions is None
    assert len(told(dataset, "W-CAP-001")) == 1


def test_what_two_may_claim_must_be_resolved(tmp_path):
    fill(tmp_path, 5)
    for number in range(5):
        (tmp_path / f"00{number}.txt").write_text("x")
    (tmp_path / "000.jpg").write_bytes(encoded(noise(50), "JPEG"))
    (tmp_path / "001.caption").write_text("y")
    (tmp_path / "002.txt").rename(tmp_path / "renamed")
    write(tmp_path / "b" / "Cat.png", 60)
    (tmp_path / "b" / "cat.txt").write_text("x")
    write(tmp_path / "b" / "twin.jpg", 61)
    write(tmp_path / "b" / "twin.png", 62)
    assert refusal(tmp_path) == (
        "E-CAP-003 Which caption belongs to which image cannot be told for 3 names:\n"
        "    '000.jpg', '000.png', '000.txt'\n"
        "    '001.png', '001.caption', '001.txt'\n"
        "    'b/Cat.png', 'b/cat.txt'\n"
        f"Where: {tmp_path}\nWhy: Endings and capitals alone do not tell images apart, and none of them wins.\n"
        f"Do: {ONE_BY_ONE}"
    )


# --- what a file says ---


@pytest.mark.parametrize(
    ("content", "text", "is_converted"),
    [
        (b"  a cat,\r\n\tsitting \n", "a cat, sitting", False),
        (codecs.BOM_UTF8 + "ein Hündchen".encode(), "ein Hündchen", False),
        ("猫が寝ている".encode("utf-16"), "猫が寝ている", False),
        (codecs.BOM_UTF16_BE + "un été".encode("utf-16-be"), "un été", False),
        ("a cat".encode("utf-16-le"), "a cat", True),
        ("a cat".encode("utf-16-be"), "a cat", True),
        ("Un élève a créé une forêt".encode("latin-1"), "Un élève a créé une forêt", True),
        ("“quoted” – 5 €".encode("cp1252"), "“quoted” – 5 €", True),
        (b"", "", False),
        (b" \n\t ", "", False),
    ],
)
def test_encodings_are_understood(tmp_path, content, text, is_converted):
    dataset = made(captioned(tmp_path, ["a dog", content]))
    assert dataset.captions == ["a dog", text]
    expected = (
        "W-CAP-002 1 caption files are no UTF-8 and were read as Windows-1252 or UTF-16 text: '001.txt'. "
        "Look whether their accents are right, and save them as UTF-8."
    )
    assert told(dataset, "W-CAP-002") == ([expected] if is_converted else [])


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfeab\xd8",
        b"a\0b",
        encoded(noise()),
        bytes(range(256)),
        "猫が寝ている".encode("shift-jis"),
        "猫在睡觉".encode("gbk"),
        "кошка спит".encode("cp1251"),
        b"\x81",
    ],
)
def test_a_caption_that_is_no_text_puts_its_image_aside(tmp_path, content):
    dataset = made(captioned(tmp_path, [content, "x"], 20))
    assert [str(entry) for entry in dataset.quarantined] == [
        "E-DATA-018 '000.png' has a caption that cannot be used: '000.txt' is text in an unknown encoding, or no text."
    ]
    assert dataset.names[0] == "001.png"
    assert dataset.captions[0] == "x"


def test_a_caption_that_cannot_be_read_puts_its_image_aside(tmp_path):
    folder = captioned(tmp_path, ["x", "y"], 20)
    (folder / "000.txt").unlink()
    os.symlink(folder / "nowhere", folder / "000.txt")
    [entry] = made(folder).quarantined
    assert str(entry) == (
        "E-DATA-018 '000.png' has a caption that cannot be used: '000.txt' cannot be read (No such file or directory)."
    )


# --- what is missing ---

DO = (
    'Do: Choose one: write them; set data.captions.missing = "trigger" with a data.captions.trigger_word; '
    'or set it to "allow" for empty ones.'
)


@pytest.mark.parametrize(
    ("texts", "missing", "names"),
    [
        ([None] * 8, "8 of 8", "'000.png', '001.png', '002.png', '003.png', '004.png' and 3 more"),
        (["a", None, " \n", "b"], "2 of 4", "'001.png', '002.png'"),
    ],
)
def test_captions_that_are_needed_and_missing(tmp_path, texts, missing, names):
    folder = captioned(tmp_path, texts)
    assert refusal(folder, needs_captions=True) == (
        f"E-CAP-001 {missing} images have no caption: {names}.\nWhere: {folder}\n"
        "Why: This model learns from captions. "
        f"They were looked for in a .txt or .caption file of the same name beside each image.\n{DO}"
    )
    assert made(folder).captions == (None if "8" in missing else ["a", "", "", "b"])


def test_captions_that_are_all_there(tmp_path):
    assert made(captioned(tmp_path, ["a", "b"]), needs_captions=True).captions == ["a", "b"]


def test_the_columns_of_the_metadata_are_named(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "metadata.csv").write_text("file_name,texte\n000.png,un chat\n")
    assert refusal(tmp_path, needs_captions=True) == (
        f"E-CAP-001 1 of 1 images have no caption: '000.png'.\nWhere: {tmp_path}\n"
        "Why: This model learns from captions. They were looked for in the column of the metadata that "
        f"data.caption_column names (there are: file_name, texte).\n{DO}"
    )


def learnt(dataset):
    return dataset.said(np.arange(len(dataset)))


def test_missing_captions_become_the_trigger_word_or_nothing(tmp_path):
    folder = captioned(tmp_path, ["a cat", None])
    wording = CaptionSettings(trigger_word="sks", prefix="a photo of", missing="trigger")
    dataset = made(folder, needs_captions=True, captions=wording)
    assert learnt(dataset) == ("sks, a photo of a cat", "sks")
    allowed = made(folder, needs_captions=True, captions=CaptionSettings(trigger_word="sks", missing="allow"))
    assert learnt(allowed) == ("sks, a cat", "")
    none = fill(tmp_path / "none", 2)
    assert learnt(made(none, needs_captions=True, captions=wording)) == ("sks", "sks")
    assert made(none).said(np.arange(2)) is None


def test_the_report_says_how_long_they_are(tmp_path):
    report = made(captioned(tmp_path, ["one two three", "one", None, "one two three four"])).report()
    assert (report.captions, report.captions_missing) == (3, 1)
    assert (report.caption_words_median, report.caption_words_longest) == (3, 4)
    assert dict(report.lines())["captions"] == "3 of 4 images, 1 have none; median 3 words, longest 4"


# --- what becomes of the words ---


@pytest.mark.parametrize(
    ("caption", "settings", "said"),
    [
        ("a cat, black", {}, "a cat, black"),
        ("a cat", {"trigger_word": "sks"}, "sks, a cat"),
        ("sks, a cat", {"trigger_word": "sks"}, "sks, a cat"),
        ("SKS , a cat", {"trigger_word": "sks"}, "sks, a cat"),
        ("sks", {"trigger_word": "sks"}, "sks"),
        ("sks cat", {"trigger_word": "sks"}, "sks cat"),
        ("sksy cat", {"trigger_word": "sks"}, "sks, sksy cat"),
        ("a sks cat", {"trigger_word": "sks"}, "sks, a sks cat"),
        ("c++ code", {"trigger_word": "c++"}, "c++ code"),
        ("a cat", {"prefix": "a photo of ", "suffix": "in chalk"}, "a photo of a cat in chalk"),
        (
            "a cat",
            {"trigger_word": "sks", "prefix": "a photo of", "suffix": ", in chalk"},
            "sks, a photo of a cat, in chalk",
        ),
        ("sks", {"trigger_word": "sks", "suffix": ", in chalk"}, "sks, in chalk"),
        ("", {"prefix": "a photo of"}, ""),
        ("", {"trigger_word": "sks"}, ""),
        ("", {"trigger_word": "sks", "prefix": "x", "missing": "trigger"}, "sks"),
        ("", {"trigger_word": "sks", "missing": "fallback", "fallback": "a picture"}, "sks, a picture"),
        ("", {"prefix": "drawn:", "missing": "fallback", "fallback": " a picture "}, "drawn: a picture"),
        ("a cat", {"missing": "fallback", "fallback": "a picture"}, "a cat"),
    ],
)
def test_words_around_a_caption(caption, settings, said):
    assert processed(caption, CaptionSettings(**settings)) == said
    assert processed(said, CaptionSettings(**settings)).count("sks") == said.count("sks")


def orders(caption, count=200, seed=0, **settings):
    wording = CaptionSettings(shuffle_tokens=True, **settings)
    return [processed(caption, wording, seed=seed, draw=draw) for draw in range(count)]


def test_parts_are_shuffled_as_functions_of_seed_and_draw():
    found = orders("a,b , c")
    assert set(found) == {", ".join(order) for order in itertools.permutations("abc")}
    assert found == orders("a,b , c")
    assert found != orders("a,b , c", seed=1)
    assert processed("a,b , c", CaptionSettings(shuffle_tokens=True)) == "a,b , c"


def test_the_first_parts_stay():
    assert set(orders("a, b, c", keep_tokens=1)) == {"a, b, c", "a, c, b"}
    assert set(orders("a, b, c", keep_tokens=5)) == {"a, b, c"}
    assert set(orders("x, a, b", trigger_word="x", suffix="!")) == {"x, a, b !", "x, b, a !"}
    assert set(orders("x cat, a, b", trigger_word="x")) == {"x cat, a, b", "x cat, b, a"}


def test_batches_are_shuffled_and_what_is_held_out_is_not(tmp_path):
    folder = captioned(tmp_path, ["a, b, c, d, e"] * 70)
    dataset = made(folder, captions=CaptionSettings(shuffle_tokens=True, trigger_word="sks"))
    found = next(iter(Loader(dataset, dataset.settings, seed=3, batch_size=30)))
    wording = CaptionSettings(shuffle_tokens=True)
    assert list(found.captions) == [
        "sks, " + processed("a, b, c, d, e", wording, seed=3, draw=draw) for draw in range(30)
    ]
    assert len(set(found.captions)) > 10
    [held_out] = held_out_batches(dataset, 8)
    assert set(held_out.captions) == {"sks, a, b, c, d, e"}
    assert len(dataset.held_out) == len(held_out) == 4


class Run(Section):
    data: DataSettings


def test_wording_in_a_settings_file():
    text = "[data]\npath = 'x'\ncaptions.missing = 'trigger'\n"
    with pytest.raises(SettingsError) as caught:
        resolve(Run, text=text)
    assert str(caught.value) == (
        "E-CFG-006 'data.captions' cannot be used: missing = \"trigger\" needs a trigger_word.\n"
        "Where: settings line 3\nDo: Change it; what it means is told by: fusain explain data.captions"
    )
    overrides = [("data.captions.keep_tokens", "2"), ("data.captions.trigger_word", "7")]
    found = resolve(Run, text="[data]\npath = 'x'\n", overrides=overrides)
    assert found.settings.data.captions == CaptionSettings(keep_tokens=2, trigger_word="7")
    assert [str(notice) for notice in found.notices] == [
        "W-CFG-002 'data.captions.keep_tokens' has no effect in this run: "
        "it needs data.captions.shuffle_tokens = true, which is false. (--data.captions.keep_tokens)"
    ]
