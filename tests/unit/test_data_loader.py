"""Order, batches and workers: the same draws whatever the batch size, the workers and the faults on the way."""

import errno
import itertools
import multiprocessing.synchronize
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fusain.data import chance, workers
from fusain.data.dataset import DataSettings, prepare
from fusain.data.loader import Loader, Making, held_out_batches
from fusain.data.order import Order
from fusain.data.source import Source
from fusain.errors import DataError
from tests.unit.pictures import encoded, fill, noise


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "images", 20, height=16, width=20)


def made(path, **settings):
    return prepare(DataSettings(path=path, **{"held_out": "none", "memory_gb": 0, **settings}), size=16)


def take(dataset, count, *, seed=0, batch_size=4, start_draw=0, **others):
    settings = dataset.settings.model_copy(update={"workers": others.pop("workers", 0)})
    batches = iter(Loader(dataset, settings, seed=seed, batch_size=batch_size, start_draw=start_draw, **others))
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def equal(some, others):
    pixels = (torch.cat([batch.pixels_BCHW for batch in side]) for side in (some, others))
    items = (np.concatenate([batch.items for batch in side]) for side in (some, others))
    return torch.equal(*pixels) and np.array_equal(*items)


# --- order ---


@pytest.mark.parametrize("workers", [0, 1])
def test_the_shares_of_a_batch_are_the_batch(folder, workers):
    dataset = made(folder, flip=True)
    whole = take(dataset, 3, batch_size=5)
    parts = [take(dataset, 3, batch_size=5, workers=workers, share=share) for share in (slice(2), slice(2, 5))]
    assert equal(whole, [part for pair in zip(*parts, strict=True) for part in pair])
    assert [len(batch) for batch in parts[0]] == [2, 2, 2]


def test_every_epoch_uses_each_image_once_and_batches_straddle_epochs(folder):
    dataset = made(folder)
    batches = take(dataset, 10, batch_size=6)
    items = np.concatenate([batch.items for batch in batches])
    assert {len(batch) for batch in batches} == {6}
    for epoch in range(3):
        part = items[20 * epoch : 20 * (epoch + 1)]
        assert sorted(part) == list(range(20))
        assert np.array_equal(part, chance.permutation(0, epoch, 20))
    assert np.concatenate([batch.draws for batch in batches]).tolist() == list(range(60))


def test_repeats_make_longer_epochs(folder):
    dataset = made(folder, repeats=3)
    assert dataset.entries == 60
    items = np.concatenate([batch.items for batch in take(dataset, 15)])
    assert np.bincount(items).tolist() == [3] * 20


@pytest.mark.parametrize("memory_gb", [0.0, 1.0])
@pytest.mark.parametrize("crop", ["center", "random"])
def test_draws_do_not_depend_on_batch_size_start_or_workers(folder, memory_gb, crop):
    dataset = made(folder, crop=crop, flip=True, memory_gb=memory_gb)
    assert (dataset.held is not None) == bool(memory_gb)
    straight = take(dataset, 12, batch_size=5)
    assert equal(straight, take(dataset, 20, batch_size=3))
    assert equal(straight[6:], take(dataset, 6, batch_size=5, start_draw=30))
    assert equal(straight, take(dataset, 12, batch_size=5, workers=2))


def test_memory_and_disk_give_the_same_pixels(folder):
    sides = [made(folder, crop="random", flip=True, memory_gb=memory_gb) for memory_gb in (0, 1)]
    assert equal(*(take(side, 8) for side in sides))


def test_crop_and_flip_are_functions_of_seed_and_draw(folder):
    dataset = made(folder, crop="random", flip=True)
    [batch] = take(dataset, 1, batch_size=20)
    offsets = (chance.uniform(0, batch.draws, "crop") * 5).astype(int)
    mirrored = chance.uniform(0, batch.draws, "flip") < 0.5
    assert 0 < mirrored.sum() < 20
    assert len(set(offsets)) > 2
    for row, item in enumerate(batch.items):
        image = noise(int(item), 16, 20)[:, offsets[row] : offsets[row] + 16]
        expected = image[:, ::-1] if mirrored[row] else image
        got = ((batch.pixels_BCHW[row].permute(1, 2, 0) + 1) * 127.5).round().numpy()
        assert np.array_equal(got, expected)


def test_another_seed_is_another_crop(folder):
    dataset = made(folder, crop="random")
    same_items = Order(0, np.zeros(20, np.int64))
    pixels = [Making(dataset, same_items, seed, 20, 0)[0].pixels for seed in (1, 2, 1)]
    assert np.array_equal(pixels[0], pixels[2])
    assert not np.array_equal(pixels[0], pixels[1])


# --- balance ---


@pytest.fixture
def classes(tmp_path):
    images = np.stack([noise(seed, 8, 8) for seed in range(60)])
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", np.repeat([0, 1, 2], [6, 18, 36]))
    (folder / "classes.txt").write_text("x\ny\nz\n")
    return folder


