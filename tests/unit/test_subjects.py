"""Subject images and class images: captions, pairs, weights, kohya's layouts, and the whole text of what is said."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fusain.data.class_images import DrawnImages
from fusain.data.dataset import DataSettings, check_batch, prepare
from fusain.data.loader import Loader
from fusain.data.subjects import wordings
from fusain.errors import FusainError
from fusain.models import identifiers
from fusain.models.bases import fresh
from fusain.worlds.mini import vocabulary
from tests.unit.pictures import fill, write


def made(path, drawn=None, *, batch_size=2, needs_captions=True, **settings):
    given = DataSettings.model_validate({"path": path, **settings})
    return prepare(given, size=16, batch_size=batch_size, needs_captions=needs_captions, drawn=drawn)


def refusal(path, drawn=None, **settings):
    with pytest.raises(FusainError) as caught:
        made(path, drawn, **settings)
    return caught.value.exit_code, str(caught.value)


def said(dataset):
    return [notice.message.what for notice in dataset.notices]


def batches(dataset, count, batch_size=2):
    loader = iter(Loader(dataset, dataset.settings, seed=1, batch_size=batch_size))
    return [next(loader) for _ in range(count)]


@pytest.fixture
def ada(tmp_path):
    fill(tmp_path / "ada", 3)
    return tmp_path / "ada"


@pytest.fixture
def dogs(tmp_path):
    """What draws class images: each prompt's lie ready."""

    def drawn(prompts):
        asked.append(list(prompts))
        for number, prompt in enumerate(prompts):
            fill(tmp_path / "drawn" / prompt, 5, 50 + 10 * number)
        names = {prompt: [f"{prompt}/{number:03d}.png" for number in range(5)] for prompt in prompts}
        return DrawnImages(tmp_path / "drawn", names)

    asked = drawn.asked = []
    return drawn


DOG = {"subject": {"identifier": "sks", "class_word": "dog"}, "class_images": {"weight": 0.5}}


def test_subject_images_are_called_by_the_identifier_and_class_images_by_the_class(ada, dogs):
    dataset = made(ada, dogs, **DOG)
    assert dogs.asked == [["a photo of dog"]]
    assert dataset.captions == ["a photo of sks dog"] * 3 + ["a photo of dog"] * 5
    assert dataset.weights.tolist() == [1.0] * 3 + [0.5] * 5
    assert dataset.names[3] == "class images/a photo of dog/000.png"
    assert dataset.entries == 6
    assert said(dataset) == []
    lines = dict(dataset.report().lines())
    assert lines["images"] == "3: 3 to learn from, 0 held out"
    assert lines["subject sks dog"] == "3 images"
    assert lines["class images"] == "5 of weight 0.5, 3 of them an epoch"


def test_every_batch_is_half_and_half_and_class_images_come_up_in_turn(ada, dogs):
    dataset = made(ada, dogs, **DOG)
    drawn = batches(dataset, 5, batch_size=4)
    for batch in drawn:
        assert batch.weights_B.tolist() == [1.0, 0.5, 1.0, 0.5]
        assert batch.captions == ("a photo of sks dog", "a photo of dog") * 2
    ones = [name for batch in drawn for name in dataset.names_of(batch.items)[0::2]]
    others = [name for batch in drawn for name in dataset.names_of(batch.items)[1::2]]
    assert all(set(ones[start : start + 3]) == set(dataset.names[:3]) for start in (0, 3, 6))
    assert all(set(others[start : start + 5]) == set(dataset.names[3:]) for start in (0, 5))
    assert others[:5] != others[5:]
    alone = [name for batch in batches(dataset, 20, batch_size=1) for name in dataset.names_of(batch.items)]
    assert alone == [name for pair in zip(ones, others, strict=True) for name in pair]
    pixels = batches(dataset, 1, batch_size=4)[0].pixels_BCHW
    assert len({row.numpy().tobytes() for row in pixels}) == 4


def test_workers_change_nothing(ada, dogs):
    dataset = made(ada, dogs, **DOG)
    loader = Loader(dataset, dataset.settings.model_copy(update={"workers": 2}), seed=1, batch_size=2)
    ahead = iter(loader)
    for batch, other in zip(batches(dataset, 5), (next(ahead) for _ in range(5)), strict=True):
        assert batch.items.tolist() == other.items.tolist()
        assert batch.pixels_BCHW.equal(other.pixels_BCHW)
    ahead.close()


