"""What stands outside the API: the shell, health, login, and the description of it all."""

from __future__ import annotations

from functools import partial
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from overnight.errors import Draining, NotFound, Unavailable
from overnight.server import pages
from overnight.server.context import Here, Open, Parts, reply
from overnight.server.login import COOKIE
from overnight.server.routing import Operation
from overnight.wire.v1 import schema
from overnight.wire.v1.commands import LoginBody


async def get_shell(parts: Open) -> Response:
    """The static page on which a browser logs in."""
    _need_web(parts)
    return Response(pages.SHELL, headers=pages.HEADERS)


async def get_livez(parts: Open) -> Response:  # noqa: ARG001 - every open route has the same shape
    """The process answers; it says nothing about its parts."""
    return reply({"status": "ok"})


async def get_readyz(parts: Open) -> Response:
    """200 when the server takes work, else 503 with the reasons."""
    if parts.services.runs.draining:
        raise Draining
    reasons = await parts.services.ready()
    if reasons:
        raise Unavailable("; ".join(reasons))
    return reply({"status": "ready"})


async def log_in(parts: Open, body: LoginBody) -> Response:
    """Turn the one-time code that `overnight up` printed (or a user's token) into a cookie for this browser.

    The code of a shared link (`share`) gives a cookie that is good for reading that session and its runs alone.
    """
    _need_web(parts)
    code, link = body.code, body.share
    session = await (parts.logins.login(code) if code is not None else parts.logins.enter(link or ""))
    secure = "; Secure" if parts.services.settings.secure else ""
    cookie = (
        f"{COOKIE}={session.secret}; Max-Age={session.max_age_s}; Path=/; HttpOnly; SameSite=Strict{secure}"
    )
    return Response(status_code=204, headers={"set-cookie": cookie})


async def get_openapi(here: Here, request: Request) -> Response:  # noqa: ARG001 - asked for so that a token is needed
    """The OpenAPI 3.1 description of this API."""
    return Response(orjson.dumps(request.app.openapi()), media_type="application/json")


async def get_docs(here: Here, request: Request) -> Response:
    """The same for people: one page, nothing loaded from elsewhere."""
    _need_web(here.parts)
    return Response(pages.docs(request.app.openapi()), headers=pages.HEADERS)


def _need_web(parts: Parts) -> None:
    if not parts.services.settings.web:
        raise NotFound("this server was started without its web interface")


_root = partial(Operation, tag="server")
OPERATIONS: Final = (
    _root(method="GET", path="/", endpoint=get_shell, summary="The shell", media="text/html", open=True,
        refusals=(404,),
    ),
    _root(method="GET", path="/livez", endpoint=get_livez, summary="Alive", model=schema.Accepted, open=True),
    _root(
        method="GET", path="/readyz", endpoint=get_readyz, summary="Ready", model=schema.Accepted, open=True,
        refusals=(503,),
    ),
    _root(
        method="POST", path="/login", endpoint=log_in, summary="Log in", status=204, open=True,
        refusals=(401, 403, 404, 422, 429, 503, 507),
    ),
    _root(method="GET", path="/openapi.json", endpoint=get_openapi, summary="OpenAPI", media="application/json"),
    _root(
        method="GET", path="/docs", endpoint=get_docs, summary="Documentation", media="text/html", refusals=(404,),
    ),
)  # fmt: skip
