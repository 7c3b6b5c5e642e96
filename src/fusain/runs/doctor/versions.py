"""Packages against what Fusain needs, what it was tested with, and what is known to be unsafe. Nothing is imported."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from fusain.runs.doctor.finding import Finding
from fusain.settings.notice import Notice

FILE: Final = Path(__file__).parent / "tested.json"

SECURITY: Final[dict[str, tuple[str, str]]] = {
    "torch": ("2.10", "CVE-2025-32434 and CVE-2026-24747: weights files that run code or damage memory"),
    "diffusers": ("0.38", "CVE-2026-44513, -44827, -45804: models of the hub that run code"),
    "transformers": ("5.3", "CVE-2026-4372, -5241: configurations that run code"),
    "pillow": ("12.3", "CVE-2026-25990, -59199: images that write outside their memory"),
    "gradio": ("6.20", "CVE-2026-28414, -28416: files of the machine given to visitors"),
    "brotli": ("1.2.1", "small answers that fill the memory"),
}
"""The first version of each package that is free of the holes named; seen by advisories until November 2026."""


@cache
def tested() -> dict[str, Any]:
    """What pyproject.toml asks for and requirements.lock holds, as `make docs` wrote it into the package."""
    stored: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return stored


def installed(name: str) -> str | None:
    """The version of a package by what its installation says."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def examine() -> Iterator[Finding]:
    """Python, every package that Fusain needs, and every extra."""
    yield python(sys.version_info[:2], platform.python_version())
    known = tested()
    extras = [package for extra in known["extras"].values() for package in extra["packages"]]
    names = dict.fromkeys([*known["needs"], *extras, *SECURITY])
    found = {name: version for name in names if (version := installed(name)) is not None}
    yield from packages(found, known)
    for name, extra in known["extras"].items():
        yield of_extra(name, extra, found)


def python(version: tuple[int, ...], text: str) -> Finding:
    """Whether this Python is one that Fusain is made for."""
    low, high = (numbers(limit) for limit in tested()["python"])
    span = f"{low[0]}.{low[1]} to {high[0]}.{high[1] - 1}"
    fits = low <= version < high
    notice = None if fits else Notice("E-DOC-001", where=sys.executable, found=text, span=span)
    return Finding("versions", "Python", text, {"version": text, "needs": span}, notice)


def packages(found: Mapping[str, str], known: Mapping[str, Any]) -> Iterator[Finding]:
    """Each needed package, and each other one of which unsafe versions are known."""
    for name in dict.fromkeys([*known["needs"], *(name for name in SECURITY if name in found)]):
        version, needs, was_tested = found.get(name), known["needs"].get(name), known["tested"].get(name)
        facts = {"version": version, "needs": needs, "tested": was_tested, "safe_from": SECURITY.get(name, ("",))[0]}
        text = version or "not installed"
        if version and was_tested and release(version) != release(was_tested):
            text += f" (tested with {was_tested})"
        yield Finding("versions", name, text, facts, _fault(name, version, needs))


def _fault(name: str, version: str | None, needs: str | None) -> Notice | None:
    if version is None:
        return Notice("E-DOC-002", name=name, needs=needs)
    floor, holes = SECURITY.get(name, ("0", ""))
    if numbers(version) < numbers(floor):
        return Notice("E-DOC-003", name=name, found=version, holes=holes, floor=floor)
    if needs and numbers(version) < numbers(needs):
        return Notice("E-DOC-004", name=name, found=version, needs=needs)
    return None


def of_extra(name: str, extra: Mapping[str, Any], found: Mapping[str, str]) -> Finding:
    """An extra that is not there is no fault: it says what it would give."""
    missing = [package for package in extra["packages"] if package not in found]
    facts = {"gives": extra["gives"], "missing": missing}
    if missing:
        return Finding("extras", name, f"not installed; gives {extra['gives']}: pip install 'fusain[{name}]'", facts)
    old = {package: least for package, least in extra["packages"].items() if numbers(found[package]) < numbers(least)}
    package, least = next(iter(old.items()), ("", ""))
    notice = Notice("W-DOC-001", extra=name, name=package, found=found[package], needs=least) if old else None
    return Finding("extras", name, f"installed: {extra['gives']}", facts, notice)


def release(version: str) -> str:
    """A version without the build that it names: 2.13.0+cpu is 2.13.0."""
    return version.partition("+")[0]


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, for comparing: 2.10 is more than 2.9, and 2.10.0 is 2.10."""
    found = [int(part) for part in re.findall(r"\d+", (re.match(r"\d+(\.\d+)*", version) or [""])[0])]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)
