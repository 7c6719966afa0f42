"""Routes as data: what each answers and how it may refuse. The OpenAPI description and the reference come from it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Header, Path
from fastapi.params import Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from overnight.domain.event import canonical
from overnight.domain.json_values import dump
from overnight.domain.spec import RunSpec
from overnight.errors import InvalidInput
from overnight.ports.tables import Idempotency
from overnight.wire import problem
from overnight.wire.v1.document import Document

API: Final = "/api/v1"
RunPath = Annotated[str, Path(description="Id of a run", examples=["run_01k0c3v9h4f6x8r2m5t7w9y1zb"])]
SessionPath = Annotated[str, Path(description="Id of a session", examples=["ses_01k0c3v9h4f6x8r2m5t7w9y1zb"])]
NumberPath = Annotated[int, Path(description="Number of a turn, from 1", ge=1, le=1_000_000_000)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[!-~]+$",
        description="The same key with the same body gives the same run, however often it is sent.",
    ),
]  # fmt: skip
REPEATABLE: Final = frozenset({"state", "label", "types"})
"""Query parameters that may be given several times."""
Responses = dict[int | str, dict[str, Any]]
_ALWAYS: Final = (401, 403, 404, 422, 500, 503)
_WITH_BODY: Final = (413, 415)


def idempotency_of(route: str, key: str | None, body: Document | RunSpec) -> Idempotency | None:
    """The key of a request with the hash of its body; None without a key."""
    if key is None:
        return None
    hashed = hashlib.sha256(
        canonical(dump(body) if is_dataclass(body) else body.model_dump(mode="json"))
    ).hexdigest()
    return Idempotency(route=route, key=key, body_hash=hashed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route. `model` describes the JSON answer, `media` an answer of another type."""

    method: str
    path: str
    endpoint: Callable[..., Awaitable[Response]]
    summary: str
    tag: str
    status: int = 200
    model: type[BaseModel] | None = None
    media: str | None = None
    schema: Mapping[str, Any] | None = None
    """Of an answer that is not JSON, where it is more than text."""
    refusals: tuple[int, ...] = ()
    more: Mapping[int | str, dict[str, Any]] = field(default_factory=dict)
    open: bool = False
    """Whether it can be had without a token."""


def register(
    app: FastAPI,
    operations: Iterable[Operation],
    *,
    answers: Callable[[Operation], Responses] = lambda _: {},
) -> None:
    """Add the routes to the application. What they answer matters to nobody but who describes them."""
    for operation in operations:
        app.add_api_route(
            operation.path,
            operation.endpoint,
            methods=[operation.method],
            status_code=operation.status,
            summary=operation.summary,
            description=inspect.getdoc(operation.endpoint),
            tags=[operation.tag],
            operation_id=operation.endpoint.__name__,
            response_model=None,
            response_class=Response,
            responses=answers(operation),
            dependencies=[] if operation.open else [Depends(known_query)],
            openapi_extra={"security": []} if operation.open else None,
        )


def allowed_methods(app: FastAPI, request: Request) -> list[str]:
    """The methods that this path knows."""
    routes = [one for one in app.router.routes if isinstance(one, Route)]
    matching = [one for one in routes if one.matches(request.scope)[0] is not Match.NONE]
    exact = [one for one in matching if one.path == request.scope["path"]]
    found = {method for one in exact or matching for method in one.methods or ()}
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def known_query(request: Request) -> None:
    """Refuse query parameters that the route does not know, and ones that come twice."""
    if not request.url.query:
        return
    known = _query_names(request.scope["endpoint"])
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise InvalidInput(f"the query parameter {name[:60]!r} is not known here", mend=_known(known))
        if name in seen and name not in REPEATABLE:
            raise InvalidInput(f"the query parameter {name!r} comes more than once")
        seen.add(name)


def problem_response(status: int) -> dict[str, Any]:
    """How a refusal is described."""
    return {
        "description": HTTPStatus(status).phrase,
        "content": {problem.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def responses(operation: Operation) -> Responses:
    """Every answer of a route, for its description."""
    success: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.model is not None:
        success["model"] = operation.model
    elif operation.media is not None:
        success["content"] = {operation.media: {"schema": operation.schema or {"type": "string"}}}
    body = _WITH_BODY if operation.method in {"POST", "PATCH", "DELETE"} else ()
    refusals = {*(() if operation.open else _ALWAYS), *body, *operation.refusals}
    found: Responses = {status: problem_response(status) for status in sorted(refusals)}
    return {operation.status: success, **operation.more, **found}


@lru_cache(maxsize=256)
def _query_names(endpoint: Callable[..., object]) -> frozenset[str]:
    """The fields of the one model that the endpoint takes as its query."""
    hints: Mapping[str, Any] = inspect.get_annotations(endpoint, eval_str=True)
    for hint in hints.values():
        if any(isinstance(mark, Query) for mark in getattr(hint, "__metadata__", ())):
            return frozenset(hint.__origin__.model_fields)
    return frozenset()


def _known(known: frozenset[str]) -> str:
    return f"use one of: {', '.join(sorted(known))}" if known else "leave the query out"
