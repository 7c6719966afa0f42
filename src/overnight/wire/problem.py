"""Problem documents (RFC 9457): what every refusal looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from overnight.errors import OvernightError

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:overnight:error:"
"""`type` is this and the code. It names the problem; it is nothing to fetch."""
_RESERVED: Final = frozenset({"type", "title", "status", "detail", "code", "mend", "errors"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """What is wrong with one field: where (`body`, `query`, `path`, `header`), its dotted path, and why."""

    location: str
    path: str
    message: str

    def to_json(self) -> dict[str, str]:
        """The entry of `errors`."""
        return {"in": self.location, "path": self.path, "message": self.message}


def document(error: OvernightError, errors: Sequence[FieldError] = ()) -> dict[str, object]:
    """The problem document of an error. Members of `error.extra` stand beside the standard ones, never over them."""
    found: dict[str, object] = {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.mend:
        found["mend"] = error.mend
    if errors:
        found["errors"] = [one.to_json() for one in errors]
    return found | {name: value for name, value in error.extra.items() if name not in _RESERVED}


def retry_after(error: OvernightError) -> int | None:
    """Seconds for a `Retry-After` header, where trying again makes sense."""
    if error.status not in {429, 503}:
        return None
    wait = error.extra.get("retry_after_s", 1)
    return max(1, round(wait)) if isinstance(wait, int | float) else 1


def schema() -> Mapping[str, object]:
    """JSON Schema of a problem document, for the OpenAPI description."""
    text = {"type": "string"}
    entry = {
        "type": "object",
        "required": ["in", "path", "message"],
        "properties": dict.fromkeys(("in", "path", "message"), text),
    }
    return {
        "type": "object",
        "title": "Problem",
        "description": "A refusal (RFC 9457) with a stable `code`.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": text,
            "mend": {"type": "string", "description": "How to put it right."},
            "errors": {"type": "array", "items": entry},
        },
    }
