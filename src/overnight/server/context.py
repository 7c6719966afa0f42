"""What a route has at hand: the services, the parts of the server, and who asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from overnight.server.access import Access
from overnight.server.asgi import CALLER
from overnight.server.auth import Authenticator, Caller
from overnight.server.connections import Connections
from overnight.server.leases import LeaseCalls
from overnight.server.login import Logins
from overnight.server.metrics import Meters
from overnight.server.responses import Responses
from overnight.server.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The server's own parts, made once by `create_app`."""

    services: Services
    authenticator: Authenticator
    access: Access
    logins: Logins
    connections: Connections
    responses: Responses
    meters: Meters


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One request's view: `parts`, and the caller whose token the gate has checked."""

    parts: Parts
    caller: Caller

    @property
    def services(self) -> Services:
        """What the rest of the program offers."""
        return self.parts.services

    @property
    def leases(self) -> LeaseCalls:
        """Leases of workers without a database."""
        return self.services.leases

    @property
    def owner(self) -> str:
        """Whose things are asked for: every query is made for this owner."""
        return self.caller.principal.owner


async def _parts(request: Request) -> Parts:
    found: Parts = request.app.state.parts
    return found


async def _context(request: Request) -> Context:
    return Context(parts=request.app.state.parts, caller=request.scope[CALLER])


Here = Annotated[Context, Depends(_context)]
Open = Annotated[Parts, Depends(_parts)]
"""For the few routes that need no token."""


def reply(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response; the document is encoded as it is, without validation."""
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def listed(items: list[Any], next_cursor: str | None = None) -> Response:
    """A list as every route sends it."""
    return reply({"items": items, "next_cursor": next_cursor})