SHARES = {
    "none": {"x": 0.1, "y": 0.3, "z": 0.6},
    "equal": {"x": 1 / 3, "y": 1 / 3, "z": 1 / 3},
    "complement": {"x": 0.09 / 0.54, "y": 0.21 / 0.54, "z": 0.24 / 0.54},
    "weights": {"x": 0.5, "y": 0.5, "z": 0.0},
}


@pytest.mark.parametrize("balance", SHARES)
def test_twenty_thousand_draws_keep_the_stated_shares(classes, balance):
    weights = {"x": 2, "y": 2, "z": 0} if balance == "weights" else {}
    settings = DataSettings(path=classes, balance=balance, class_weights=weights, held_out="none")
    dataset = prepare(settings, size=8)
    assert dataset.expected_shares() == pytest.approx(SHARES[balance])
    items = Order(3, dataset.train_entries, dataset.chances()).items(np.arange(20_000))
    found = np.bincount(dataset.label_ids[items], minlength=3) / 20_000
    for name, share in zip(dataset.classes, found, strict=True):
        expected = SHARES[balance][name]
        assert abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / 20_000), name
    within = np.bincount(items, minlength=60)[:6] / max(1, (items < 6).sum())
    assert within == pytest.approx(1 / 6, abs=4 * np.sqrt(5 / 36 / max(1, (items < 6).sum())))


def refusal(path, **settings):
    with pytest.raises(DataError) as caught:
        made(path, **settings)
    return str(caught.value)


def test_balance_that_does_not_fit(classes, folder):
    assert refusal(folder, balance="equal") == (
        "E-DATA-062 data.balance = \"equal\" needs classes, and data of kind 'images' has none.\n"
        'Where: data.balance\nDo: Put the images into one folder a class, or set data.balance = "none".'
    )
    text = (
        "E-DATA-061 data.class_weights does not fit the classes: {}.\nWhere: data.class_weights\n"
        "Why: The classes are: x, y, z.\nDo: Give each class one weight."
    )
    assert refusal(classes, balance="weights", class_weights={"x": 1}) == text.format("missing: y, z")
    assert refusal(classes, balance="weights", class_weights={"q": 1}) == text.format("unknown: q")
    assert refusal(classes, balance="weights", class_weights=dict.fromkeys("xyz", 0)) == (
        "E-DATA-063 All weights of data.class_weights are 0, so nothing would be drawn.\n"
        "Where: data.class_weights\nDo: Give at least one class that has images a weight above 0."
    )


def test_batches_carry_labels_captions_and_weights(classes, folder):
    (folder / "003.txt").write_text("a cat")
    [batch] = take(made(folder), 1, batch_size=20)
    assert batch.captions[batch.items.tolist().index(3)] == "a cat"
    assert batch.labels_BK is None
    assert batch.weights_B.tolist() == [1.0] * 20
    [batch] = take(prepare(DataSettings(path=classes), size=8), 1, batch_size=9)
    expected = np.repeat([0, 1, 2], [6, 18, 36])[batch.items]
    assert batch.labels_BK.argmax(1).tolist() == expected.tolist()
    assert (batch.labels_BK.sum(1) == 1).all()


def test_held_out_batches_are_full_plain_and_spread(classes):
    dataset = prepare(DataSettings(path=classes, held_out=30, flip=True), size=8)
    batches = list(held_out_batches(dataset, 8))
    assert [len(batch) for batch in batches] == [8, 8, 8]
    few = list(held_out_batches(dataset, 8, limit=5))
    assert [len(batch) for batch in few] == [5]
    assert few[0].items[0] == dataset.held_out[0]
    assert few[0].items[-1] == dataset.held_out[-1]
    pixels = np.load(classes / "images.npy")[few[0].items]
    got = ((few[0].pixels_BCHW.permute(0, 2, 3, 1) + 1) * 127.5).round().numpy()
    assert np.array_equal(got, pixels)
    assert list(held_out_batches(prepare(DataSettings(path=classes), size=8), 8)) == []


# --- files that break while it trains ---


def spoil(folder):
    (folder / "003.png").unlink()
    (folder / "007.png").write_bytes((folder / "007.png").read_bytes()[:500])
    (folder / "008.png").write_bytes(b"")
    (folder / "012.png").write_bytes(encoded(noise(999, 16, 20)))


def test_files_that_break_are_replaced_by_the_next_good_one(folder):
    dataset = made(folder, max_quarantined=0.2)
    before = take(dataset, 5)
    spoil(folder)
    told = []
    after = take(dataset, 5, report=lambda kind, **facts: told.append((facts["code"], facts["text"])))
    stand_in = {3: 4, 7: 9, 8: 9, 12: 13}
    for one, other in zip(before, after, strict=True):
        assert other.items.tolist() == [stand_in.get(item, item) for item in one.items.tolist()]
    assert equal(after, take(dataset, 5, workers=2))
    assert {code for code, _ in told} == {"E-DATA-010", "E-DATA-011", "E-DATA-012", "E-DATA-021"}
    assert len(told) == 4
    assert dict(told)["E-DATA-021"].startswith(
        "The images are not those that the run was started with: 1 changed ('012.png'). Put aside while training ("
    )


