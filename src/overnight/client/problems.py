"""From a problem document back to the exception that the server raised, by its stable code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from overnight.errors import BackendFailure, InvalidTransition, OvernightError, tree

_STANDARD: Final = frozenset({"type", "title", "status", "detail", "code", "mend"})


def error_of(status: int, body: bytes) -> OvernightError:
    """The error behind a response that is none of the 2xx; one without a problem document is named by its status."""
    document = _document(body)
    by_code = {kind.code: kind for kind in tree()}
    code = str(document.get("code", ""))
    if code in by_code:
        return _rebuilt(by_code[code], document)
    # A proxy's page, or a code from a newer server: the nearest class of that status stands for it.
    nearest = next(
        (kind for kind in tree() if kind.status == status and kind is not OvernightError), OvernightError
    )
    detail = str(document.get("detail") or f"the server answered {status}")
    return nearest(detail, mend=str(document.get("mend", "")), extra={"status": status, **_extra(document)})


def _rebuilt(kind: type[OvernightError], document: Mapping[str, object]) -> OvernightError:
    detail, mend, extra = str(document.get("detail", "")), str(document.get("mend", "")), _extra(document)
    if issubclass(kind, InvalidTransition):
        found: OvernightError = kind(str(extra.get("state", "")), str(extra.get("input", "")))
    elif issubclass(kind, BackendFailure):
        failure, retryable = str(extra.get("failure_code", kind.code)), extra.get("retryable") is True
        found = kind(detail, code=failure, retryable=retryable, mend=mend)
    else:
        return kind(detail, mend=mend, extra=extra)
    found.detail, found.mend, found.extra = detail or found.detail, mend, extra
    found.args = (found.detail,)
    return found


def _extra(document: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in document.items() if key not in _STANDARD}


def _document(body: bytes) -> Mapping[str, object]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