def test_repeats_make_longer_epochs_and_no_other_pairs(ada, dogs):
    dataset = made(ada, dogs, **DOG, repeats=4)
    assert dataset.entries == 24
    counts = Counter(dataset.names_of(np.concatenate([batch.items for batch in batches(dataset, 12)])))
    assert sorted(counts.values()) == [2, 2, 2, 3, 3, 4, 4, 4]


def test_without_a_weight_nothing_is_drawn(ada):
    dataset = made(ada, subject=DOG["subject"])
    assert len(dataset) == dataset.entries == 3
    assert dataset.class_draws == 0


def test_where_nobody_reads_captions_there_are_no_class_images(ada):
    dataset = made(ada, needs_captions=False, **DOG)
    assert (len(dataset), dataset.captions) == (3, None)


def test_nothing_of_the_class_is_held_out(tmp_path, dogs):
    fill(tmp_path / "ada", 30)
    dataset = made(tmp_path / "ada", dogs, **DOG, held_out=6)
    assert len(dataset.held_out) == 6
    assert not dataset.is_class_image[dataset.held_out].any()
    assert dataset.entries == 48
    fill(tmp_path / "many", 64)
    assert len(made(tmp_path / "many", dogs, **DOG).held_out) == 3


def test_words_that_call_for_the_subject_stay_out_of_class_captions(ada, dogs):
    wording = {"trigger_word": "ohwx", "prefix": "a drawing of", "suffix": ", in ink", "shuffle_tokens": True}
    dataset = made(ada, dogs, **DOG, captions=wording)
    assert dataset.said(np.asarray([0, 3])) == ("ohwx, a drawing of a photo of sks dog, in ink", "a photo of dog")


def test_images_with_captions_keep_them(ada):
    (ada / "000.txt").write_text("sks running")
    (ada / "001.txt").write_text("asks for a ball")
    dataset = made(ada, subject=DOG["subject"])
    assert dataset.captions == ["sks running", "asks for a ball", "a photo of sks dog"]
    assert [str(notice) for notice in dataset.notices] == [
        "W-DATA-040 The identifier 'sks' does not occur in 1 of 3 captions: '001.png'. What these images show is not "
        "learnt by that word. Write it into the captions, or set data.subject.use_captions = false."
    ]
    replaced = made(ada, subject={**DOG["subject"], "use_captions": False, "prompt": "{identifier}, {class_word}"})
    assert replaced.captions == ["sks, dog"] * 3
    assert said(replaced) == []


def test_one_image_is_allowed_and_said(tmp_path, dogs):
    fill(tmp_path / "one", 1)
    dataset = made(tmp_path / "one", dogs, **DOG)
    check_batch(dataset, batch_size=2)
    assert [str(notice) for notice in dataset.notices] == [
        "W-DATA-041 One image alone shows 'sks': 000.png. Its pose and background are learnt as a part of the subject. "
        "Add some more, each with another pose and background; 4 to 10 do well."
    ]


def test_an_empty_subject_folder(tmp_path, dogs):
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", dogs, **DOG) == (4, (
        f"E-DATA-003 No images in '{tmp_path / 'empty'}', which was read as kind 'images'.\n"
        "Where: data.path\n"
        "Why: Looked at: 0 sub-folders (they are always looked into) and no file at all. Images end in .png .jpg .jpeg "
        ".jpe .jfif .mpo .webp .bmp .gif .tif .tiff .avif .ppm .pgm .heic .heif.\n"
        "Do: Put images there, or correct data.path."
    ))  # fmt: skip
    assert dogs.asked == []


def test_class_images_without_a_class_word(ada, dogs):
    wanted = {"subject": {"identifier": "sks"}, "class_images": {"weight": 1}}
    assert refusal(ada, dogs, **wanted) == (4, (
        'E-DATA-064 What the class images show is not said: there is no class word for "a photo of {class_word}".\n'
        "Where: data.subject.class_word\n"
        "Why: The class word is the kind of thing that the subject is.\n"
        "Do: Set data.subject.class_word, as in: --data.subject.class_word dog"
    ))  # fmt: skip
    assert dogs.asked == []
    made(ada, dogs, subject={"identifier": "sks"}, class_images={"weight": 1, "prompt": "a dog"})
    assert dogs.asked == [["a dog"]]


