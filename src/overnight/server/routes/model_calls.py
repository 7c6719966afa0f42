"""What a run has asked of language models over the socket."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from overnight.ids import RunId
from overnight.ports.model import ModelUsage
from overnight.ports.model_ledger import RecordedCall
from overnight.ports.unit_of_work import Transaction
from overnight.server.context import Here, reply
from overnight.server.routing import API, Operation, RunPath
from overnight.wire import page
from overnight.wire.v1 import model_calls


class CallQuery(BaseModel):
    """The page."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(max_length=100)] | None = None


async def list_model_calls(here: Here, run_id: RunPath, query: Annotated[CallQuery, Query()]) -> Response:
    """The answers of models that were asked for with the token of the run's own agent; oldest first."""
    _, after = page.decode(query.cursor) or (0, 0)

    def look(tx: Transaction) -> tuple[tuple[RecordedCall, ...], int, ModelUsage]:
        pk = tx.runs.get(RunId(run_id), here.owner).pk
        found = tx.model_calls.page(pk, after=after, limit=query.limit + 1)
        return (found, *tx.model_calls.total(pk))

    found, calls, used = await here.services.uow.read(look)
    shown, more = found[: query.limit], len(found) > query.limit
    return reply({
        "items": [model_calls.call_resource(one) for one in shown],
        "next_cursor": page.encode((shown[-1].at, shown[-1].pk)) if more else None,
        "total": {"calls": calls, **model_calls.usage_document(used)},
    })  # fmt: skip


OPERATIONS: Final = (
    Operation(
        method="GET", path=f"{API}/runs/{{run_id}}/model-calls", endpoint=list_model_calls, tag="runs",
        summary="List a run's model calls", model=model_calls.ModelCallList,
    ),
)  # fmt: skip
