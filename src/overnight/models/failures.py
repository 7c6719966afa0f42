"""What went wrong at a provider, in our words: one error with a stable code, and never a key in its text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelTimeoutError,
    UserError,
)

from overnight.errors import (
    AuthRequired,
    ContextOverflow,
    InvalidInput,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    OvernightError,
    RateLimited,
)
from overnight.models.endpoint import Endpoint

MOST_WORDS: Final = 1000
"""Characters of what a provider said that are passed on."""
_AGAIN: Final = re.compile(r"try again in\s+(\d+(?:\.\d+)?)\s*(ms|s|seconds?|m|minutes?)\b", re.IGNORECASE)
_TOO_LONG: Final = re.compile(
    r"context[_ ](?:length|window)|maximum context|prompt is too long|too many (?:input )?tokens|input is too long",
    re.IGNORECASE,
)


def failure(error: Exception, endpoint: Endpoint) -> OvernightError:
    """The error to raise in place of `error`, whatever a provider's client has thrown."""
    if isinstance(error, OvernightError):
        return error
    words = _words(error)
    detail = f"{endpoint.name}: {redacted(words, endpoint)}"
    if isinstance(error, ModelRequestRejectedError):
        return _rejected(error, words, detail, endpoint)
    wait = _wait(error, words)
    match error:
        case ModelQuotaExceededError():
            # Waiting does not help, an account that is empty stays so.
            return RateLimited(detail, retryable=False, retry_after_s=wait, mend="see to the account there")
        case ModelRateLimitError():
            return RateLimited(detail, retry_after_s=wait)
        case ModelTimeoutError() | ModelRequestTimeout():
            return ModelTimeout(detail)
        case UserError() | NotImplementedError():
            return InvalidInput(detail)
        case _:
            return ModelError(detail, retry_after_s=wait)


def _rejected(
    error: ModelRequestRejectedError, words: str, detail: str, endpoint: Endpoint
) -> OvernightError:
    """The provider does not take this request, now or later."""
    if isinstance(error, ModelContextWindowExceededError) or _TOO_LONG.search(words):
        return ContextOverflow(detail)
    if isinstance(error, ModelAuthenticationError):
        return AuthRequired(detail, mend=f"check the operator's key for {endpoint.name}")
    if isinstance(error, ModelNotFoundError):
        return ModelNotFound(detail)
    return ModelError(detail, retryable=False)


def redacted(words: str, endpoint: Endpoint) -> str:
    """The words without the key, also where a provider repeats it, and no longer than is useful."""
    if endpoint.key:
        words = words.replace(endpoint.key, "***")
    return words if len(words) <= MOST_WORDS else words[:MOST_WORDS] + "…"


def _words(error: Exception) -> str:
    if isinstance(error, ModelHTTPError):
        return f"HTTP {error.status_code}: {_said(error.body)}"
    if isinstance(error, ModelAPIError):
        return error.message
    return str(error) or type(error).__name__


def _said(body: object) -> str:
    """The message in an error's body, wherever the provider puts it."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        if isinstance(inner, Mapping) and isinstance(inner.get("message"), str):
            return str(inner["message"])
        return json.dumps(body, default=str)
    return str(body or "no reason given")


def _wait(error: Exception, words: str) -> float | None:
    if isinstance(error, ModelAPIError) and error.retry_after is not None:
        return error.retry_after
    found = _AGAIN.search(words)
    if found is None:
        return None
    return float(found[1]) * {"ms": 0.001, "m": 60.0, "minute": 60.0, "minutes": 60.0}.get(
        found[2].lower(), 1.0
    )