def test_class_images_of_ones_own(ada, tmp_path):
    own = tmp_path / "own"
    fill(own / "deep", 2, 80)
    write(own / "captioned.png", 90)
    (own / "captioned.txt").write_text("a dog in the sun")
    dataset = made(ada, subject=DOG["subject"], class_images={"weight": 1, "path": own})
    assert dataset.names[3:] == [f"class images/{name}" for name in ("captioned.png", "deep/000.png", "deep/001.png")]
    assert dataset.captions[3:] == ["a dog in the sun", "a photo of dog", "a photo of dog"]
    assert dataset.entries == 6
    again = made(ada, subject=DOG["subject"], class_images={"weight": 1, "path": own})
    assert again.id == dataset.id
    write(own / "deep" / "000.png", 99)
    assert made(ada, subject=DOG["subject"], class_images={"weight": 1, "path": own}).id != dataset.id


def test_own_class_images_that_are_not_there(ada, tmp_path):
    wanted = {"subject": DOG["subject"], "class_images": {"weight": 1, "path": tmp_path / "own"}}
    assert refusal(ada, **wanted) == (4, (
        f"E-DATA-001 There is nothing at '{tmp_path / 'own'}'.\n"
        "Where: data.class_images.path\n"
        f"Why: The nearest folder that exists is '{tmp_path}'.\n"
        "Do: Correct data.class_images.path; `~` and environment variables are understood."
    ))  # fmt: skip
    (tmp_path / "own").mkdir()
    assert refusal(ada, **wanted) == (4, (
        f"E-DATA-065 No class images in '{tmp_path / 'own'}'.\n"
        "Where: data.class_images.path\n"
        "Do: Put images of the class there, or leave out data.class_images.path to have them drawn."
    ))  # fmt: skip


def test_an_array_has_no_class_images(tmp_path, dogs):
    np.save(tmp_path / "images.npy", np.zeros((4, 16, 16, 3), np.uint8))
    assert refusal(tmp_path / "images.npy", dogs, **DOG) == (4, (
        "E-DATA-066 Class images stand beside image files only, and there is an array.\n"
        "Where: data.class_images.weight\n"
        "Why: An array has no names to tell the two apart.\n"
        "Do: Save the images as files in a folder, or set data.class_images.weight = 0."
    ))  # fmt: skip


def test_broken_subject_images_are_not_made_up_for_by_class_images(ada, dogs):
    for name in ("000.png", "001.png", "002.png"):
        (ada / name).write_bytes(b"no image")
    code, text = refusal(ada, dogs, **DOG)
    assert (code, text.splitlines()[0]) == (4, "E-DATA-007 None of 3 images can be used. The first:")


def test_a_broken_image_is_stood_in_for_by_its_own_kind(ada, dogs):
    dataset = made(ada, dogs, **DOG, memory_gb=0, max_quarantined=0.9)
    (ada / "001.png").write_bytes(b"")
    for batch in batches(dataset, 6):
        assert batch.captions == ("a photo of sks dog", "a photo of dog")
        assert dataset.is_class_image[batch.items].tolist() == [False, True]


def kohya(root: Path) -> Path:
    fill(root / "10_sks dog", 2)
    fill(root / "5_ohwx cat", 3, 10)
    return root


def test_several_subjects_in_kohya_folders(tmp_path, dogs):
    dataset = made(kohya(tmp_path / "two"), dogs, class_images={"weight": 1.0})
    assert dogs.asked == [["a photo of dog", "a photo of cat"]]
    assert dataset.captions[:5] == ["sks dog"] * 2 + ["ohwx cat"] * 3
    assert Counter(dataset.captions[5:]) == {"a photo of dog": 5, "a photo of cat": 5}
    assert dataset.entries == 2 * (2 * 10 + 3 * 5)
    lines = dict(dataset.report().lines())
    assert (lines["subject sks dog"], lines["subject ohwx cat"]) == ("2 images", "3 images")
    assert lines["repeats"] == "3 images 5 x, 2 images 10 x"
    counts = Counter(dataset.names_of(np.concatenate([batch.items for batch in batches(dataset, 35)])))
    assert {name: count for name, count in counts.items() if not name.startswith("class")} == {
        "10_sks dog/000.png": 10,
        "10_sks dog/001.png": 10,
        **{f"5_ohwx cat/00{number}.png": 5 for number in range(3)},
    }
    assert said(dataset) == []


def test_kohya_folders_are_plain_images_where_nobody_asks_for_a_subject(tmp_path):
    dataset = made(kohya(tmp_path / "two"))
    assert dataset.subjects == ()
    assert said(dataset)[0] == "Only 5 images to learn from: they will be learnt by heart."


