"""What a protocol that is spoken on sockets is to the server, and a client's link as protocols see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from overnight.client.socket.link import Link
from overnight.client.socket.terms import Handler, Resumer
from overnight.domain.token import TokenKind
from overnight.ids import ConnectionId
from overnight.server.auth import Caller


@dataclass(slots=True, eq=False, kw_only=True)
class Socket:
    """One client's link, as the protocols see it. It outlives cuts of its connection, for a while."""

    id: ConnectionId
    """Of the connection by which it came first."""
    key: str = field(repr=False)
    """What a client shows that comes back to it."""
    caller: Caller
    link: Link


class Spoken(Protocol):
    """A protocol that is spoken on sockets, made once for the whole server."""

    @property
    def kinds(self) -> frozenset[TokenKind]:
        """To which kinds of token it is open. Others find none of its messages served."""
        ...

    def handlers(self, socket: Socket) -> Mapping[str, Handler]:
        """What it does with messages of this link, by their type or by the kind of their scope."""
        ...

    def resumers(self, socket: Socket) -> Mapping[str, Resumer]:
        """How its scopes with a log go on, by kind of scope."""
        ...

    async def left(self, socket: Socket) -> None:
        """The link is over for good. Called once, also for a socket that has never asked for anything."""
        ...
