"""From a path to a data set: what is found, put aside, refused, kept in the cache, set aside and locked."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from fusain.data import cores, examine, index_cache, manifest
from fusain.data.dataset import DataSettings, check_batch, prepare
from fusain.errors import DataError
from tests.unit.pictures import encoded, fill, noise, png, write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images"


def made(path, *, size=16, seed=0, lock=None, report=None, **settings):
    return prepare(DataSettings(path=path, **settings), size=size, seed=seed, lock=lock, report=report)


def refusal(path, **settings):
    with pytest.raises(DataError) as caught:
        made(path, **settings)
    assert caught.value.exit_code == 4
    return str(caught.value)


# --- paths ---


def test_paths_are_understood(tmp_path, monkeypatch):
    odd = fill(tmp_path / "my images é", 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "my images é")
    (tmp_path / "link").symlink_to(odd)
    for path in ("~/my images é/", "$HOME/${PLACE}", f"{tmp_path}/./link", str(odd)):
        assert made(path).path == odd


def test_a_path_that_leads_nowhere(tmp_path):
    assert refusal(tmp_path / "no" / "where") == (
        f"E-DATA-001 There is nothing at '{tmp_path}/no/where'.\nWhere: data.path\n"
        f"Why: The nearest folder that exists is '{tmp_path}'.\n"
        "Do: Correct data.path; `~` and environment variables are understood."
    )


def test_links_that_lead_back(tmp_path, folder):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    text = (
        "E-DATA-002 '{}' leads back to itself through a link.\nWhere: data.path\n"
        "Why: Its images could never be counted to an end.\n"
        "Do: Remove the link, or give the folder that it was meant to lead to."
    )
    assert refusal(tmp_path / "a") == text.format(tmp_path / "a")
    fill(folder, 2)
    (folder / "again").symlink_to(folder)
    assert refusal(folder) == text.format(folder / "again")


def test_a_file_that_no_source_reads(folder):
    path = write(folder / "a.png")
    assert refusal(path) == (
        f"E-DATA-004 No source can read '{path}'.\nWhere: data.path\n"
        "Why: It is a single file, and neither .npy nor metadata.jsonl nor metadata.csv. "
        "Kinds of sources: metadata, arrays, datasets, kohya, classes, images.\n"
        "Do: Give the folder that holds the images."
    )


def test_a_folder_without_images_says_what_was_looked_at(folder):
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.zip").write_bytes(b"PK")
    (folder / "a.txt").write_text("x")
    assert refusal(folder) == (
        f"E-DATA-003 No images in '{folder}', which was read as kind 'images'.\nWhere: data.path\n"
        "Why: Looked at: 1 sub-folders (they are always looked into) and 1 .zip, 1 captions. "
        "Images end in .png .jpg .jpeg .jpe .jfif .mpo .webp .bmp .gif .tif .tiff .avif .ppm .pgm .heic .heif.\n"
        "Do: Put images there, or correct data.path."
    )


# --- what is put aside ---


def test_broken_files_are_put_aside_by_name(folder):
    fill(folder, 40)
    (folder / "a.jpg").write_bytes(b"<html>")
    (folder / "b.png").write_bytes(encoded(noise(0, 64, 64))[:9000])
    (folder / "c.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "d.png")
    dataset = made(folder)
    assert len(dataset) == 40
    assert [str(entry)[:30] for entry in dataset.quarantined] == [
        "E-DATA-013 'a.jpg' is an HTML ",
        "E-DATA-011 'b.png' is cut off ",
        "E-DATA-010 'c.png' cannot be r",
        "E-DATA-010 'd.png' cannot be r",
    ]
    assert dataset.report().quarantined_kinds == {"E-DATA-010": 2, "E-DATA-011": 1, "E-DATA-013": 1}
    assert [str(notice) for notice in dataset.notices if notice.code == "W-DATA-003"] == [
        "W-DATA-003 4 images are put aside, for they cannot be used: 'a.jpg', 'b.png', 'c.png' and 1 more."
    ]


def test_too_many_broken_files_are_an_error(folder):
    fill(folder, 8)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"")
    assert refusal(folder) == (
        "E-DATA-006 2 of 10 images cannot be used (20.0%; at most 10.0% are allowed). The first:\n"
        "    E-DATA-012 'a.png' is empty (0 bytes).\n    E-DATA-012 'b.png' is empty (0 bytes).\n"
        "Where: data.max_quarantined\nWhy: So many broken files mean that a copy or a download went wrong.\n"
        "Do: Mend or remove them, or set data.max_quarantined higher to train on the rest."
    )
    assert len(made(folder, max_quarantined=0.2)) == 8


def test_nothing_but_broken_files(folder):
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    assert refusal(folder, max_quarantined=1.0) == (
        "E-DATA-007 None of 1 images can be used. The first:\n    E-DATA-012 'a.png' is empty (0 bytes).\n"
        "Where: data.path\nDo: Mend these files, or correct data.path."
    )


def test_a_bomb_is_put_aside_by_its_setting(folder):
    fill(folder, 20)
    (folder / "bomb.png").write_bytes(png(30_000, 30_000, 8, 2, b""))
    [entry] = made(folder).quarantined
    assert str(entry) == (
        "E-DATA-014 'bomb.png' is too large: 30000 x 30000 = 900,000,000 pixels, and data.max_pixels is 100,000,000."
    )


def test_names_that_are_no_text(folder):
    fill(folder, 20)
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:
        file.write(encoded(noise(50)))
    [entry] = made(folder).quarantined
    assert str(entry) == "E-DATA-017 '\\xff.png' has a name that is no UTF-8 text."


# --- what the report says ---


def test_the_report_counts_everything(folder):
    fill(folder / "a", 60)
    fill(folder / "b", 20, 100)
    write(folder / "b" / "twin.png", 100)
    write(folder / "b" / "dot.png", 300, 1, 1)
    write(folder / "b" / "strip.png", 301, 20, 200)
    (folder / "b" / "gray.png").write_bytes(encoded(Image.new("L", (16, 16), 9)))
    report = made(folder, balance="complement").report()
    assert json.loads(json.dumps(report.as_json())) == report.as_json()
    assert report.classes == {"a": 60, "b": 24}
    assert report.conversions == {"grayscale to RGB": 1}
    assert report.enlarged == 1
    assert report.extreme_aspect == 1
    assert report.duplicates == 1
    assert report.duplicate_pairs == [["b/000.png", "b/twin.png"]]
    assert report.stored_sizes == {"16 x 16": 82, "1 x 1": 1, "200 x 20": 1}
    assert report.held_out == 4
    assert report.classes_held_out == {"a": 3, "b": 1}
    assert sum(report.expected_shares.values()) == pytest.approx(1)
    lines = dict(report.lines())
    assert lines["images"] == "84: 80 to learn from, 4 held out"
    assert lines["class b"] == "24 images, 50.0% of the draws"
    assert {notice["code"] for notice in report.notices} == {"W-DATA-004", "W-DATA-005", "W-DATA-007"}


@pytest.mark.parametrize("count", [1, 3])
def test_very_few_images_work_and_are_warned_of(folder, count):
    fill(folder, count)
    told = []
    dataset = made(folder, report=lambda kind, **facts: told.append((kind, facts.get("code"))))
    assert len(dataset.train) == count
    assert not len(dataset.held_out)
    assert [str(notice) for notice in dataset.notices] == [
        f"W-DATA-001 Only {count} images to learn from: they will be learnt by heart. "
        "That is right for one subject in few steps, and too few for a model from scratch.",
        f"W-DATA-002 Nothing is held out, for {count} images are too few (it takes 64): there is no held-out loss.",
    ]
    assert told == [("indexing", None), ("warning", "W-DATA-001"), ("warning", "W-DATA-002")]
    assert dataset.report().held_out_note == "none, for fewer than 64 images are too few to set some aside"


def test_too_few_images_for_a_step(folder):
    dataset = made(fill(folder, 10), repeats=2)
    check_batch(dataset, batch_size=10, accumulation=2)
    with pytest.raises(DataError) as caught:
        check_batch(dataset, batch_size=48, accumulation=2)
    assert str(caught.value) == (
        "E-DATA-031 Too few images for one step: 48 a batch x 2 accumulated = 96, "
        "but an epoch has 10 images x 2 repeats = 20.\nWhere: train.batch_size\n"
        "Why: A step would use an image twice.\n"
        "Do: Choose one: train.batch_size = 10; data.repeats = 10; or add 38 images."
    )


def test_repeats_of_all_images_are_shown(folder):
    """Of those that are drawn, as in textual inversion: 5 images 100 times."""
    fill(folder, 70)
    assert made(folder).report().repeats == {}
    report = made(folder, repeats=100, held_out=5).report()
    assert (report.repeats, report.draws_an_epoch) == ({"100": 65}, 6500)
    assert dict(report.lines())["repeats"] == "65 images 100 x"


# --- the cache ---


def test_the_second_time_nothing_is_decoded(folder, monkeypatch):
    fill(folder, 5)
    (folder / "bad.png").write_bytes(b"")
    first = made(folder, max_quarantined=0.5)
    monkeypatch.setattr(manifest, "examine_files", None)
    second = made(folder, max_quarantined=0.5)
    assert second.id == first.id
    assert second.quarantined == first.quarantined
    assert np.array_equal(second.held.flat, first.held.flat)


def test_only_what_changed_is_looked_at_again(folder, monkeypatch):
    fill(folder, 5)
    (folder / "bad.png").write_bytes(b"")
    made(folder, max_quarantined=0.5)
    write(folder / "001.png", 77, 16, 18)
    write(folder / "new.png", 78)
    (folder / "000.png").unlink()
    seen = []
    real = manifest.examine_files
    monkeypatch.setattr(
        manifest, "examine_files", lambda source, names, fit: real(source, seen.extend(names) or names, fit)
    )
    dataset = made(folder, max_quarantined=0.5)
    assert seen == ["001.png", "new.png"]
    assert dataset.names == ["001.png", "002.png", "003.png", "004.png", "new.png"]
    expected = [noise(77, 16, 18)[:, 1:17], *(noise(seed) for seed in (2, 3, 4, 78))]
    assert np.array_equal(dataset.pixels(np.arange(5)), np.stack(expected))
    fresh = prepare(DataSettings(path=folder, max_quarantined=0.5, memory_gb=0), size=16)
    assert fresh.id == dataset.id
    assert np.array_equal(fresh.pixels(np.arange(5)), np.stack(expected))


def test_a_damaged_cache_is_made_anew(folder, cache):
    fill(folder, 5)
    before = made(folder)
    [file] = (cache / "data").glob("*.npz")
    content = bytearray(file.read_bytes())
    for spoilt in (b"", content[: len(content) // 2], content.replace(noise(2).tobytes(), noise(3).tobytes())):
        file.write_bytes(spoilt)
        assert index_cache.load(file) is None
        assert made(folder).id == before.id
        assert index_cache.load(file) is not None


def test_a_cache_that_cannot_be_written_costs_a_word(folder, cache):
    fill(folder, 5)
    cache.write_text("a file in its place")
    assert [str(notice) for notice in made(folder).notices if notice.code == "W-DATA-006"] == [
        f"W-DATA-006 The cache in '{cache}' could not be written (Not a directory): "
        "the images will be looked at anew at the next start."
    ]


def test_the_users_folder_is_never_written(folder):
    fill(folder, 5)
    before = sorted((path, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])
    made(folder)
    assert sorted((path, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")]) == before


def test_a_pool_of_processes_finds_the_same(folder, monkeypatch):
    fill(folder, 30)
    (folder / "bad.png").write_bytes(b"")
    alone = made(folder, memory_gb=0)
    monkeypatch.setattr(examine, "WORTH_A_POOL", 1)
    monkeypatch.setattr(examine, "CHUNK", 7)
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    pooled = made(folder)
    assert pooled.id == alone.id
    assert pooled.quarantined == alone.quarantined
    assert np.array_equal(pooled.pixels(np.arange(30)), alone.pixels(np.arange(30)))


# --- held out, and the lock ---


def test_the_split_is_by_content_and_class(folder):
    fill(folder / "a", 160)
    fill(folder / "b", 40, 500)
    fill(folder / "b" / "copies", 40, 500)
    dataset = made(folder)
    assert len(dataset.held_out) == 12
    assert dataset.class_counts(dataset.held_out) == {"a": 8, "b": 4}
    held = {dataset.pixel_hashes[row].tobytes() for row in dataset.held_out}
    assert not held & {dataset.pixel_hashes[row].tobytes() for row in dataset.train}
    assert made(folder).held_out.tolist() == dataset.held_out.tolist()
    assert made(folder, seed=1).held_out.tolist() != dataset.held_out.tolist()


@pytest.mark.parametrize(("held_out", "expected"), [("none", 0), (0.25, 20), (7, 7), (0, 0), ("auto", 4)])
def test_how_much_is_held_out(folder, held_out, expected):
    dataset = made(fill(folder, 80), held_out=held_out)
    assert len(dataset.held_out) == expected
    assert len(dataset.train) == 80 - expected


def test_more_held_out_than_there_is(folder):
    assert refusal(fill(folder, 5), held_out=5) == (
        "E-DATA-022 5 images are to be held out, but there are 5: none would be left to learn from.\n"
        "Where: data.held_out\nDo: Set data.held_out to a smaller count or to a share such as 0.05."
    )


def test_a_lock_holds_the_split_and_notices_every_change(folder):
    fill(folder / "a", 70)
    fill(folder / "b", 5, 500)
    first = made(folder)
    lock = json.loads(json.dumps(first.lock()))
    again = made(folder, seed=5, lock=lock)
    assert again.held_out.tolist() == first.held_out.tolist()
    assert again.id == first.id
    write(folder / "a" / "000.png", 900)
    (folder / "a" / "001.png").rename(folder / "a" / "zzz.png")
    (folder / "a" / "002.txt").write_text("now with a caption")
    assert refusal(folder, lock=lock) == (
        "E-DATA-021 The images are not those that the run was started with: 1 added ('a/zzz.png'); "
        "1 removed ('a/001.png'); 1 changed ('a/000.png'); "
        "74 labelled, captioned or masked anew ('a/000.png', 'a/002.png', 'a/003.png' and 71 more).\n"
        f"Where: {folder}\n"
        "Why: A run that goes on with other images is neither the old one nor a new one.\n"
        "Do: Put the files back as they were, or start a new run."
    )
    lock["version"] = 99
    assert refusal(folder, lock=lock) == (
        "E-DATA-024 data.lock.json has version 99; this Fusain reads version 1.\nWhere: data.lock.json\n"
        "Do: Resume with the Fusain that started the run, or start a new run."
    )


# --- settings ---


def test_settings_that_mean_nothing():
    with pytest.raises(ValueError, match="-1 is neither a share below 1 nor a whole number of images"):
        DataSettings(path="x", held_out=-1)
    with pytest.raises(ValueError, match="the weight of 'a' is -2, which is below 0"):
        DataSettings(path="x", class_weights={"a": -2})
    silent = DataSettings(path="x", class_weights={"a": 1}).silent_settings()
    assert silent == {"class_weights": "data.balance is 'none'; set it to 'weights'"}


# --- images smaller than what is learnt ---


def sized(folder, sizes):
    folder.mkdir()
    for number, (width, height) in enumerate(sizes):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)).save(
            folder / f"{number}.png"
        )
    return folder


def test_small_images_are_put_aside_on_wish_however_many_they_are(folder):
    sized(folder, [(20, 40), (15, 40), (40, 10), (16, 16), (8, 8), (64, 15)])
    assert len(made(folder)) == 6
    for memory in (2.0, 0.0):  # held, and read when they are drawn
        dataset = made(folder, small="skip", held_out="none", memory_gb=memory)
        assert dataset.names == ["0.png", "3.png"]
        assert dataset.pixels(np.arange(2)).shape == (2, 16, 16, 3)
        assert [entry.name for entry in dataset.quarantined] == ["1.png", "2.png", "4.png", "5.png"]
    assert str(dataset.quarantined[0]) == (
        "E-DATA-033 '1.png' has 15 x 40 pixels and is smaller than 16 x 16 (data.small = \"skip\")."
    )
    assert dataset.lock()["quarantined"][0] == ["1.png", "E-DATA-033"]
    (told,) = [str(notice) for notice in dataset.notices if notice.code == "W-DATA-045"]
    assert told == (
        'W-DATA-045 4 images are smaller than 16 x 16 and are put aside (data.small = "skip"): '
        "'1.png', '2.png', '4.png' and 1 more."
    )
    assert "W-DATA-003" not in [notice.code for notice in dataset.notices]


def test_nothing_but_small_images(folder):
    sized(folder, [(8, 8), (9, 40)])
    assert refusal(folder, small="skip").startswith(
        "E-DATA-007 None of 2 images can be used. The first:\n"
        "    E-DATA-033 '0.png' has 8 x 8 pixels and is smaller than 16 x 16 (data.small = \"skip\").\n"
    )


def test_broken_images_still_count_beside_small_ones(folder):
    sized(folder, [(8, 8), (40, 40), (40, 40)])
    (folder / "broken.png").write_bytes(b"nothing")
    assert refusal(folder, small="skip").startswith("E-DATA-006 ")