def test_kohyas_reg_folder_beside_img(tmp_path):
    kohya(tmp_path / "img")
    fill(tmp_path / "reg" / "2_dog", 3, 40)
    fill(tmp_path / "reg" / "1_cat", 1, 44)
    fill(tmp_path / "model" / "sample", 2, 60)
    dataset = made(tmp_path, class_images={"weight": 0.3})
    assert dataset.source.kind == "kohya"
    assert dataset.captions == ["sks dog"] * 2 + ["ohwx cat"] * 3 + ["cat"] + ["dog"] * 3
    assert dataset.weights.tolist() == pytest.approx([1.0] * 5 + [0.3] * 4)
    assert [name for name in dataset.names if name.startswith("model")] == []
    lines = dict(dataset.report().lines())
    assert lines["class images"] == "4 of weight 0.3, 35 of them an epoch"
    assert lines["class repeats"] == "1 images 1 x, 3 images 2 x"
    turn = [dataset.names_of(batch.items)[1] for batch in batches(dataset, 7)]
    assert Counter(turn) == {"reg/1_cat/000.png": 1, **{f"reg/2_dog/00{number}.png": 2 for number in range(3)}}


@pytest.mark.parametrize("where", ["", "img/", "reg/"])
def test_a_kohya_folder_that_shows_nothing_of_what_it_names_is_refused(tmp_path, dogs, where):
    kohya(tmp_path / ("img" if where else ""))
    if where:
        fill(tmp_path / "reg" / "1_dog", 3, 40)
    (tmp_path / where / "3_zwx bird" / "deeper").mkdir(parents=True)
    (tmp_path / where / "3_zwx bird" / "deeper" / "notes.txt").write_text("to be painted")
    (tmp_path / "log").mkdir()
    assert refusal(tmp_path, dogs, class_images={"weight": 1}) == (4, (
        f"E-DATA-069 Folders of a kohya data set hold no image: '{where}3_zwx bird'.\n"
        f"Where: {tmp_path}\n"
        "Why: Each names a subject or a class, of which nothing would be learnt.\n"
        "Do: Put their images there, or remove them."
    ))  # fmt: skip
    fill(tmp_path / where / "3_zwx bird" / "deeper", 1, 70)
    assert "sks dog" in made(tmp_path, dogs, class_images={"weight": 1}).captions


def test_an_empty_reg_folder_is_said(tmp_path, dogs):
    kohya(tmp_path / "img")
    (tmp_path / "reg").mkdir()
    dataset = made(tmp_path, dogs, class_images={"weight": 1})
    assert [str(notice) for notice in dataset.notices] == [
        f"W-DATA-048 There is no class image in '{tmp_path / 'reg'}': where data.class_images.weight asks for some, "
        "they are drawn from the base. Put images in folders such as '1_dog' there, or remove it."
    ]
    assert dogs.asked == [["a photo of dog", "a photo of cat"]]
    (tmp_path / "reg").rmdir()
    assert said(made(tmp_path, dogs, class_images={"weight": 1})) == []


def test_kohyas_reg_folder_is_passed_over_without_a_weight(tmp_path, dogs):
    kohya(tmp_path / "img")
    fill(tmp_path / "reg" / "1_dog", 3, 40)
    dataset = made(tmp_path, subject={"identifier": "sks"})
    assert (len(dataset), dataset.entries) == (5, 35)
    assert said(dataset) == ["3 class images in 'reg/' are passed over: data.class_images.weight is 0."]
    fill(tmp_path / "own", 2, 90)
    dataset = made(tmp_path, class_images={"weight": 1, "path": tmp_path / "own", "prompt": "a dog"})
    assert said(dataset) == ["3 class images in 'reg/' are passed over: data.class_images.path names others."]
    assert dataset.captions[5:] == ["a dog"] * 2


def test_own_class_images_in_kohya_folders(ada, tmp_path):
    fill(tmp_path / "own" / "3_dog", 2, 40)
    dataset = made(ada, subject=DOG["subject"], class_images={"weight": 1, "path": tmp_path / "own"})
    assert dataset.captions[3:] == ["dog"] * 2
    assert dict(dataset.report().lines())["class repeats"] == "2 images 3 x"


