"""JSON-RPC 2.0, one object a line: telling the kinds of messages apart, writing them, and naming each. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
NOT_FOUND: Final = -32002

Id = int | str
MOST_ID: Final = 200
"""Characters of an id."""
_HEAD: Final = 4096
_ID: Final = re.compile(rb'"id"\s*:\s*(-?\d+|"(?:[^"\\]|\\.){1,200}")')
_METHOD: Final = re.compile(rb'"method"\s*:\s*"([^"\\]{1,200})"')


@dataclass(frozen=True, slots=True)
class Request:
    """The peer wants an answer."""

    id: Id
    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notification:
    """The peer says something."""

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Response:
    """The peer answers request `id`. `error` is the error object, None after a success."""

    id: Id
    result: Any
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Broken:
    """JSON that is no message of the protocol; `id` where it has one that can be answered."""

    id: Id | None
    why: str


Incoming = Request | Notification | Response | Broken


def read(line: bytes) -> Incoming | None:
    """The message in a line; None when the line is no JSON object at all."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return _message(found) if "jsonrpc" in found or "method" in found else None


def head_of(line: bytes) -> tuple[Id | None, str | None]:
    """Id and method of a message that is too long to be read, as far as its beginning tells them."""
    start = line[:_HEAD]
    id, method = _ID.search(start), _METHOD.search(start)
    return (orjson.loads(id[1]) if id else None), (method[1].decode("utf-8", "replace") if method else None)


def request(id: int, method: str, params: Mapping[str, object]) -> bytes:
    """A request of ours."""
    return _line({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: Mapping[str, object]) -> bytes:
    """Something said without waiting for an answer."""
    return _line({"jsonrpc": "2.0", "method": method, "params": params})


def reply(id: Id, result: object) -> bytes:
    """The answer to a request of the peer."""
    return _line({"jsonrpc": "2.0", "id": id, "result": result})


def refusal(id: Id, code: int, message: str, data: object = None) -> bytes:
    """The answer that says why there is none."""
    error: dict[str, object] = {"code": code, "message": message}
    return _line({"jsonrpc": "2.0", "id": id, "error": error if data is None else error | {"data": data}})


def key_of_call(id: int) -> str:
    """The name of a request of ours: the same for the same conversation, whoever writes it."""
    return f"call:{id}"


def key_of_reply(id: Id, copy: int = 0) -> str:
    """The name of the answer to the peer's request `id`; `copy` counts requests that use an id again."""
    return f"reply:{json.dumps(id)}" + (f"#{copy}" if copy else "")


def key_of(data: bytes) -> str | None:
    """The name of a message that we wrote; None for a notification."""
    found = orjson.loads(data)
    if "method" in found:
        return key_of_call(found["id"]) if "id" in found else None
    details = found.get("error", {}).get("data")
    copy = details.get("copy", 0) if isinstance(details, dict) else 0
    return key_of_reply(found["id"], copy)


def _is_id(found: object) -> bool:
    """Ids are kept, and looked up by an index, which takes no long ones."""
    if isinstance(found, str):
        return len(found) <= MOST_ID
    return isinstance(found, int) and not isinstance(found, bool)


def _message(found: Any) -> Incoming:
    id, method = found.get("id"), found.get("method")
    known = id if _is_id(id) else None
    params = found.get("params", {})
    if isinstance(method, str):
        if not isinstance(params, dict):
            return Broken(known, "params is no object")
        if "id" not in found:
            return Notification(method, params)
        return Request(known, method, params) if known is not None else Broken(None, "the id is no id")
    if known is None or not ("result" in found or "error" in found):
        return Broken(known, "it is neither request nor answer")
    error = found.get("error")
    if error is not None and not isinstance(error, dict):
        error = {"message": str(error)}
    return Response(known, found.get("result"), error)


def _line(message: Mapping[str, object]) -> bytes:
    # The standard library's encoder writes lone surrogates as escapes; agents read those.
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
