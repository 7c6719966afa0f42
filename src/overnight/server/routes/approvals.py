"""Approvals: look at them, and decide."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from overnight.domain.approval import Approval, ApprovalState
from overnight.engine.approvals import Resolve
from overnight.ids import ApprovalId
from overnight.ports.approval_tables import ApprovalFilter
from overnight.server.context import Here, listed, reply
from overnight.server.routing import API, Operation
from overnight.wire import page
from overnight.wire.v1 import approval_schema
from overnight.wire.v1.approvals import approval_resource
from overnight.wire.v1.commands import ApprovalChanges, ResolveBody, words
from overnight.wire.v1.document import Document

ApprovalPath = Annotated[
    str, Path(description="Id of an approval", examples=["apr_01k0c3v9h4f6x8r2m5t7w9y1zb"])
]
_Id = Annotated[str, Field(min_length=1, max_length=64)]


class ApprovalQuery(Document):
    """Filters and the page."""

    state: Annotated[list[ApprovalState], BeforeValidator(words), Field(max_length=4)] = Field(
        default_factory=list
    )
    run_id: _Id | None = None
    session_id: _Id | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(max_length=100)] | None = None


async def list_approvals(here: Here, query: Annotated[ApprovalQuery, Query()]) -> Response:
    """Newest first, decided ones too: `state=pending` leaves those that wait. `state` may be repeated."""
    wanted = ApprovalFilter(
        owner=here.owner, states=tuple(query.state), run_id=query.run_id, session_id=query.session_id
    )
    found = await here.services.approvals.list(wanted, limit=query.limit + 1, after=page.decode(query.cursor))
    return listed([approval_resource(one) for one in found[: query.limit]], _next(found, query.limit))


async def get_approval(here: Here, approval_id: ApprovalPath) -> Response:
    """What is asked: the action, the places that its paths lead to, the diff, the ways to decide."""
    return reply(approval_resource(await here.services.approvals.get(ApprovalId(approval_id), here.owner)))


async def resolve_approval(here: Here, approval_id: ApprovalPath, body: ResolveBody) -> Response:
    """Decide, once. The same decision again is answered the same; another one is 409 with the one that counts.

    `digest` is the one that the approval showed. Where the action is another by now, nothing is decided: 409
    `action_changed`, and the approval shows what would happen now. Only people decide: tokens of agents and workers
    get 403.
    """
    asked = Resolve(
        option=body.option,
        digest=body.digest,
        feedback=body.feedback,
        changes=_given(body.changes) if body.changes else None,
    )
    resolved = await here.services.approvals.resolve(ApprovalId(approval_id), asked, here.caller.principal)
    return reply(approval_resource(resolved))


def _given(changes: ApprovalChanges) -> dict[str, object]:
    if "limits" not in changes.model_fields_set:
        return {}
    return {"limits": changes.limits.given() if changes.limits else None}


def _next(found: tuple[Approval, ...], limit: int) -> str | None:
    last = found[limit - 1] if len(found) > limit else None
    return page.encode((last.created_at, last.pk)) if last else None


_approval = partial(Operation, tag="approvals")
OPERATIONS: Final = (
    _approval(
        method="GET", path=f"{API}/approvals", endpoint=list_approvals, summary="List approvals",
        model=approval_schema.ApprovalList,
    ),
    _approval(
        method="GET", path=f"{API}/approvals/{{approval_id}}", endpoint=get_approval, summary="Look at an approval",
        model=approval_schema.ApprovalModel,
    ),
    _approval(
        method="POST", path=f"{API}/approvals/{{approval_id}}/resolve", endpoint=resolve_approval,
        summary="Decide an approval", model=approval_schema.ApprovalModel, refusals=(409, 410),
    ),
)  # fmt: skip
