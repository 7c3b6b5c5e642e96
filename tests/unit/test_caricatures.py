"""The drawn faces keep their promises: pure functions, every attribute shows, captions tell the truth, faults known."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from fusain.data import cores
from fusain.errors import StorageError
from fusain.worlds import caricatures
from fusain.worlds.caricature_parts import characters
from fusain.worlds.caricature_parts.combinations import is_kept_out
from fusain.worlds.caricatures import (
    ATTRIBUTES,
    CHARACTERS,
    FAULTS,
    KEPT_BACK_STYLE,
    SIDE,
    STYLES,
    Caricatures,
    Face,
    caption,
    character,
    draw,
    face_box,
    spoken,
    unseen,
    world,
    write_folder,
)

PLAIN = {
    "style": "flat",
    "shape": "round",
    "skin": "tan",
    "hair": "brown",
    "cut": "short",
    "eyes": "round",
    "glasses": "none",
    "nose": "small",
    "mouth": "smile",
    "beard": "none",
    "hat": "none",
    "hat_colour": "red",
    "ears": "small",
    "background": "blue",
    "position": "centre",
    "clothes": "white",
}
COMBINED = ("hair", "glasses", "beard", "hat", "background")


def face(seed: int = 3, **values: str) -> Face:
    return Face({**PLAIN, **values}, seed)


@pytest.fixture(scope="module")
def faces() -> Caricatures:
    return world(300, seed=1)


def random_faces(count: int) -> list[Face]:
    chance = Random(0)
    return [Face({name: chance.choice(values) for name, values in ATTRIBUTES.items()}, seed) for seed in range(count)]


def test_the_attributes_are_named_in_order() -> None:
    assert tuple(ATTRIBUTES) == tuple(PLAIN)
    assert ATTRIBUTES["style"] == STYLES
    assert KEPT_BACK_STYLE in STYLES


def test_an_image_is_a_function_of_its_face() -> None:
    for style in STYLES:
        np.testing.assert_array_equal(draw(face(style=style)), draw(face(style=style)))
        assert not np.array_equal(draw(face(3, style=style)), draw(face(4, style=style)))


def test_a_world_is_a_function_of_its_seed() -> None:
    first, again, other = world(20, seed=3), world(20, seed=3), world(20, seed=4)
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.faces, first.captions, first.french) == (again.faces, again.captions, again.french)
    assert not np.array_equal(first.images, other.images)


def test_a_larger_world_begins_with_a_smaller_one() -> None:
    small, large = world(10, seed=5), world(20, seed=5)
    np.testing.assert_array_equal(small.images, large.images[:10])
    assert small.captions == large.captions[:10]


@pytest.mark.parametrize("style", STYLES)
def test_a_larger_scale_draws_the_same_picture_anew(style: str) -> None:
    small, large = draw(face(style=style)), draw(face(style=style), scale=4)
    assert (small.shape, small.dtype, large.shape) == ((SIDE, SIDE, 3), np.uint8, (4 * SIDE, 4 * SIDE, 3))
    reduced = large.reshape(SIDE, 4, SIDE, 4, 3).mean((1, 3))
    assert np.abs(reduced - small).mean() < 4.0
    assert (large != large[::4, ::4].repeat(4, 0).repeat(4, 1)).any()


def test_several_processes_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    alone = world(30, seed=6, styles=STYLES, bad_share=0.4)
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(caricatures, "_PIECE", 7)
    together = world(30, seed=6, styles=STYLES, bad_share=0.4)
    np.testing.assert_array_equal(together.images, alone.images)
    assert (together.faces, together.captions, together.french) == (alone.faces, alone.captions, alone.french)
    assert together.faults == alone.faults


def test_nearly_all_images_are_distinct(faces: Caricatures) -> None:
    assert len({image.tobytes() for image in faces.images}) == len(faces)


@pytest.mark.parametrize("style", STYLES)
def test_every_value_changes_the_picture(style: str) -> None:
    for name, values in ATTRIBUTES.items():
        hat = "cap" if name == "hat_colour" else "none"
        pictures = [draw(face(**{"style": style, "hat": hat, name: value})).astype(float) for value in values]
        for one, two in combinations(range(len(values)), 2):
            assert np.abs(pictures[one] - pictures[two]).mean() > 0.5, (style, name, values[one], values[two])


@pytest.mark.parametrize("hat", ATTRIBUTES["hat"])
def test_a_hat_hides_neither_the_cut_nor_the_colour_of_hair(hat: str) -> None:
    for name in ("cut", "hair"):
        pictures = [draw(face(**{"hat": hat, name: value})).astype(float) for value in ATTRIBUTES[name]]
        for one, two in combinations(pictures, 2):
            assert np.abs(one - two).mean() > 0.5, (hat, name)


def test_what_is_unseen_changes_no_pixel() -> None:
    found: Counter[str] = Counter()
    for seen in random_faces(60):
        for name in unseen(seen):
            for value in ATTRIBUTES[name]:
                other = Face({**seen.attributes, name: value}, seen.seed)
                np.testing.assert_array_equal(draw(seen), draw(other), err_msg=name)
                found[name] += 1
    assert set(found) == {"hair", "eyes", "hat_colour"}


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_value_has_words_of_its_own(language: Literal["en", "fr"]) -> None:
    for name, values in ATTRIBUTES.items():
        around = {"hat": "cap"} if name == "hat_colour" else {}
        said: dict[str, str] = {}
        for value, seed in product(values, range(30)):
            text = caption(face(**{**around, name: value}), seed, language, names=(name,))
            assert said.setdefault(text, value) == value, text


def test_captions_never_speak_of_what_is_unseen() -> None:
    for number, someone in enumerate(random_faces(300)):
        assert spoken(someone, number).isdisjoint(unseen(someone))
        assert spoken(someone, number, names=ATTRIBUTES) == set(ATTRIBUTES) - unseen(someone)


def test_captions_do_not_depend_on_what_they_do_not_speak_of() -> None:
    for number, someone in enumerate(random_faces(100)):
        said = spoken(someone, number)
        for name in set(ATTRIBUTES) - said - {"cut"}:
            for value in ATTRIBUTES[name]:
                other = Face({**someone.attributes, name: value}, 0)
                if unseen(other) == unseen(someone):
                    assert caption(other, 7, names=said) == caption(someone, 7, names=said)


def test_exactly_the_names_asked_for_are_spoken_of() -> None:
    names = ("hair", "glasses", "hat_colour")
    assert spoken(face(hat="cap"), 1, names=names) == frozenset(names)
    assert spoken(face(), 1, names=names) == {"hair", "glasses"}
    assert caption(face(), 2, names=()) in {"a person", "someone", "a character"}


def test_captions_are_varied_and_short() -> None:
    someone = face(hat="cap", beard="full")
    texts = {caption(someone, seed) for seed in range(50)}
    assert len(texts) == 50
    shares = [len(spoken(one, one.seed)) / (len(ATTRIBUTES) - len(unseen(one))) for one in random_faces(1_500)]
    assert np.mean(shares) == pytest.approx(0.80, abs=0.03)
    assert max(shares) == 1.0
    for language in ("en", "fr"):
        lengths = [len(caption(one, one.seed, language, names=ATTRIBUTES).split()) for one in random_faces(500)]
        assert max(lengths) <= 60


def test_the_vocabulary_is_small() -> None:
    for language, most in (("en", 120), ("fr", 150)):
        texts = [caption(one, one.seed, language) for one in random_faces(1_500)]
        words = {word for text in texts for word in text.replace(",", " ").split()}
        assert len(words) < most
        assert all(text == text.lower() for text in texts)
        assert all(text.isascii() for text in texts) == (language == "en")


@pytest.mark.parametrize(
    ("values", "seed", "names", "english", "french"),
    [
        (
            {
                "style": "chalk",
                "hair": "red",
                "cut": "long",
                "hat": "top hat",
                "hat_colour": "blue",
                "glasses": "square",
                "beard": "moustache",
                "ears": "pointed",
                "background": "purple",
                "nose": "big",
            },
            2,
            tuple(ATTRIBUTES),
            (
                "a person with a moustache, round eyes, tan skin, long red hair, a smiling mouth, pointed ears, a "
                "big nose and a round head, wearing square glasses, a blue top hat and white clothes, against a "
                "purple background, in the centre, drawn in chalk"
            ),
            (
                "une personne avec une moustache, les yeux ronds, la peau bronzée, des cheveux longs et roux, une "
                "bouche souriante, des oreilles pointues, un gros nez et une tête ronde, portant des lunettes "
                "carrées, un haut-de-forme bleu et un pull blanc, sur fond violet, au centre, à la craie"
            ),
        ),
        (
            {
                "style": "ink",
                "cut": "bald",
                "hair": "red",
                "beard": "full",
                "hat": "cap",
                "hat_colour": "green",
                "skin": "fair",
                "mouth": "frown",
                "shape": "heart",
            },
            3,
            tuple(ATTRIBUTES),
            (
                "an ink portrait of someone with fair skin, a small nose, a heart shaped face, a frown, a full red "
                "beard, small ears, a bald head, round eyes and no glasses, wearing a green cap and white clothes, "
                "in the centre, on a blue background"
            ),
            (
                "un portrait à l'encre de quelqu'un avec la peau claire, un petit nez, un visage en cœur, une "
                "moue, une grande barbe rousse, de petites oreilles, un crâne chauve et les yeux ronds, portant "
                "une casquette verte et un pull blanc, sans lunettes, au centre, sur un fond bleu"
            ),
        ),
        (
            {
                "style": "glass",
                "cut": "bun",
                "hair": "grey",
                "eyes": "wide",
                "glasses": "dark",
                "position": "left",
                "clothes": "black",
            },
            4,
            tuple(ATTRIBUTES),
            (
                "a stained glass portrait of a person with grey hair in a bun, a small nose, a round head, tan "
                "skin, little ears, a smiling mouth, no beard and no hat, wearing dark glasses and black clothes, "
                "to the left, against a blue background"
            ),
            (
                "un portrait en vitrail d'une personne avec des cheveux gris en chignon, un petit nez, une tête "
                "ronde, la peau bronzée, de petites oreilles et une bouche souriante, portant des lunettes noires "
                "et un pull noir, sans barbe, sans chapeau, à gauche, sur fond bleu"
            ),
        ),
        (
            {"cut": "bald", "hair": "blond", "beard": "goatee", "hat": "crown", "hat_colour": "green"},
            1,
            ("hair", "hat_colour"),
            "a picture of a person with blond facial hair, wearing a green hat",
            "une image d'une personne avec des poils blonds au visage, portant un chapeau vert",
        ),
        (
            {"cut": "curly", "hair": "black", "hat": "beanie", "hat_colour": "yellow", "beard": "full"},
            6,
            ("cut", "hair", "beard", "hat", "style"),
            "a flat drawing of a person with a full beard and curly black hair, wearing a beanie",
            "un dessin plat d'une personne avec des cheveux bouclés et noirs et une grande barbe, portant un bonnet",
        ),
        (
            {"style": "caricature", "cut": "short", "background": "white", "skin": "dark", "hat": "none"},
            4,
            ("background", "clothes", "skin", "cut", "hat", "style"),
            (
                "a caricature portrait of someone with short hair, dark skin and no hat, wearing white clothes, "
                "against a white background"
            ),
            (
                "un portrait en caricature de quelqu'un avec des cheveux courts et la peau foncée, portant un pull "
                "blanc, sans chapeau, sur fond blanc"
            ),
        ),
    ],
)
def test_whole_sentences(values: dict[str, str], seed: int, names: tuple[str, ...], english: str, french: str) -> None:
    assert caption(face(**values), seed, names=names) == english
    assert caption(face(**values), seed, "fr", names=names) == french


def test_kept_out_combinations_leave_every_pair_of_values_in_the_world() -> None:
    choices = [ATTRIBUTES[name] for name in COMBINED]
    kept_out, all_of = Counter[tuple[object, ...]](), Counter[tuple[object, ...]]()
    for values in product(*choices):
        is_out = is_kept_out(face(**dict(zip(COMBINED, values, strict=True))))
        for pair in combinations(enumerate(values), 2):
            all_of[pair] += 1
            kept_out[pair] += is_out
    shares = [kept_out[pair] / all_of[pair] for pair in all_of]
    assert min(shares) > 0.03
    assert max(shares) < 0.10
    assert np.mean(shares) == pytest.approx(1 / 16, abs=0.005)


def test_a_world_draws_the_combinations_asked_for(faces: Caricatures) -> None:
    assert not any(is_kept_out(one) for one in faces.faces)
    assert all(is_kept_out(one) for one in world(40, seed=2, combinations="kept out").faces)
    assert 0 < sum(is_kept_out(one) for one in world(200, seed=2, combinations="all").faces) < 40


def test_values_come_in_their_shares(faces: Caricatures) -> None:
    for name, values in ATTRIBUTES.items():
        counts = Counter(one.attributes[name] for one in faces.faces)
        expected = set(values) - {KEPT_BACK_STYLE}
        assert set(counts) == expected
        assert min(counts.values()) > 15
    assert Counter(one.attributes["glasses"] for one in faces.faces)["none"] == pytest.approx(150, abs=35)
    assert {one.attributes["style"] for one in world(20, styles=("chalk", KEPT_BACK_STYLE)).faces} == {
        "chalk",
        KEPT_BACK_STYLE,
    }


def test_a_character_keeps_its_looks() -> None:
    assert len(CHARACTERS) == 6
    for name, looks in CHARACTERS.items():
        shown = [character(name, seed, style="ink", hats=("cap", "none"), positions=("left",)) for seed in range(8)]
        for one in shown:
            assert looks.items() <= one.attributes.items()
            assert tuple(one.attributes) == tuple(ATTRIBUTES)
            assert (one.attributes["style"], one.attributes["position"]) == ("ink", "left")
        assert {one.attributes["hat"] for one in shown} == {"cap", "none"}
        assert len({one.attributes["background"] for one in shown}) > 1


def test_characters_are_never_met_in_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(characters, "CHARACTERS", {"Anyone green": {"skin": "green"}})
    assert "green" not in {one.attributes["skin"] for one in world(60, seed=9).faces}
    assert "green" in {one.attributes["skin"] for one in world(60, seed=9, combinations="all").faces}


def test_bad_images_come_at_their_share_and_carry_their_fault() -> None:
    spoilt, good = world(100, seed=2, bad_share=0.2), world(100, seed=2)
    bad = np.asarray([fault != "" for fault in spoilt.faults])
    assert Counter(spoilt.faults) == {"": 80, **dict.fromkeys(FAULTS, 4)}
    np.testing.assert_array_equal((spoilt.images != good.images).any((1, 2, 3)), bad)
    known = {image.tobytes() for image in spoilt.images[~bad]}
    assert [image.tobytes() in known for image in spoilt.images[bad]] == [
        fault == "copy" for fault in np.asarray(spoilt.faults)[bad]
    ]
    assert spoilt.images[np.asarray(spoilt.faults) == "dark"].max() < 40


def test_a_folder_holds_every_image_its_captions_and_the_truth(tmp_path: Path) -> None:
    drawn = world(10, seed=8, bad_share=0.2)
    write_folder(drawn, tmp_path / "world")
    lines = (tmp_path / "world" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    truth = json.loads((tmp_path / "world" / "truth.json").read_text(encoding="utf-8"))
    assert truth["attributes"] == {name: list(values) for name, values in ATTRIBUTES.items()}
    assert len(lines) == len(truth["images"]) == len(list((tmp_path / "world").glob("*.png"))) == 10
    for number, (line, row) in enumerate(zip(lines, truth["images"], strict=True)):
        assert json.loads(line) == {
            "file_name": f"{number:05d}.png",
            "text": drawn.captions[number],
            "texte": drawn.french[number],
        }
        assert row == {
            "file": f"{number:05d}.png",
            "attributes": drawn.faces[number].attributes,
            "unseen": sorted(unseen(drawn.faces[number])),
            "fault": drawn.faults[number],
        }
        with Image.open(tmp_path / "world" / row["file"]) as written:
            np.testing.assert_array_equal(np.asarray(written), drawn.images[number])


@pytest.mark.parametrize("style", STYLES)
def test_masks_are_white_where_the_figure_is(tmp_path: Path, style: str) -> None:
    """What they leave out is the ground and the blends at its edge: on another ground all else stays as it is."""
    drawn = world(1, seed=3, styles=[style], scale=2)
    (face,) = drawn.faces
    write_folder(drawn, tmp_path / "world", with_masks=True)
    with Image.open(tmp_path / "world" / "00000-masklabel.png") as written:
        mask = np.asarray(written)
    assert set(np.unique(mask)) == {0, 255}
    grounds = [draw(replace(face, attributes={**face.attributes, "background": name}), 2) for name in ("blue", "green")]
    changed = (grounds[0] != grounds[1]).any(axis=-1)
    assert not changed[mask == 255].any()
    assert changed[mask == 0].mean() > 0.6, "the rest is the ground, or its frame"
    rows, columns = face_box(face)
    assert (mask[rows.start + rows.stop, columns.start + columns.stop], mask[0, 0]) == (255, 0)


def test_what_is_spoilt_has_no_mask(tmp_path: Path) -> None:
    drawn = world(10, seed=8, bad_share=0.2)
    write_folder(drawn, tmp_path / "world", with_masks=True)
    masks = sorted(path.name for path in (tmp_path / "world").glob("*-masklabel.png"))
    assert masks == [f"{number:05d}-masklabel.png" for number, fault in enumerate(drawn.faults) if not fault]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(StorageError) as caught:
        write_folder(world(2), tmp_path)
    assert str(caught.value) == (
        "E-STORE-006 The folder holds files already, and nothing is written over.\n"
        f"Where: {tmp_path}\n"
        "Do: Name a new or an empty folder."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
