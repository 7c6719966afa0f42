"""Errors of Overnight as errors of JSON-RPC, so that an editor can show them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from acp import RequestError

from overnight.client.editor.course import Trouble
from overnight.errors import InvalidInput, NotFound, OvernightError, Unauthorized

P = ParamSpec("P")
T = TypeVar("T")
_INVALID_PARAMS: Final = -32602
_INTERNAL: Final = -32603
_NOT_FOUND: Final = -32002
_AUTH_REQUIRED: Final = -32000


def refusal(error: OvernightError) -> RequestError:
    """The error that an editor is sent: what was wrong and how to mend it in its words, the code in its data."""
    match error:
        case InvalidInput():
            number = _INVALID_PARAMS
        case NotFound():
            number = _NOT_FOUND
        case Unauthorized():
            number = _AUTH_REQUIRED
        case _:
            number = _INTERNAL
    words = f"{error.detail} ({error.mend})" if error.mend else error.detail
    data: dict[str, Any] = {"code": error.code, "detail": error.detail}
    return RequestError(number, words, data | ({"mend": error.mend} if error.mend else {}))


def failure(trouble: Trouble, run_id: str) -> RequestError:
    """The error for a run that could not go on."""
    data = {"code": trouble.code, "retryable": trouble.retryable, "run_id": run_id}
    return RequestError(_INTERNAL, trouble.message, data)


def refusing(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """`method` with the errors of Overnight in the protocol's shape."""

    @wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except OvernightError as error:
            raise refusal(error) from error

    return wrapped
