"""The environment of a user who has switched nothing off, for processes that tests start."""

from __future__ import annotations

import os

SWITCHES = (
    "DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_UPDATE_DOWNLOAD_COUNTS",
    "MLFLOW_DISABLE_TELEMETRY",
    "WANDB_ERROR_REPORTING",
)
"""Against what libraries send home by themselves; importing Fusain sets some of them in this process."""


def as_users_have_it(**changes: str) -> dict[str, str]:
    """This environment without the switches, and with these changes."""
    return {name: value for name, value in os.environ.items() if name not in SWITCHES} | changes


def assert_telemetry_is_off(agents: set[str]) -> None:
    """What requests to the hub say of who asks: neither what else is installed nor who is at work."""
    assert any("hf_hub/" in agent for agent in agents)
    assert [agent for agent in agents if "torch/" in agent or "agent/" in agent] == []
