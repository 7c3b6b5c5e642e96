"""The catalogue as people meet it: every message with facts in it is short, says no nonsense, and is documented."""

import re
import string
from pathlib import Path

import pytest

from fusain.errors import FusainError
from fusain.messages import catalogue
from fusain.settings.notice import Notice

REPOSITORY = Path(__file__).parents[2]
LISTS = {"shown": "    one\n    two\n    three"}
"""Facts that are longer than a word."""


def facts(code: str) -> dict[str, object]:
    """A sample of each fact that a message names: a number where it is written as one, else a word."""
    entry = catalogue()[code]
    found: dict[str, object] = {}
    for text in (entry.what, entry.why, entry.do):
        for _, name, spec, _ in string.Formatter().parse(text):
            if name:
                found[name] = 1_234 if spec else LISTS.get(name, name)
    return found


@pytest.mark.parametrize("code", sorted(catalogue()))
def test_a_message_is_short_and_whole(code: str) -> None:
    kind = FusainError if code.startswith("E") else Notice
    message = kind(code, **facts(code)).message
    lines = "\n".join(text for text in (message.what, message.why, message.do) if text).splitlines()
    assert len(lines) <= 6
    assert not [line for line in lines if "{" in line or "}" in line or "NoneType" in line], "a fact is missing"
    assert message.do or "advice" in message.what or code.startswith("W"), "an error without a way out"


def test_every_code_is_documented() -> None:
    page = (REPOSITORY / "docs" / "reference" / "errors.md").read_text()
    assert set(re.findall(r"^### ([EW]-[A-Z]+-\d{3})$", page, re.MULTILINE)) == set(catalogue())
