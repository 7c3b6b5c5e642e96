"""Masks beside images, or in their transparency, decide how much each pixel is learnt; bad ones are named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusain.data.batch import Batch
from fusain.data.columns import Dataset
from fusain.data.dataset import prepare
from fusain.data.loader import Loader
from fusain.data.masks import name_of
from fusain.data.settings import DataSettings
from fusain.errors import DataError
from fusain.models.families.pixel import Pixel
from fusain.models.family import Facts
from fusain.training.losses import LossSettings, denoising_loss, masked
from tests.unit.pictures import fill, noise


def grey(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


def left_half(height: int = 16, width: int = 16) -> np.ndarray:
    values = np.zeros((height, width), np.uint8)
    values[:, : width // 2] = 255
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, each with a mask of its left half."""
    fill(tmp_path, 4)
    for number in range(4):
        grey(tmp_path / f"{number:03d}-masklabel.png", left_half())
    return tmp_path


def dataset(folder: Path, use: str = "files", **settings: object) -> Dataset:
    own = {"path": folder, "masks": {"use": use, "outside": 0.25}, "held_out": "none", "max_quarantined": 0, **settings}
    return prepare(DataSettings.model_validate(own), size=16)


def batch_of(found: Dataset, count: int = 4) -> Batch:
    return next(iter(Loader(found, found.settings, seed=1, batch_size=count)))


def test_masks_are_found_beside_images_that_a_metadata_file_names(folder: Path) -> None:
    (folder / "deep").mkdir()
    for name in ("003.png", "003-masklabel.png"):
        (folder / name).rename(folder / "deep" / name)
    rows = [{"file_name": name, "text": "a dog"} for name in ("000.png", "001.png", "deep/003.png")]
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = dataset(folder)
    assert found.masks is not None
    assert found.masks.rows == {0, 1, 2}
    told = [notice.message.what for notice in found.notices]
    assert "1 masks belong to no image: '002-masklabel.png'." in told


