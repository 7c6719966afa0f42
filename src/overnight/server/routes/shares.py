"""Sharing a session: with a user, or by a link."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import Path
from starlette.responses import Response

from overnight.ids import SessionId, ShareId
from overnight.server.context import Here, listed, reply
from overnight.server.routing import API, Operation, SessionPath
from overnight.wire.v1 import session_schema
from overnight.wire.v1.sessions import ShareBody, share_resource

SharePath = Annotated[str, Path(description="Id of a share", examples=["shr_01k0c3v9h4f6x8r2m5t7w9y1zb"])]


async def share_session(here: Here, session_id: SessionPath, body: ShareBody) -> Response:
    """Open a session: to a user (viewer, operator or decider), or to whoever has the link, for reading alone.

    The code of a link is in this answer and nowhere else. It stands behind a `#`, which a browser keeps to itself.
    """
    sharing, by, session = here.services.sharing, here.caller.principal, SessionId(session_id)
    if body.user is not None:
        opened = await sharing.with_user(session, body.user, body.role, body.expires_s, by)
        here.parts.access.forget(body.user)
    else:
        opened = await sharing.by_link(session, body.expires_s, by)
    path = None if opened.code is None else f"/#share={opened.code}&session={opened.share.session_id}"
    return reply(share_resource(opened.share) | {"code": opened.code, "path": path}, 201)


async def list_shares(here: Here, session_id: SessionPath) -> Response:
    """The shares that can be used now, oldest first."""
    found = await here.services.sharing.of_session(SessionId(session_id), here.caller.principal)
    return listed([share_resource(share) for share in found])


async def revoke_share(here: Here, session_id: SessionPath, share_id: SharePath) -> Response:
    """End a share: logins by its link and streams that it opened end at once. Idempotent."""
    share = await here.services.sharing.revoke(
        SessionId(session_id), ShareId(share_id), here.caller.principal
    )
    here.parts.authenticator.unshared(share.session_pk, share.pk)
    return Response(status_code=204)


_share = partial(Operation, tag="sessions")
_ALL: Final = f"{API}/sessions/{{session_id}}/share"
OPERATIONS: Final = (
    _share(
        method="POST", path=_ALL, endpoint=share_session, summary="Share a session", status=201,
        model=session_schema.NewShare, refusals=(429, 507),
    ),
    _share(method="GET", path=_ALL, endpoint=list_shares, summary="List shares", model=session_schema.ShareList),
    _share(
        method="DELETE", path=f"{_ALL}/{{share_id}}", endpoint=revoke_share, summary="Revoke a share", status=204
    ),
)  # fmt: skip
