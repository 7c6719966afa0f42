"""What the operator alone may do: tokens, the configuration, doctor, handover."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import Path
from starlette.responses import Response

from overnight.domain.token import AccessToken, digest, new_secret
from overnight.ids import new_token_id
from overnight.server.context import Here, listed, reply
from overnight.server.routing import API, Operation
from overnight.wire.v1 import schema
from overnight.wire.v1.commands import TokenBody
from overnight.wire.v1.tokens import token_resource

TokenPath = Annotated[str, Path(description="Name or id of a token", max_length=100)]


async def list_tokens(here: Here) -> Response:
    """All tokens, oldest first, without anything that could be used as one."""
    now = here.services.clock.wall_ms()
    tokens = await here.services.uow.read(lambda tx: tx.tokens.all(None))
    return listed([token_resource(token, now_ms=now) for token in tokens])


async def make_token(here: Here, body: TokenBody) -> Response:
    """A new token. Its secret is in this answer and nowhere else: only a hash is stored."""
    now = here.services.clock.wall_ms()
    secret = new_secret()
    token = AccessToken(
        pk=0, id=new_token_id(now), owner=body.owner or here.owner, name=body.name, kind=body.kind,
        digest=digest(secret), created_at=now,
        expires_at=None if body.expires_in_s is None else now + body.expires_in_s * 1000,
    )  # fmt: skip
    stored = await here.services.uow.write(lambda tx: tx.tokens.add(token))
    return reply(token_resource(stored, now_ms=now) | {"secret": secret}, 201)


async def revoke_token(here: Here, name: TokenPath) -> Response:
    """Make a token useless, at once and for good; streams that it opened end. Idempotent."""
    now = here.services.clock.wall_ms()
    token = await here.services.uow.write(lambda tx: tx.tokens.revoke(name, None, now))
    here.parts.authenticator.forget(token)
    return Response(status_code=204)


async def get_config(here: Here) -> Response:
    """Every setting, its value (secrets masked) and where it came from."""
    return listed(list(here.services.config()))


async def get_doctor(here: Here) -> Response:
    """What is in order on this host and what is not, with the mends."""
    return reply(dict(await here.services.doctor()))


async def hand_over(here: Here) -> Response:
    """The server exits at once and leaves its living agents to the next one: an upgrade in place."""
    here.services.handover()
    return reply({"status": "handing_over"}, 202)


_admin = partial(Operation, tag="operator")
OPERATIONS: Final = (
    _admin(
        method="GET", path=f"{API}/tokens", endpoint=list_tokens, summary="List tokens", model=schema.TokenList
    ),
    _admin(
        method="POST", path=f"{API}/tokens", endpoint=make_token, summary="Make a token", status=201,
        model=schema.NewToken, refusals=(409, 507),
    ),
    _admin(
        method="DELETE", path=f"{API}/tokens/{{name}}", endpoint=revoke_token, summary="Revoke a token", status=204
    ),
    _admin(method="GET", path=f"{API}/config", endpoint=get_config, summary="Show settings", model=schema.ConfigList),
    _admin(method="GET", path=f"{API}/doctor", endpoint=get_doctor, summary="Check the host", model=schema.Doctor),
    _admin(
        method="POST", path=f"{API}/admin/handover", endpoint=hand_over, summary="Hand over to the next server",
        status=202, model=schema.Accepted,
    ),
)  # fmt: skip
