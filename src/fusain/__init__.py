"""Fusain turns a folder of images into an image model you can trust; these names are its Python API.

The names load what they need when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusain.runs.actions import generate, open_run, train
    from fusain.runs.demo import demo
    from fusain.runs.history import remove, runs_in
    from fusain.runs.planning import plan
    from fusain.runs.publishing import publish

__all__ = ["demo", "generate", "open_run", "plan", "publish", "remove", "runs_in", "train"]

_HOMES = {
    "demo": "demo",
    "generate": "actions",
    "open_run": "actions",
    "plan": "planning",
    "publish": "publishing",
    "remove": "history",
    "runs_in": "history",
    "train": "actions",
}

_UNASKED = (
    ("HF_HUB_DISABLE_TELEMETRY", "1", "huggingface_hub.constants", True),
    ("HF_UPDATE_DOWNLOAD_COUNTS", "0", "datasets.config", False),
)
"""What libraries of the hub send home: what is installed here, and that a data set on this disk was opened. Off unless
the user says otherwise; here, for they look at it once, when they are imported. For trackers it is in their files."""

for _name, _value, _module, _flag in _UNASKED:
    if _name not in os.environ:
        os.environ[_name] = _value
        if _module in sys.modules:  # by whoever imports Fusain
            setattr(sys.modules[_module], _name, _flag)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fusain' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fusain.runs.{_HOMES[name]}"), name)
