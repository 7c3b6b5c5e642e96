"""Lines of keys in TOML texts of every shape."""

from __future__ import annotations

from fusain.settings.positions import key_lines, line_of

TEXT = '''# a comment with [brackets] = 1
title = "x = 1"
a.b = [
  1, # ]
  2,
]
[section]   # trailing
text = """
not = a key
"""
raw = \'\'\'
[not.a.table]
\'\'\'
inline = { one = 1, two = "}" }
"quoted name" = 1
[section.deep]
x = 1
[[items]]
name = 1
[[items]]
name = 2
[items.inner]
y = 3
'''


def test_each_key_has_its_line():
    assert key_lines(TEXT) == {
        ("title",): 2,
        ("a",): 3,
        ("a", "b"): 3,
        ("section",): 7,
        ("section", "text"): 8,
        ("section", "raw"): 11,
        ("section", "inline"): 14,
        ("section", "quoted name"): 15,
        ("section", "deep"): 16,
        ("section", "deep", "x"): 17,
        ("items",): 18,
        ("items", "0"): 18,
        ("items", "0", "name"): 19,
        ("items", "1"): 20,
        ("items", "1", "name"): 21,
        ("items", "1", "inner"): 22,
        ("items", "1", "inner", "y"): 23,
    }


def test_a_key_without_a_line_has_that_of_what_is_around_it():
    lines = key_lines(TEXT)
    assert line_of(lines, ("section", "inline", "two")) == 14
    assert line_of(lines, ("nowhere",)) is None
