"""Hosts: what those that share a database know of each other.

A host is one data directory. What lies in it (turn folders, the homes of agents, workspaces outside shared roots) is
there and nowhere else, so runs that need it wait for its worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

from overnight.domain.run import Run, Turn
from overnight.errors import OnAnotherHost
from overnight.ids import HostId
from overnight.keeper_protocol import boot_id
from overnight.ports.unit_of_work import Transaction

_HOST: Final = "host"
_LEFT: Final = "leftover."
HOST_FILE: Final = "host.json"
"""In a data directory: the id of the host that it is."""

Rouse = Callable[[Path], bool]
"""Whether an agent's keeper lives for that turn folder; one that stands still is let go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a worker tells of its host when it starts."""

    id: HostId
    name: str
    data_dir: str
    boot_id: str
    """Of the machine; empty where the system does not tell."""


def remember(tx: Transaction, host: Host) -> None:
    """Let the other hosts know."""
    told = {name: value for name, value in asdict(host).items() if name != "id"}
    tx.installation.put(_key(host.id), orjson.dumps(told).decode())


def recall(tx: Transaction, host_id: HostId) -> Host | None:
    """What that host has told; None when no worker of it ever started."""
    told = tx.installation.get(_key(host_id))
    if told is None:
        return None
    found = orjson.loads(told)
    return Host(
        id=host_id, name=str(found["name"]), data_dir=str(found["data_dir"]), boot_id=str(found["boot_id"])
    )


def name_of(tx: Transaction, host_id: HostId) -> str:
    """How people know the host: the machine's name, or its id where that is unknown."""
    known = recall(tx, host_id)
    return f"{known.name} ({host_id})" if known else str(host_id)


def folder_here(host: Host, turn: Turn) -> Path | None:
    """The folder of a turn of another host, where that is a data directory of this very machine; blocks on the disk.

    None where nothing can be seen of it from here.
    """
    if not host.boot_id or host.boot_id != boot_id():
        return None
    if id_in(Path(host.data_dir)) != host.id:
        return None
    return Path(host.data_dir) / turn.folder


def id_in(data_dir: Path) -> HostId | None:
    """The host that a data directory is; None when it cannot be read, or no host was ever made of it."""
    try:
        found = orjson.loads((data_dir / HOST_FILE).read_bytes())
        return HostId(str(found["host_id"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept_on(host_id: HostId, state: Mapping[str, object]) -> dict[str, object]:
    """A backend's session state with the host where the home lies that it means; empty stays empty."""
    return {**state, _HOST: host_id} if state else {}


def known_on(host_id: HostId, state: Mapping[str, object]) -> dict[str, object]:
    """The state as the backend gave it; empty on every other host than its own: the conversation begins anew there."""
    found = dict(state)
    return found if found.pop(_HOST, host_id) == host_id else {}


def is_known_on(host_id: HostId, state: Mapping[str, object]) -> bool:
    """Whether the state means nothing that lies on another host."""
    return state.get(_HOST, host_id) == host_id


def elsewhere(tx: Transaction, run: Run, here: HostId) -> OnAnotherHost | None:
    """The refusal for files of a run that another host has, or had last; None where they lie here."""
    if run.host_id == here:
        return None
    name = name_of(tx, run.host_id)
    return OnAnotherHost(
        f"these files of {run.id} lie on host {name}",
        mend="ask a server that has the data directory of that host",
        extra={"host_id": run.host_id, "host": name},
    )


def leave_behind(tx: Transaction, run: Run, here: HostId, folders: Sequence[str]) -> None:
    """Have the host of a run that is being removed remove these folders, relative to its data directory."""
    if run.host_id != here:
        for folder in folders:
            tx.installation.put(f"{_LEFT}{run.host_id}.{folder}", "")


def left_behind(tx: Transaction, here: HostId, limit: int) -> tuple[str, ...]:
    """What this host is to remove."""
    prefix = f"{_LEFT}{here}."
    return tuple(key.removeprefix(prefix) for key in tx.installation.listed(prefix, limit))


def removed(tx: Transaction, here: HostId, folders: Sequence[str]) -> None:
    """It has removed them."""
    for folder in folders:
        tx.installation.put(f"{_LEFT}{here}.{folder}", None)


def _key(host_id: HostId) -> str:
    return f"host.{host_id}"
