"""Finds the classes that live one per file in a plug folder: adding one is one new file and no edit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any, cast


def find(folder: ModuleType, contract: type[Any]) -> dict[str, type[Any]]:
    """The class of each file in `folder` that fulfils `contract`, by its `kind`, in the order of their names."""
    return dict(_find(folder.__name__, tuple(folder.__path__), cast(Any, contract)))


@cache
def _find(name: str, path: tuple[str, ...], contract: Any) -> dict[str, type[Any]]:
    found: dict[str, type[Any]] = {}
    for entry in sorted(pkgutil.iter_modules(path), key=lambda entry: entry.name):
        module = importlib.import_module(f"{name}.{entry.name}")
        members: list[tuple[str, Any]] = inspect.getmembers(module, inspect.isclass)
        for _, member in members:
            if member.__module__ != module.__name__ or not issubclass(member, contract) or inspect.isabstract(member):
                continue
            assert member.kind not in found, f"two files of {name} say kind = {member.kind!r}"
            found[member.kind] = member
    return found
