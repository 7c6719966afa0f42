"""From the words and statuses that programs report to a failure with a stable code and an honest `retryable`."""

from __future__ import annotations

import re

from overnight.domain.values import Failure

_MAX_MESSAGE = 2000

_STATUSES = {
    400: ("bad_request", False),
    401: ("unauthorized", False),
    402: ("usage_limit", True),
    403: ("forbidden", False),
    404: ("not_found", False),
    408: ("model_unavailable", True),
    413: ("context_exceeded", False),
    422: ("bad_request", False),
    429: ("rate_limited", True),
}

# The first that matches counts: what is said in words goes before a number that may mean something else.
_WORDS: tuple[tuple[re.Pattern[str], str, bool], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), code, retryable)
    for pattern, code, retryable in (
        (r"context.{0,10}(window|length)|prompt is too long|maximum context", "context_exceeded", False),
        (r"usage limit|limit reached\||hit your limit|quota|credit balance|insufficient.funds", "usage_limit", True),
        (r"too many requests|rate.?limit", "rate_limited", True),
        (r"invalid api key|not logged in|please run /login|unauthorized|authentication", "unauthorized", False),
        (r"model .{0,80}(not supported|not exist|not found|does not exist)", "not_found", False),
        (r"high demand|overloaded|internal server error|service unavailable|bad gateway", "model_unavailable", True),
        (r"failed to parse json|invalid json|expected value at line", "bad_stream", True),
        (r"stream (disconnected|closed)|connection|transport error|network|econnre|error decoding", "stream_cut", True),
        (r"timed? ?out|timeout|idle", "model_timeout", True),
        (r"bad request|invalid_request", "bad_request", False),
    )
)  # fmt: skip
_NUMBER = re.compile(r"\b(?:status|error|API Error:?|code)\W{0,4}([45]\d\d)\b", re.IGNORECASE)


def by_status(status: int, message: str) -> Failure:
    """The failure for an HTTP status of a model service."""
    code, retryable = _STATUSES.get(
        status, ("model_unavailable", True) if status >= 500 else ("bad_request", False)
    )
    return Failure(code=code, message=shortened(message), retryable=retryable)


def by_words(message: str, *, otherwise: str = "turn_failed", retryable: bool = True) -> Failure:
    """The failure for a program's own message; `otherwise` and `retryable` for words that nobody knows."""
    number = _NUMBER.search(message)
    if number is not None and not _is_limit(message):
        return by_status(int(number[1]), message)
    for pattern, code, again in _WORDS:
        if pattern.search(message):
            return Failure(code=code, message=shortened(message), retryable=again)
    return Failure(code=otherwise, message=shortened(message), retryable=retryable)


def shortened(message: str) -> str:
    """At most 2000 characters, the cut shown."""
    text = message.strip()
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]} …"


def _is_limit(message: str) -> bool:
    return any(
        pattern.search(message) for pattern, code, _ in _WORDS if code in {"context_exceeded", "usage_limit"}
    )
