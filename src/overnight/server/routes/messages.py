"""Messages to sessions: post, look at those that wait, take one back."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import Path
from starlette.responses import Response

from overnight.ids import MessageId, SessionId
from overnight.server.context import Here, listed, reply
from overnight.server.routing import API, IdempotencyKey, Operation, SessionPath, idempotency_of
from overnight.wire.v1 import session_schema
from overnight.wire.v1.runs import run_resource
from overnight.wire.v1.sessions import MessageBody, message_resource

MessagePath = Annotated[str, Path(description="Id of a message", examples=["msg_01k0c3v9h4f6x8r2m5t7w9y1zb"])]


async def post_message(
    here: Here, session_id: SessionPath, body: MessageBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """Say something. When this answers, the message is stored; it gets a turn of its own, in order, exactly once.

    A chat run is started when none is live. With `when: now` the text goes into the run that is live, as a steer
    does; `steer_how` says by which way. Without a live run that is the same as `after_turn`.
    """
    whose = f" by {here.caller.user}" if here.caller.share else ""
    route = f"POST /sessions/{session_id}/messages{whose}"
    posted = await here.services.chat.post(
        SessionId(session_id),
        body.text,
        body.when,
        here.caller.principal,
        idempotency=idempotency_of(route, idempotency_key, body),
    )
    document = {
        "message": message_resource(posted.message),
        "run": run_resource(posted.run) if posted.run else None,
        "steer_how": posted.steer_how,
    }
    return reply(document, 202, {} if posted.new else {"Idempotent-Replayed": "true"})


async def list_messages(here: Here, session_id: SessionPath) -> Response:
    """The messages that wait for their turn, oldest first; what was said is in the history."""
    found = await here.services.chat.queued(SessionId(session_id), here.caller.principal)
    return listed([message_resource(message) for message in found])


async def remove_message(here: Here, session_id: SessionPath, message_id: MessagePath) -> Response:
    """Take a waiting message back. Idempotent; 409 `message_taken` once a turn has begun with it."""
    await here.services.chat.remove(SessionId(session_id), MessageId(message_id), here.caller.principal)
    return Response(status_code=204)


_message = partial(Operation, tag="sessions")
_ALL: Final = f"{API}/sessions/{{session_id}}/messages"
OPERATIONS: Final = (
    _message(
        method="POST", path=_ALL, endpoint=post_message, summary="Say something", status=202,
        model=session_schema.PostedModel, refusals=(409, 429, 507),
    ),
    _message(
        method="GET", path=_ALL, endpoint=list_messages, summary="List waiting messages",
        model=session_schema.MessageList,
    ),
    _message(
        method="DELETE", path=f"{_ALL}/{{message_id}}", endpoint=remove_message, summary="Take a message back",
        status=204, refusals=(409,),
    ),
)  # fmt: skip
