"""Buckets: which shape an image gets, what its crop loses, batches of one shape, and what fills them up."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from fusain.data.dataset import DataSettings, check_batch, prepare
from fusain.data.loader import Loader, Making, held_out_batches
from fusain.data.order import BucketOrder
from fusain.data.shapes import Shape, Shapes, covering, nearest
from fusain.errors import DataError
from fusain.settings.read import resolve
from fusain.settings.section import Section
from tests.unit.pictures import fill, noise, write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))


def made(path, *, size=32, batch_size=4, multiple=8, **settings):
    settings = DataSettings(path=path, **{"held_out": "none", "buckets": True, **settings})
    return prepare(settings, size=size, batch_size=batch_size, multiple=multiple)


def take(dataset, count, *, batch_size=4, start_draw=0, workers=0, seed=0):
    settings = dataset.settings.model_copy(update={"workers": workers})
    batches = iter(Loader(dataset, settings, seed=seed, batch_size=batch_size, start_draw=start_draw))
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def equal(some, others):
    return all(
        torch.equal(one.pixels_BCHW, other.pixels_BCHW)
        and torch.equal(one.framings_B4, other.framings_B4)
        and np.array_equal(one.items, other.items)
        for one, other in zip(some, others, strict=True)
    )


# --- the table and the rule ---


@pytest.mark.parametrize(
    ("size", "multiple", "aspect", "table"),
    [
        (512, 64, 2.0, "640 x 320, 640 x 384, 576 x 448, 512 x 512, 448 x 576, 384 x 640, 320 x 640"),
        (64, 8, 2.0, "80 x 40, 80 x 48, 72 x 56, 64 x 64, 56 x 72, 48 x 80, 40 x 80"),
        (64, 8, 1.5, "72 x 48, 72 x 56, 64 x 64, 56 x 72, 48 x 72"),
        (512, 64, 1.0, "512 x 512"),
        (100, 64, 2.0, "128 x 64, 64 x 64, 64 x 128"),
    ],
)
def test_the_table(size, multiple, aspect, table):
    rows = Shapes(size, multiple, aspect).tables()[0].tolist()
    assert ", ".join(str(Shape(*row)) for row in rows) == table


@pytest.mark.parametrize("multiple", [8, 64])
@pytest.mark.parametrize("size", [512, 768, 1024])
@pytest.mark.parametrize("aspect", [1.0, 1.3, 2.0, 4.0])
def test_every_bucket_keeps_the_limits(size, multiple, aspect):
    for number, table in enumerate(Shapes(size, multiple, aspect).tables()):
        assert not (table % multiple).any()
        assert (table.prod(axis=1) <= size * size).all()
        assert ((table.max(axis=1) / table.min(axis=1)) <= aspect).all()
        assert (np.diff(table[:, 0] / table[:, 1]) > 0).all()
        assert np.array_equal(table, table[::-1, ::-1])
        assert table.min() >= multiple
        assert number or table.prod(axis=1).max() == size * size


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [
        (3000, 4000, (448, 576)),
        (4000, 3000, (576, 448)),
        (512, 512, (512, 512)),
        (900, 1000, (512, 512)),
        (10_000, 1_000, (640, 320)),
        (511, 512, (448, 448)),
        (300, 400, (256, 384)),
        (256, 256, (256, 256)),
        (255, 256, None),
        (150, 4000, (128, 256)),
        (120, 4000, None),
    ],
)
def test_the_shape_of_an_image(height, width, shape):
    assert Shapes(512, 64, 2.0).one(height, width) == shape
    assert Shapes(512).one(height, width) == (512, 512)


def test_how_far_an_image_may_be_enlarged():
    assert Shapes(512, 64, 2.0, max_upscale=1.01).one(511, 512) == (512, 512)
    assert Shapes(512, 64, 2.0, max_upscale=2.0).one(255, 256) == (448, 448)
    assert Shapes(512, 64, 2.0, max_upscale=8.0).one(64, 64) == (512, 512)


@pytest.mark.parametrize("limit", [1.0, 1.15, 2.0])
def test_nothing_is_enlarged_beyond_the_limit(limit):
    """Whatever its size: each side that is learnt is at most so much longer than it was, or the image is put aside."""
    rng = np.random.default_rng(1)
    heights, widths = rng.integers(1, 1500, (2, 5000)).astype(np.int32)
    found = Shapes(512, 64, 2.0, limit).of(heights, widths)
    fits = found[:, 0] > 0
    assert 0.3 < fits.mean() < 1
    assert (found[fits] <= np.column_stack([heights, widths])[fits] * limit).all()
    resized = covering(heights[fits], widths[fits], found[fits])
    assert (resized <= np.column_stack([heights, widths])[fits] * limit + 0.5).all()


def test_one_image_is_treated_as_all_are():
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(1, 2000, (2, 500)).astype(np.int32)
    rule = Shapes(512, 8, 2.0, 1.2)
    for height, width, shape in zip(heights.tolist(), widths.tolist(), rule.of(heights, widths).tolist(), strict=True):
        assert rule.one(height, width) == (tuple(shape) if shape[0] else None)


def test_the_nearest_is_nearest_in_proportion_and_of_two_the_larger():
    table = Shapes(512, 64, 2.0).tables()[0]
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(1280, 9000, (2, 2000)).astype(np.int32)
    found = Shapes(512, 64, 2.0).of(heights, widths)
    distance = np.abs(np.log(heights / widths)[:, None] - np.log(table[:, 0] / table[:, 1])[None])
    assert np.allclose(distance.min(axis=1), np.abs(np.log(heights / widths) - np.log(found[:, 0] / found[:, 1])))
    for table, shape in (([[10, 40], [40, 40]], [40, 40]), ([[10, 40], [5, 5]], [10, 40])):
        sides = np.asarray([100], np.int32), np.asarray([200], np.int32)
        assert nearest(np.asarray(table, np.int32), *sides).tolist() == [shape]


def test_resized_images_just_cover_their_shape():
    rng = np.random.default_rng(0)
    heights, widths, tall, wide = rng.integers(1, 900, (4, 3000)).astype(np.int32)
    shapes = np.column_stack([tall, wide])
    resized = covering(heights, widths, shapes)
    assert (resized >= shapes).all()
    assert (resized == shapes).any(axis=1).all()
    scale = np.maximum(tall / heights, wide / widths)
    assert np.abs(resized - np.column_stack([heights, widths]) * scale[:, None]).max() <= 0.5 + 1e-9


# --- a data set ---


@pytest.fixture
def folder(tmp_path):
    """Ten squares, five wide images and one tall one, all larger than their buckets."""
    fill(tmp_path / "images" / "a", 10, 0, height=40, width=40)
    fill(tmp_path / "images" / "b", 5, 100, height=40, width=60)
    fill(tmp_path / "images" / "b" / "tall", 1, 200, height=90, width=40)
    return tmp_path / "images"


def test_each_image_gets_its_shape(folder):
    dataset = made(folder)
    assert [str(bucket.shape) for bucket in dataset.buckets()] == ["40 x 24", "16 x 32", "32 x 32"]
    for row, name in enumerate(dataset.names):
        pixels = dataset.pixels(np.asarray([row]))
        assert pixels.shape[1:3] == ((32, 32) if name.startswith("a/") else (32, 16) if "tall" in name else (24, 40))
    height, width = 24, 40
    expected = Image.fromarray(noise(100, 40, 60)).resize((40, 27), Image.Resampling.LANCZOS)
    assert np.array_equal(dataset.pixels(np.asarray([10]))[0], np.asarray(expected)[1 : 1 + height, :width])


def test_batches_have_one_shape_and_an_epoch_all_images(folder):
    dataset = made(folder)
    # 3 batches of squares (2 drawn again), 2 of wide ones (3), 1 of the tall one (3)
    assert dataset.entries == 24
    assert [(bucket.images, bucket.batches, bucket.fill_up) for bucket in dataset.buckets()] == [
        (5, 2, 3),
        (1, 1, 3),
        (10, 3, 2),
    ]
    batches = take(dataset, 18)
    orders = []
    for epoch in range(3):
        part = batches[6 * epoch : 6 * epoch + 6]
        counts = Counter(np.concatenate([batch.items for batch in part]).tolist())
        assert sorted(counts) == list(range(16))
        assert counts[15] == 4
        assert sorted(counts.values()) == [1] * 10 + [2] * 5 + [4]
        orders.append([tuple(batch.pixels_BCHW.shape[2:]) for batch in part])
        assert Counter(orders[-1]) == {(32, 32): 3, (24, 40): 2, (32, 16): 1}
    assert len({tuple(order) for order in orders}) > 1
    assert np.concatenate([batch.draws for batch in batches]).tolist() == list(range(72))


def test_no_image_is_twice_in_a_full_batch():
    entries = np.arange(11)
    order = BucketOrder(0, entries, np.repeat([0, 1], [7, 4]), 4, None)
    for number in range(60):
        items = order.items(np.arange(4) + 4 * number)
        assert len(set(items.tolist())) == 4


@pytest.mark.parametrize("memory_gb", [0.0, 1.0])
@pytest.mark.parametrize("crop", ["center", "random"])
def test_a_resume_at_any_batch_and_workers_change_nothing(folder, memory_gb, crop):
    dataset = made(folder, crop=crop, flip=True, memory_gb=memory_gb)
    assert (dataset.held is not None) == bool(memory_gb)
    straight = take(dataset, 15)
    for start in (1, 5, 6, 9):
        assert equal(straight[start:], take(dataset, 15 - start, start_draw=4 * start))
    assert equal(straight, take(dataset, 15, workers=2))
    assert equal(straight, take(made(folder, crop=crop, flip=True, memory_gb=1 - memory_gb), 15))
    assert not equal(straight, take(dataset, 15, seed=1))


def test_a_resume_with_another_batch_size_goes_on_with_whole_batches(folder):
    dataset = made(folder)
    six = take(dataset, 4, batch_size=6, start_draw=8)
    assert [batch.draws[0] for batch in six] == [8, 14, 20, 26]
    assert [batch.items.tolist() for batch in six] == [
        batch.items.tolist() for batch in take(dataset, 4, batch_size=6, start_draw=12)
    ]


def test_framings_say_where_the_crop_lies(folder):
    dataset = made(folder, crop="random", bucket_aspect=1, flip=True)
    plain = made(folder, crop="random", bucket_aspect=1)
    seen = set()
    for batch, unflipped in zip(take(dataset, 12), take(plain, 12), strict=True):
        assert batch.framings_B4.dtype == torch.int32
        for row, item in enumerate(batch.items.tolist()):
            height, width, top, left = batch.framings_B4[row].tolist()
            assert (height, width) == (dataset.heights[item], dataset.widths[item])
            image = dataset.fitted(item)
            plain_left = unflipped.framings_B4[row, 3]
            if not torch.equal(batch.pixels_BCHW[row], unflipped.pixels_BCHW[row]):
                image = image[:, ::-1]
                assert plain_left == image.shape[1] - batch.pixels_BCHW.shape[3] - left
            shown = image[top : top + batch.pixels_BCHW.shape[2], left : left + batch.pixels_BCHW.shape[3]]
            got = ((batch.pixels_BCHW[row].permute(1, 2, 0) + 1) * 127.5).round().numpy()
            assert np.array_equal(got, shown)
            seen.add((top, left))
    assert min(len({top for top, _ in seen}), len({left for _, left in seen})) > 3
    assert made(folder).framings(np.asarray([10, 0])).tolist() == [[40, 60, 1, 0], [40, 40, 0, 0]]


def test_batches_without_buckets_know_their_framing_too(folder):
    dataset = made(folder, buckets=False)
    [batch] = take(dataset, 1, batch_size=16)
    assert batch.framings_B4[batch.items == 10].tolist() == [[40, 60, 0, 8]]
    assert batch.framings_B4[batch.items == 15].tolist() == [[90, 40, 20, 0]]
    assert dataset.entries == 16
    assert dataset.buckets() == []
    assert batch.to(torch.device("meta")).framings_B4.device.type == "meta"


def test_held_out_batches_are_grouped_by_shape(folder):
    dataset = made(folder)
    dataset.held_out = np.asarray([1, 3, 5, 10, 11, 15])
    batches = list(held_out_batches(dataset, 2))
    assert [batch.items.tolist() for batch in batches] == [[10, 11], [15], [1, 3], [5]]
    assert np.concatenate([batch.draws for batch in batches]).tolist() == list(range(6))
    assert [batch.items.tolist() for batch in held_out_batches(dataset, 4, limit=3)] == [[15], [1, 5]]
    dataset.held_out = np.arange(7)
    assert [len(batch) for batch in held_out_batches(dataset, 4)] == [4]


def test_files_that_break_are_replaced_by_others_of_their_shape(folder):
    dataset = made(folder, memory_gb=0, max_quarantined=0.3)
    (folder / "b" / "004.png").unlink()
    (folder / "b" / "tall" / "000.png").unlink()
    used = {item for batch in take(dataset, 12) for item in batch.items.tolist()}
    assert 14 not in used
    blank = [batch for batch in take(dataset, 6) if batch.pixels_BCHW.shape[2:] == (32, 16)]
    assert [batch.items.tolist() for batch in blank] == [[15] * 4]


# --- balance ---


def test_shares_of_classes_hold_with_buckets(folder):
    dataset = made(folder, balance="equal")
    assert dataset.classes == ("a", "b")
    assert dataset.entries == 16
    making = Making(dataset, dataset.order(0, 4), 0, 4, 0)
    items = np.stack([making.order.items(making.draws(number)) for number in range(5000)])
    assert all(len(set(dataset.bucket_ids[row])) == 1 for row in items)
    is_a = (dataset.label_ids[items] == 0).mean()
    assert abs(is_a - 0.5) < 4 * np.sqrt(0.25 / 5000)
    counts = np.bincount(items.reshape(-1), minlength=16) / items.size
    assert counts[:10] == pytest.approx(0.05, abs=0.01)
    assert counts[10:] == pytest.approx(0.5 / 6, abs=0.015)
    again = Making(dataset, dataset.order(0, 4), 0, 4, 4 * 77)
    assert np.array_equal(again.order.items(again.draws(0)), items[77])


def test_a_class_that_is_never_drawn(folder):
    dataset = made(folder, balance="weights", class_weights={"a": 0, "b": 1})
    assert all(min(batch.items) >= 10 for batch in take(dataset, 50))


# --- what is told ---


def test_crop_loss_of_every_image(folder):
    squares, buckets = made(folder, buckets=False), made(folder)
    assert squares.crop_loss[[0, 10, 15]].tolist() == pytest.approx([0, 1 / 3, 5 / 9])
    assert buckets.crop_loss[[0, 10, 15]].tolist() == pytest.approx([0, 1 - 24 / 27, 1 - 32 / 36])
    report = squares.report()
    assert report.crop_loss_mean == pytest.approx((5 / 3 + 5 / 9) / 16)
    assert report.crop_loss_hard == 6
    assert report.crop_loss_worst == {
        "b/tall/000.png": pytest.approx(5 / 9),
        **{f"b/00{number}.png": pytest.approx(1 / 3) for number in range(5)},
    }
    assert next(iter(report.crop_loss_worst)) == "b/tall/000.png"
    assert dict(report.lines())["cropped away"] == (
        "13.9% of an image on average; 6 lose more than 20%; most: 'b/tall/000.png' 56%, 'b/000.png' 33%, "
        "'b/001.png' 33%, 'b/002.png' 33%, 'b/003.png' 33%"
    )
    assert "cropped away" not in dict(made(folder / "a").report().lines())


def test_the_report_lists_the_buckets(folder):
    report = made(folder).report()
    assert json.loads(json.dumps(report.as_json())) == report.as_json()
    assert report.buckets["32 x 32"] == {"images": 10, "batches": 3, "fill_up": 2}
    lines = dict(report.lines())
    assert lines["bucket 40 x 24"] == "5 images, 2 batches, 3 drawn again"
    assert lines["fill-up"] == "8 of 24 draws an epoch (33.3%) use an image again"
    assert report.draws_an_epoch == 24
    single = made(folder, batch_size=1).report()
    assert (single.fill_up, single.draws_an_epoch) == (0, 16)
    assert dict(single.lines())["bucket 40 x 24"] == "5 images, 5 batches"


def test_much_fill_up_is_told(folder):
    assert [str(notice) for notice in made(folder).notices if notice.code == "W-DATA-010"] == [
        "W-DATA-010 8 of 24 draws an epoch (33%) use an image again, to fill up the last batch of 3 buckets. "
        "A batch of 4 holds one shape, so images of rare shapes are drawn more often. "
        "Lower train.batch_size or data.bucket_aspect, or crop images of rare shapes yourself."
    ]
    assert "W-DATA-010" not in {notice.code for notice in made(folder, repeats=4).notices}


def test_a_bucket_need_not_fill_a_batch_but_all_together_must_fill_a_step(folder):
    dataset = made(folder, batch_size=16)
    check_batch(dataset, batch_size=16)
    with pytest.raises(DataError) as caught:
        check_batch(dataset, batch_size=17)
    assert str(caught.value) == (
        "E-DATA-031 Too few images for one step: 17 a batch x 1 accumulated = 17, "
        "but an epoch has 16 images x 1 repeats = 16.\nWhere: train.batch_size\n"
        "Why: A step would use an image twice.\n"
        "Do: Choose one: train.batch_size = 16; data.repeats = 2; or add 1 images."
    )


def test_images_too_small_for_any_bucket_are_put_aside(folder):
    write(folder / "a" / "tiny.png", 300, 15, 20)
    dataset = made(folder)
    assert [str(entry) for entry in dataset.quarantined] == [
        "E-DATA-032 'a/tiny.png' is too small for a bucket: 20 x 15 pixels, "
        "and the smallest near its shape is 16 x 16 (data.max_upscale = 1)."
    ]
    assert len(dataset) == 16
    assert len(made(folder, buckets=False)) == 17
    larger = made(folder, max_upscale=1.1)
    assert not larger.quarantined
    assert [str(notice) for notice in larger.notices if notice.code == "W-DATA-004"] == [
        "W-DATA-004 1 images are smaller than their bucket and will be enlarged, which makes them soft: 'a/tiny.png'."
    ]
    assert dict(larger.report().lines())["enlarged"] == "1 images, which makes them soft"


def test_arrays_have_buckets_too(tmp_path):
    np.save(tmp_path / "images.npy", np.stack([noise(seed, 24, 40) for seed in range(6)]))
    dataset = made(tmp_path)
    assert np.array_equal(dataset.pixels(np.asarray([3]))[0], noise(3, 24, 40))
    assert made(tmp_path, size=24).pixels(np.asarray([3])).shape == (1, 16, 32, 3)
    with pytest.raises(DataError) as caught:
        made(tmp_path, size=128)
    assert str(caught.value).startswith(
        "E-DATA-007 None of 6 images can be used. The first:\n"
        "    E-DATA-032 'images.npy[00000]' is too small for a bucket: 40 x 24 pixels, "
        "and the smallest near its shape is 80 x 48 (data.max_upscale = 1).\n"
        "    E-DATA-032 'images.npy[00001]'"
    )


def test_the_cache_knows_one_table_from_another(folder, monkeypatch):
    first = {aspect: made(folder, bucket_aspect=aspect) for aspect in (1.0, 2.0)}
    assert len(first[1.0].buckets()) == 1
    monkeypatch.setattr("fusain.data.manifest.examine_files", None)
    for aspect, dataset in first.items():
        again = made(folder, bucket_aspect=aspect)
        assert np.array_equal(again.held.flat, dataset.held.flat)
        assert np.array_equal(again.shapes, dataset.shapes)
    with pytest.raises(TypeError):
        made(folder, multiple=16)


class Run(Section):
    data: DataSettings


def test_settings_of_buckets_without_buckets_are_told():
    found = resolve(Run, text="[data]\npath = 'x'\nmax_upscale = 2\n")
    assert [str(notice) for notice in found.notices] == [
        "W-CFG-002 'data.max_upscale' has no effect in this run: it needs data.buckets = true, which is false. "
        "(settings line 3)"
    ]