def test_too_many_that_break_stop_the_run(folder):
    dataset = made(folder, max_quarantined=0.1)
    spoil(folder)
    with pytest.raises(DataError) as caught:
        take(dataset, 5)
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith("E-DATA-006 3 of 20 images cannot be used (15.0%; at most 10.0% are allowed).")
    assert len(str(caught.value).splitlines()) == 7


def test_unreadable_files_are_put_aside(folder, monkeypatch):
    dataset, real = made(folder), Source.read

    def read(self, name):
        if name == "003.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, name)

    monkeypatch.setattr(Source, "read", read)
    told = []
    take(dataset, 5, report=lambda kind, **facts: told.append(facts["text"]))
    assert told == ["'003.png' cannot be read: Permission denied. Put aside while training (1 so far)."]


# --- workers that fail ---


def faulty(dataset, monkeypatch, fault, at=3, only_once=None):
    """Run `fault` in the worker that makes batch `at`, the first time only where a mark file is given."""
    real, parent = Making.__getitem__, os.getpid()

    def item(self, number):
        if number == at and os.getpid() != parent and not (only_once and only_once.exists()):
            if only_once:
                only_once.touch()
            fault()
        return real(self, number)

    monkeypatch.setattr(Making, "__getitem__", item)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_while_it_looks():
    """Whether to end, which torch's workers ask between two batches."""
    frame = sys._getframe()
    while "done_event" not in frame.f_locals:
        frame = frame.f_back
    frame.f_locals["done_event"]._cond.acquire()
    kill()


def fail():
    raise RuntimeError("something in the worker")


def hang():
    time.sleep(60)


@pytest.mark.parametrize("fault", [kill, kill_while_it_looks, fail, hang])
def test_a_worker_that_fails_is_replaced_and_nothing_changes(folder, tmp_path, monkeypatch, fault):
    dataset = made(folder, flip=True)
    expected = take(dataset, 8)
    faulty(dataset, monkeypatch, fault, only_once=tmp_path / "mark")
    told = []
    state = torch.get_rng_state()
    timeout = 3.0 if fault is hang else 120.0  # on a busy machine one that is well may be silent for a while
    got = take(dataset, 8, workers=2, timeout=timeout, report=lambda kind, **facts: told.append(facts))
    assert equal(got, expected)
    assert torch.equal(state, torch.get_rng_state())
    assert [facts["code"] for facts in told] == ["W-DATA-009"]
    assert told[0]["text"].startswith("A worker failed and is replaced (")
    assert "attempt 1 of 3)" in told[0]["text"]


def test_after_three_attempts_it_says_what_was_read(folder, monkeypatch):
    dataset = made(folder)
    names = dataset.names_of(take(dataset, 4)[3].items)
    faulty(dataset, monkeypatch, fail)
    with pytest.raises(DataError) as caught:
        take(dataset, 8, workers=1)
    assert caught.value.exit_code == 4
    assert str(caught.value) == (
        "E-DATA-071 Batch 3 could not be made in three attempts: RuntimeError: something in the worker.\n"
        f"Where: data.workers\nWhy: It was reading: {', '.join(names)}.\n"
        "Do: Look at these files, or set data.workers = 0 to see the fault itself."
    )


def test_the_signal_handler_of_the_process_stays(folder):
    before = signal.getsignal(signal.SIGCHLD)
    take(made(folder), 1, workers=1)
    assert signal.getsignal(signal.SIGCHLD) == before


def test_no_room_for_workers_is_said_and_costs_nothing_else(folder, monkeypatch):
    dataset = made(folder)
    expected = take(dataset, 4)

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", full)
    told = []
    assert equal(take(dataset, 4, workers=2, report=lambda kind, **facts: told.append(facts["text"])), expected)
    assert told == [
        "No worker processes can be started (No space left on device): images are read in the training process, "
        "with equal results. Often /dev/shm is full or too small; a container takes --shm-size=1g."
    ]


FULL_SHM = """
import sys
from pathlib import Path
from fusain.data.dataset import DataSettings, prepare
from fusain.data.loader import Loader
settings = DataSettings(path=sys.argv[1], workers=2, memory_gb=0, held_out="none")
try:
    with open("/dev/shm/fill", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    pass
told = []
tell = lambda kind, **facts: told.append(facts["code"])
batches = iter(Loader(prepare(settings, size=16), settings, seed=0, batch_size=4, report=tell))
print([next(batches).items.tolist() for _ in range(3)], told)
batches.close()
"""


def test_a_shared_memory_that_is_really_full(folder):
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    script = f'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {sys.executable} -c "$0" {folder}'
    command = ["unshare", "-Urm", "sh", "-c", script, FULL_SHM]
    environment = {**os.environ, "PYTHONPATH": str(Path(workers.__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no user namespaces: {done.stderr.strip()}")
    expected = [batch.items.tolist() for batch in take(made(folder), 3)]
    assert done.stdout.strip() == f"{expected} ['W-DATA-008']", done.stderr
