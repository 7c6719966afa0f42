"""Which protocols are spoken on sockets: the one place where they are named."""

from __future__ import annotations

from overnight.server.context import Parts
from overnight.server.socket.handlers import Spoken
from overnight.server.socket.provider import Provider
from overnight.server.socket.runs import RunStreams
from overnight.server.socket.sessions import AgentSessions
from overnight.server.socket.tools.hub import ToolHub
from overnight.server.socket.tools.leave import Leaves


def spoken(parts: Parts) -> tuple[Spoken, ...]:
    """Every protocol. Where two have a handler of the same name, the later one counts."""
    services = parts.services
    found: list[Spoken] = [
        ToolHub(Leaves(services.uow, services.rules)),
        RunStreams(parts),
        AgentSessions(parts),
    ]
    if services.models is not None:
        found.append(Provider(services.models, services.model_account))
    return tuple(found)