def test_class_images_of_each_caption(ada, tmp_path):
    said_of = ["sks, a red dog", "a red dog", "a blue SKS dog"]
    lines = [json.dumps({"file_name": f"{n:03d}.png", "text": text}) for n, text in enumerate(said_of)]
    (ada / "metadata.jsonl").write_text("\n".join(lines))
    fill(tmp_path / "drawn" / "one", 2, 40)
    fill(tmp_path / "drawn" / "other", 2, 60)
    asked = []

    def drawn(prompts):
        asked.extend(prompts)
        of = zip(prompts, ("one", "other"), strict=True)
        return DrawnImages(tmp_path / "drawn", {prompt: [f"{at}/000.png", f"{at}/001.png"] for prompt, at in of})

    wanted = {"weight": 1, "prompt": "{caption}"}
    dataset = made(ada, drawn, subject={"identifier": "sks"}, class_images=wanted)
    assert asked == ["a red dog", "a blue dog"]
    assert dataset.captions == [*said_of, "a red dog", "a red dog", "a blue dog", "a blue dog"]


def test_each_wording_of_a_prompt_has_class_images_of_its_own(ada, dogs):
    assert wordings("a {dog|cat}{, running|}") == ["a dog, running", "a dog", "a cat, running", "a cat"]
    assert wordings("a photo of {class_word}") == ["a photo of {class_word}"]
    wanted = {"weight": 1, "prompt": "a {class_word}{|, on the left|, on the left}"}
    dataset = made(ada, dogs, subject={"identifier": "sks", "class_word": "dog"}, class_images=wanted)
    assert dogs.asked == [["a dog", "a dog, on the left"]]
    assert dataset.captions[3:] == ["a dog"] * 5 + ["a dog, on the left"] * 5


def test_own_class_images_without_captions_for_several_classes(tmp_path):
    fill(tmp_path / "own", 2, 40)
    wanted = {"weight": 1, "path": tmp_path / "own"}
    assert refusal(kohya(tmp_path / "two"), class_images=wanted) == (4, (
        "E-DATA-067 Class images without a caption could show any of several classes: "
        "'a photo of dog', 'a photo of cat'.\n"
        "Where: data.class_images\n"
        "Do: Write their captions, or sort them into folders such as '1_dog'."
    ))  # fmt: skip


def test_buckets_keep_one_shape_a_batch_and_the_halves_of_an_epoch(tmp_path):
    for number in range(6):
        write(tmp_path / "ada" / f"{number}.png", number, height=16, width=32 if number % 2 else 16)
    for number in range(4):
        write(tmp_path / "own" / f"{number}.png", 50 + number)
    given = {**DOG, "class_images": {"weight": 0.5, "path": tmp_path / "own"}, "buckets": True}
    dataset = made(tmp_path / "ada", batch_size=3, **given)
    assert dataset.class_draws == 6
    steps = dataset.entries // 3
    seen = Counter()
    for batch in batches(dataset, 2 * steps, batch_size=3):
        assert len({tuple(dataset.shapes[row]) for row in batch.items}) == 1
        assert batch.weights_B.tolist() == [0.5 if one else 1.0 for one in dataset.is_class_image[batch.items]]
        seen.update(dataset.names_of(batch.items))
    assert set(seen) == set(dataset.names)
    assert sum(count for name, count in seen.items() if name.startswith("class")) >= 12


@pytest.fixture(scope="module")
def mini():
    return vocabulary.tokenizer(["a picture of someone with a red hat", "a red face"] * 50)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("sks", None),
        ("ohwx", None),
        (
            "hat",
            "W-DATA-044 The identifier 'hat' is a common word. (data.subject.identifier) The base has a meaning for "
            "it, which mixes with the subject and is lost. Take a rare word such as 'sks'.",
        ),
        (
            "xq7",
            "W-DATA-043 The identifier 'xq7' is 3 tokens to this base: 'x' + 'q' + '7'. (data.subject.identifier) "
            "Their meanings mix with the subject. A short rare word such as 'sks' is one token.",
        ),
    ],
)
def test_identifiers_by_the_miniatures_tokenizer(mini, word, text):
    assert [str(notice) for notice in identifiers.unfit(mini, [word, word])] == ([] if text is None else [text])


def test_in_a_large_vocabulary_the_frequent_half_is_common():
    between = [f"w{number}" for number in range(24_000)]
    merges = [("w", "q</w>"), ("w", "z</w>")]
    tokenizer = fresh.tokenizer_of([*fresh.alphabet(), "wq</w>", *between, "wz</w>"], merges)
    (notice,) = identifiers.unfit(tokenizer, ["wq", "wz"])
    assert notice.message.what == "The identifier 'wq' is a common word."
