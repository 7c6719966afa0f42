"""The catalog as JSON Schema and as an AsyncAPI document, for those who write another implementation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from overnight.wire.socket.catalog import CATALOG
from overnight.wire.socket.catalog.message import MessageType
from overnight.wire.socket.envelope import HIGHEST_SEQ, VERSION
from overnight.wire.socket.limits import Limits

PATH: Final = "/api/v1/socket"
_NAMES: Final = "[A-Za-z0-9_.-]{1,64}"
_ID: Final = {"type": "string", "pattern": "^[!-~]{1,64}$"}
_Schema = dict[str, Any]


def payloads(place: str = "#/$defs/{model}") -> tuple[dict[str, _Schema], dict[str, _Schema]]:
    """By message type a reference to its payload, and the definitions that they refer to."""
    keyed, defined = TypeAdapter.json_schemas(
        [(name, "validation", one.adapter) for name, one in CATALOG.items()], ref_template=place
    )
    return {name: dict(schema) for (name, _), schema in keyed.items()}, dict(defined.get("$defs", {}))


def envelope(one: MessageType, payload: Mapping[str, Any]) -> _Schema:
    """The whole message of one type."""
    kinds = sorted(one.kinds - {"conn"})
    scopes = (["conn"] if "conn" in one.kinds else []) + ([f"({'|'.join(kinds)}):{_NAMES}"] if kinds else [])
    properties: _Schema = {
        "v": {"const": VERSION},
        "type": {"const": one.name},
        "scope": {"type": "string", "pattern": f"^({'|'.join(scopes)})$"},
        "id": {**_ID, "description": "Unique per sender and connection."},
        "seq": {"type": "integer", "minimum": 1, "maximum": HIGHEST_SEQ,
                "description": "1, 2, 3 … per connection, scope and direction."},
        "ts": {"type": "integer", "description": "When it was made, in Unix milliseconds."},
        "reply_to": {**_ID, "description": "The `id` of the request that this answers."},
        "payload": dict(payload),
    }  # fmt: skip
    required = ["v", "type", "scope", "id", "seq", "ts", "payload"]
    return {
        "type": "object", "title": one.name, "description": one.about, "properties": properties,
        "required": [*required, "reply_to"] if one.role == "reply" and one.name != "nack" else required,
    }  # fmt: skip


def json_schema() -> _Schema:
    """One message of the transport: an envelope, or an array of several."""
    references, definitions = payloads()
    messages = {f"message.{name}": envelope(one, references[name]) for name, one in CATALOG.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "overnight.v1",
        "description": "A message of the socket protocol.",
        "anyOf": [
            {"$ref": "#/$defs/envelope"},
            {"type": "array", "items": {"$ref": "#/$defs/envelope"}, "minItems": 1, "maxItems": Limits().max_batch},
        ],
        "$defs": {
            "envelope": {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in messages]},
            **messages,
            **definitions,
        },
    }  # fmt: skip


def asyncapi() -> _Schema:
    """The protocol as AsyncAPI 3.0 describes one, from the server's point of view."""
    references, definitions = payloads("#/components/schemas/{model}")
    messages = {
        name: {
            "name": name, "title": name, "summary": one.about, "contentType": "application/json",
            "tags": [{"name": tag} for tag in (one.role, *sorted(one.kinds))],
            "payload": envelope(one, references[name]),
        }
        for name, one in CATALOG.items()
    }  # fmt: skip
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Overnight socket protocol", "version": f"{VERSION}.0.0",
                 "description": "One WebSocket for sessions, model streams, tool executions and runs."},
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:4010", "protocol": "ws"}},
        "channels": {
            "socket": {
                "address": PATH,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "receive": _operation("receive", "client"),
            "send": _operation("send", "server"),
        },
        "components": {"messages": messages, "schemas": definitions},
    }  # fmt: skip


def _operation(action: str, sender: str) -> _Schema:
    named = [name for name, one in CATALOG.items() if one.sender in (sender, "both")]
    return {
        "action": action,
        "channel": {"$ref": "#/channels/socket"},
        "messages": [{"$ref": f"#/channels/socket/messages/{name}"} for name in named],
    }
