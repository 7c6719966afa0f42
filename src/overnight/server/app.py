"""The application: routes by FastAPI, the gate around all of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from overnight.server import refusals
from overnight.server.access import Access
from overnight.server.asgi import App
from overnight.server.auth import Authenticator
from overnight.server.connection_rows import ConnectionRows
from overnight.server.connections import Connections
from overnight.server.context import Parts
from overnight.server.gate import Gate
from overnight.server.login import Logins
from overnight.server.presence import Presence
from overnight.server.responses import Responses
from overnight.server.routes import (
    admin,
    approvals,
    backends,
    changes,
    connections,
    leases,
    log,
    messages,
    model_calls,
    openai,
    operation,
    root,
    runs,
    sessions,
    shares,
    stream,
    workers,
)
from overnight.server.routing import Operation, register, responses
from overnight.server.services import Services
from overnight.server.socket.endpoint import SocketEndpoint
from overnight.wire import problem

OPERATIONS: Final[tuple[Operation, ...]] = (
    *runs.OPERATIONS,
    *log.OPERATIONS,
    *model_calls.OPERATIONS,
    *changes.OPERATIONS,
    *stream.OPERATIONS,
    *openai.OPERATIONS,
    *sessions.OPERATIONS,
    *messages.OPERATIONS,
    *shares.OPERATIONS,
    *approvals.OPERATIONS,
    *backends.OPERATIONS,
    *operation.OPERATIONS,
    *workers.OPERATIONS,
    *leases.OPERATIONS,
    *connections.OPERATIONS,
    *admin.OPERATIONS,
    *root.OPERATIONS,
)
"""Every route there is; the reference page is made from it."""
_TITLE: Final = "Overnight"
_SUMMARY: Final = "Coding agents as durable jobs."
_NO_TELEMETRY: Final[TelemetryConfig] = {
    "auto_configure": False,
    "tracing": False,
    "metrics": False,
    "logs": False,
}
"""The framework's own spans know nothing of redaction, and would let the environment open an exporter."""


class _Api(FastAPI):
    """FastAPI whose description is made when somebody asks for it: most servers are never asked."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _description(self.version)
        return self.openapi_schema


def create_app(services: Services) -> App:
    """The whole server as one ASGI application. It closes nothing that it was given, except the readers of streams."""
    meters = services.meters
    authenticator = Authenticator(services.uow, services.clock)
    settings = services.settings
    access = Access(services.uow, services.clock)
    registry = _registry(services, authenticator)
    logins = Logins(
        services.uow, services.clock, authenticator, services.sharing, session_days=settings.session_days
    )
    parts = Parts(
        services=services, authenticator=authenticator, access=access, logins=logins, connections=registry,
        responses=Responses(services.uow), meters=meters,
    )  # fmt: skip
    socket = SocketEndpoint(parts)
    api = create_api(settings.version, registry, socket)
    api.state.parts = parts
    return Gate(
        api, settings=settings, authenticator=authenticator, access=access, meters=meters, socket=socket
    )  # fmt: skip


def create_api(
    version: str, registry: Connections | None = None, socket: SocketEndpoint | None = None
) -> FastAPI:
    """The routes alone, without the gate and without services: enough to describe them."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if registry is None or socket is None:
            yield
            return
        beside = asyncio.create_task(registry.run(), name="connections")
        try:
            yield
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
            await socket.close()
            await registry.close()

    api = _Api(
        version=version, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False, telemetry=_NO_TELEMETRY,
    )  # fmt: skip
    register(api, OPERATIONS)
    refusals.install(api)
    return api


def _registry(services: Services, authenticator: Authenticator) -> Connections:
    uow, clock, server = services.uow, services.clock, services.server_id
    return Connections(
        settings=services.settings, clock=clock, authenticator=authenticator, meters=services.meters,
        rows=ConnectionRows(uow, clock, server),
        presence=Presence(uow, services.notifier, clock, server),
    )  # fmt: skip


def _description(version: str) -> dict[str, Any]:
    """What the routes take and answer, with our problems and tokens."""
    twin = FastAPI(title=_TITLE, summary=_SUMMARY, version=version, telemetry=_NO_TELEMETRY)
    register(twin, OPERATIONS, answers=responses)
    described = twin.openapi()
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = problem.schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "`overnight token new`"}
    }
    described["security"] = [{"token": []}]
    return described
