"""Encoded images and captions on disk: found by content, safe from kills and damage, never in each other's way."""

import os
import time
from pathlib import Path

import numpy as np

from fusain.data import stored
from fusain.data.stored import Stored, key

SHAPE = (2, 3)


def values(*numbers: int) -> np.ndarray:
    return np.stack([np.full(SHAPE, number, np.float32) for number in numbers])


def keys(*names: str) -> list[bytes]:
    return [key({"name": name}) for name in names]


def test_what_was_added_is_found_by_later_processes(tmp_path: Path) -> None:
    Stored(tmp_path, SHAPE).add(keys("a", "b"), values(1, 2))
    later = Stored(tmp_path, SHAPE)
    assert later.missing(keys("a", "c", "b", "c")) == [1]
    np.testing.assert_array_equal(later.read(keys("b", "a", "b")), values(2, 1, 2))


def test_two_that_write_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, other = Stored(tmp_path, SHAPE), Stored(tmp_path, SHAPE)
    for number, name in enumerate("abcd"):
        (one if number % 2 else other).add(keys(name), values(number))
    np.testing.assert_array_equal(Stored(tmp_path, SHAPE).read(keys(*"abcd")), values(0, 1, 2, 3))


def test_a_kill_between_values_and_keys_leaves_nothing_wrong(tmp_path: Path) -> None:
    Stored(tmp_path, SHAPE).add(keys("a", "b"), values(1, 2))
    (index,) = tmp_path.glob("*.keys")
    index.write_bytes(index.read_bytes()[:-5])
    (content,) = tmp_path.glob("*.f32")
    content.write_bytes(content.read_bytes() + b"half")
    later = Stored(tmp_path, SHAPE)
    assert later.missing(keys("a", "b")) == [1]
    later.add(keys("b"), values(2))
    np.testing.assert_array_equal(Stored(tmp_path, SHAPE).read(keys("a", "b")), values(1, 2))


def test_a_damaged_value_counts_as_missing(tmp_path: Path) -> None:
    Stored(tmp_path, SHAPE).add(keys("a", "b"), values(1, 2))
    (content,) = tmp_path.glob("*.f32")
    damaged = bytearray(content.read_bytes())
    damaged[3] ^= 1
    content.write_bytes(damaged)
    assert Stored(tmp_path, SHAPE).missing(keys("a", "b")) == [0]


def test_a_cut_file_of_values_loses_its_end_only(tmp_path: Path) -> None:
    Stored(tmp_path, SHAPE).add(keys("a", "b"), values(1, 2))
    (content,) = tmp_path.glob("*.f32")
    content.write_bytes(content.read_bytes()[:-1])
    assert Stored(tmp_path, SHAPE).missing(keys("a", "b")) == [1]


def test_folders_that_nobody_opens_for_long_go(tmp_path: Path) -> None:
    for name in ("old", "used"):
        Stored(tmp_path / name, SHAPE).add(keys("a"), values(1))
    long_ago = time.time() - 86_400 * (stored.UNUSED_DAYS + 1)
    for path in (tmp_path / "old").iterdir():
        os.utime(path, (long_ago, long_ago))
    stored.prune(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
