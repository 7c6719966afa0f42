"""How the process of the built-in agent is to work, from its command line and its environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast, get_args

from overnight.agent.process import AgentSettings, Mode
from overnight.config import server_file
from overnight.config.sources import read
from overnight.errors import ConfigInvalid, Unreachable

ENDPOINT: Final = "OVERNIGHT_AGENT_ENDPOINT"
TOKEN: Final = "OVERNIGHT_AGENT_TOKEN"
EFFORTS: Final = ("low", "medium", "high")
_OURS: Final = "OVERNIGHT_"


def agent_settings(environment: Mapping[str, str], given: Mapping[str, str | None]) -> AgentSettings:
    """The settings; `given` are `model`, `effort`, `mode` and `endpoint` of the command line.

    Without an endpoint it is the server of this machine's user. Raises ConfigInvalid, Unreachable.
    """
    mode, effort = given.get("mode") or "work", given.get("effort")
    if mode not in get_args(Mode):
        raise ConfigInvalid(f"there is no mode {mode!r}", mend=f"use one of: {', '.join(get_args(Mode))}")
    if effort is not None and effort not in EFFORTS:
        raise ConfigInvalid(f"there is no effort {effort!r}", mend=f"use one of: {', '.join(EFFORTS)}")
    endpoint, token = given.get("endpoint") or environment.get(ENDPOINT), environment.get(TOKEN)
    if endpoint is None:
        endpoint, token = _local(environment)
    return AgentSettings(
        endpoint=endpoint,
        token=token,
        home=Path(environment.get("HOME") or Path.home()),
        model=given.get("model") or "",
        effort=effort,
        mode=cast("Mode", mode),
        sandbox=environment.get("OVERNIGHT_SANDBOX", "none"),
        environment={
            name: value
            for name, value in environment.items()
            if not name.startswith(_OURS) or name.startswith("OVERNIGHT_VAR_")
        },
    )


def _local(environment: Mapping[str, str]) -> tuple[str, str]:
    sources = read(environment)
    found = server_file.read(cast("Path", sources["data_dir"]), environment)
    if found is None:
        raise Unreachable(
            "no server of this user runs, and no other was named",
            mend=f"start one with: overnight up; or name one with --endpoint and {TOKEN}",
        )
    return f"ws{found.url.removeprefix('http')}", found.token
