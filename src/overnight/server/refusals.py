"""Every way in which the framework refuses becomes a problem document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from overnight.errors import InvalidInput, MethodNotAllowed, NotFound, OvernightError
from overnight.server.routing import allowed_methods
from overnight.wire import problem
from overnight.wire.problem import FieldError

_MOST_ERRORS = 20


def install(app: FastAPI) -> None:
    """Handle the framework's exceptions and our own."""
    app.add_exception_handler(OvernightError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unexpected)


def refusal(
    error: OvernightError, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """The response for an error."""
    found = dict(headers or {})
    if (wait := problem.retry_after(error)) is not None:
        found["retry-after"] = str(wait)
    if error.status == 401:
        found["www-authenticate"] = "Bearer"
    body = orjson.dumps(problem.document(error, errors))
    return Response(body, error.status, found, media_type=problem.MEDIA_TYPE)


async def _ours(_: Request, error: Exception) -> Response:
    return refusal(error if isinstance(error, OvernightError) else OvernightError())


async def _unexpected(_: Request, __: Exception) -> Response:
    return refusal(OvernightError())


async def _invalid(_: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    errors = [_field_error(one) for one in found[:_MOST_ERRORS]]
    detail = "; ".join(f"{one.path or one.location}: {one.message}" for one in errors[:3])
    return refusal(InvalidInput(detail), errors)


async def _framework(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        allowed = {"allow": ", ".join(allowed_methods(request.app, request))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allowed)
        return refusal(MethodNotAllowed(f"this path does not take {request.method[:20]}"), headers=allowed)
    if status == 404:
        return refusal(NotFound("no such path"))
    if status in (400, 422):
        return refusal(InvalidInput("the body is not valid JSON"))
    return refusal(OvernightError())


def _field_error(found: Mapping[str, Any]) -> FieldError:
    location, *path = [str(part) for part in found["loc"]] or ["body"]
    if found["type"] == "json_invalid":
        return FieldError(
            location=location, path="", message=f"not valid JSON at byte {path[0] if path else 0}"
        )
    message = str(found["msg"]).removeprefix("Value error, ")
    return FieldError(location=location, path=".".join(path), message=message)