def test_masks_of_a_subject_stay_its_own_beside_class_images(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Class images have none: they are learnt whole, and nothing is said about that."""
    others = tmp_path_factory.mktemp("class")
    fill(others, 4)
    own = {"subject": {"class_word": "dog", "identifier": "sks"}, "class_images": {"path": others, "weight": 1}}
    settings = {"path": folder, "masks": {"use": "files", "outside": 0.25}, "held_out": "none", **own}
    found = prepare(DataSettings.model_validate(settings), size=16, needs_captions=True)
    assert [notice for notice in found.notices if "MASK" in str(notice)] == []
    assert found.masks is not None
    weights = found.masks.weights(np.arange(len(found)), None, None).mean(dim=(1, 2, 3))
    assert weights.tolist() == [1.0 if is_one else 0.625 for is_one in found.is_class_image]
    assert sum(found.is_class_image) == 4


def test_masks_are_no_images_and_weigh_their_pixels(folder: Path) -> None:
    found = dataset(folder)
    assert found.names == ["000.png", "001.png", "002.png", "003.png"]
    weights = batch_of(found).masks_B1HW
    assert weights is not None
    assert weights.shape == (4, 1, 16, 16)
    assert weights.dtype == torch.float32
    assert (weights[..., :8] == 1).all()
    assert (weights[..., 8:] == 0.25).all()


def test_they_are_mirrored_and_cropped_with_their_images(tmp_path: Path) -> None:
    fill(tmp_path, 6, width=24)
    for number in range(6):  # the mask is where the image is bright, so that they must move together
        pixels = noise(number, 16, 24) // 4
        pixels[:, 3 * number : 3 * number + 8] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number:03d}.png")
        grey(tmp_path / f"{number:03d}-masklabel.png", 255 * (pixels[..., 0] == 255))
    batch = batch_of(dataset(tmp_path, crop="random", flip=True), 6)
    assert batch.masks_B1HW is not None
    assert torch.equal(batch.masks_B1HW[:, 0] == 1, batch.pixels_BCHW[:, 0] == 1)
    assert len({tuple(mask.flatten().tolist()) for mask in batch.masks_B1HW}) > 2


def test_they_weigh_errors_at_the_resolution_of_latents(folder: Path) -> None:
    batch = batch_of(dataset(folder))
    errors = masked(torch.ones(4, 3, 4, 4), batch)
    assert (errors[..., :2] == 1).all()
    assert (errors[..., 2:] == 0.25).all()


def test_what_is_learnt_of_two_halves_is_what_is_learnt_of_the_whole(folder: Path) -> None:
    batch = batch_of(dataset(folder))
    assert batch.masks_B1HW is not None
    left = (batch.masks_B1HW == 1).float()
    torch.manual_seed(0)
    family = Pixel(Pixel.Settings(condition="none", size=16, channels=(8, 16)), Facts(()))
    whole, one, other = (
        denoising_loss(family, replace(batch, masks_B1HW=masks), LossSettings(), seed=0).value.item()
        for masks in (None, left, 1 - left)
    )
    assert min(one, other) > 0.1
    assert one + other == pytest.approx(whole, rel=1e-5)


def test_b15_a_mask_that_two_images_would_share_is_refused(folder: Path) -> None:
    for number in (1, 3):
        Image.fromarray(noise(20 + number)).save(folder / f"{number:03d}.jpg")
    with pytest.raises(DataError) as caught:
        dataset(folder)
    assert str(caught.value) == (
        "E-MASK-004 Which image a mask belongs to cannot be told for 2 names:\n"
        "    '001.jpg', '001.png', '001-masklabel.png'\n"
        "    '003.jpg', '003.png', '003-masklabel.png'\n"
        f"Where: {folder}\n"
        "Why: Endings alone do not tell images apart, and none of them wins.\n"
        "Do: Rename the images until each has a mask of its own name."
    )
    assert dataset(folder, "none").masks is None
    for number in (1, 3):
        (folder / f"{number:03d}.png").unlink()
    found = dataset(folder).masks
    assert found is not None
    assert len(found.rows) == 4


def test_transparency_is_a_mask_too(tmp_path: Path) -> None:
    for number in range(3):
        pixels = np.dstack([noise(number), left_half()])
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    Image.fromarray(noise(9)).save(tmp_path / "opaque.png")
    found = dataset(tmp_path, "alpha")
    assert [str(notice.code) for notice in found.notices if "MASK" in notice.code] == ["W-MASK-001"]
    weights = batch_of(found)
    assert weights.masks_B1HW is not None
    opaque = weights.items.tolist().index(3)
    assert (weights.masks_B1HW[opaque] == 1).all()
    assert (weights.masks_B1HW[:, 0, :, 8:].amin(dim=(1, 2)) == 0.25).sum() == 3


def test_without_the_setting_they_are_told_and_not_used(folder: Path) -> None:
    found = prepare(DataSettings(path=folder, held_out="none"), size=16)
    assert batch_of(found).masks_B1HW is None
    assert len(found) == 4
    notice = next(str(notice) for notice in found.notices if notice.code == "W-MASK-003")
    assert notice == (
        "W-MASK-003 4 masks lie beside the images and are not used: "
        "'000-masklabel.png', '001-masklabel.png', '002-masklabel.png', '003-masklabel.png'. "
        'To learn what they show: data.masks.use = "files".'
    )


def test_images_without_and_masks_without_are_named(folder: Path) -> None:
    (folder / "001-masklabel.png").rename(folder / "lost-masklabel.png")
    found = dataset(folder)
    told = {notice.code: notice.message.what for notice in found.notices}
    assert told["W-MASK-001"] == "1 images have no mask and are learnt whole: '001.png'."
    assert told["W-MASK-002"] == "1 masks belong to no image: 'lost-masklabel.png'."
    weights = batch_of(found)
    assert weights.masks_B1HW is not None
    assert (weights.masks_B1HW[weights.items.tolist().index(1)] == 1).all()


def test_b26_what_does_not_fit_is_named_pair_by_pair(folder: Path) -> None:
    grey(folder / "000-masklabel.png", np.zeros((16, 16)))
    grey(folder / "001-masklabel.png", left_half(16, 20))
    Image.fromarray(noise(3)).save(folder / "002-masklabel.png")
    (folder / "003-masklabel.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        dataset(folder)
    assert str(caught.value) == (
        "E-MASK-001 4 masks cannot be used:\n"
        "    '000-masklabel.png' is black all over: nothing of '000.png' would be learnt.\n"
        "    '001-masklabel.png' has 20 x 16 pixels, '001.png' 16 x 16.\n"
        "    '002-masklabel.png' is not grey.\n"
        "    '003-masklabel.png' is empty (0 bytes).\n"
        f"Where: {folder}\n"
        "Why: A mask says for each pixel of its image how much it is learnt: grey, of the same size, and not black all "
        "over.\n"
        'Do: Mend or remove them, or learn images whole: data.masks.use = "none".'
    )


def test_asked_for_and_nowhere_found_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    with pytest.raises(DataError) as caught:
        dataset(tmp_path)
    assert str(caught.value) == (
        f"E-MASK-002 data.masks.use is 'files', but no image in {tmp_path} has a mask.\n"
        "Where: data.masks.use\n"
        'Why: With "files" the mask of dog.jpg is dog-masklabel.png beside it; with "alpha" it is the image\'s own '
        "transparency.\n"
        'Do: Add masks, or learn images whole: data.masks.use = "none".'
    )


def test_another_mask_is_other_data(folder: Path) -> None:
    before = dataset(folder)
    grey(folder / name_of("002.png"), left_half().T)
    assert dataset(folder).id != before.id
    with pytest.raises(DataError, match=r"1 labelled, captioned or masked anew \('002.png'\)"):
        prepare(before.settings, size=16, lock=before.lock())
