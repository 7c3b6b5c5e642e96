"""What may reach the network, and by whose word; nothing is contacted to find it out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fusain.runs.doctor.finding import Finding

ON: Final = ("1", "on", "yes", "true")
HUB: Final = "https://huggingface.co"
SWITCHES: Final = ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
"""Fusain sets the first one itself, unless the user has set it."""

TRACKIO: Final = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")
"""By each of these trackio goes to the hub, or to a server: it reads them itself, and no argument says otherwise."""


def examine() -> Iterator[Finding]:
    """The hub, the login to it, and what is sent unasked."""
    yield from reaches(os.environ)


def reaches(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Every place that Fusain may contact under these variables of the environment."""
    hub = environment.get("HF_ENDPOINT") or HUB
    offline = environment.get("HF_HUB_OFFLINE", "").lower() in ON
    text = (
        "never contacted: HF_HUB_OFFLINE is set"
        if offline
        else f"{hub}: for a base or a data set named OWNER/NAME that is not on this machine, and by `fusain publish`"
    )
    yield Finding("network", "hub", text, {"address": hub, "offline": offline})
    yield _login(environment)
    quiet = [name for name in SWITCHES if environment.get(name, "").lower() in ON]
    text = (
        f"none: {quiet[0]} is set"
        if quiet
        else f"huggingface_hub tells versions and the agent at work with each request: {SWITCHES[0]} asks for it"
    )
    yield Finding("network", "telemetry", text, {"switched_off_by": quiet})
    yield _trackers(environment)
    proxies = sorted(name for name in environment if name.lower() in ("http_proxy", "https_proxy", "all_proxy"))
    if proxies:
        yield Finding("network", "proxy", f"set by {', '.join(proxies)}", {"variables": proxies})


def _trackers(environment: Mapping[str, str]) -> Finding:
    """Those that send a run elsewhere do so only where its settings name them."""
    has_server = environment.get("MLFLOW_TRACKING_URI", "").startswith("http")
    reads = [name for name in TRACKIO if environment.get(name)]
    text = 'W&B with track.wandb = "online"' + ("; MLflow, to MLFLOW_TRACKING_URI" if has_server else "")
    text += f"; trackio, to {' and '.join(reads)}" if reads else ""
    return Finding("network", "trackers", text, {"mlflow_server": has_server, "trackio_reads": reads})


def _login(environment: Mapping[str, str]) -> Finding:
    """Whether there is a token; it is neither read nor shown."""
    home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    file = Path(environment.get("HF_TOKEN_PATH") or home / "token").expanduser()
    source = "HF_TOKEN" if environment.get("HF_TOKEN") else "hf auth login" if file.is_file() else ""
    text = f"a token, from {source}" if source else "none; closed models and publishing need one: hf auth login"
    return Finding("network", "login", text, {"source": source})
