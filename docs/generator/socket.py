"""The reference of the socket protocol, made from its catalog."""

import ast
import inspect
import itertools
import json
from collections.abc import Iterable

from generator.markup import table
from generator.rest import shape
from overnight.errors import ProtocolError, tree
from overnight.wire.socket.catalog import CATALOG
from overnight.wire.socket.catalog.message import ROLES, MessageType
from overnight.wire.socket.closing import CLOSE_CODES
from overnight.wire.socket.limits import Limits
from overnight.wire.socket.schema import PATH, asyncapi, json_schema, payloads

HEAD = f"""\
# Socket

The protocol `overnight.v1`, spoken at `ws://HOST{PATH}`; what it promises is told in
[the socket](../concepts/socket.md). The same as JSON Schema is in [socket.schema.json](socket.schema.json), and as
AsyncAPI 3 in [socket.asyncapi.json](socket.asyncapi.json).

A message is one envelope `{{v, type, scope, id, seq, ts, reply_to?, payload}}` or an array of them. Unknown fields are
ignored everywhere.

## Roles

"""
SECTIONS = {
    "conn": "the connection",
    "stream": "model streams, `stream:<id>`",
    "tool": "tool executions, `tool:<id>`",
    "session": "sessions, `session:<id>`",
    "run": "runs, `run:<id>`",
}


def socket_page() -> str:
    """Every message, payload, code and limit."""
    references, definitions = payloads("#/$defs/{model}")
    parts = [HEAD + table(("role", "means"), ((f"`{name}`", text) for name, text in ROLES.items()))]
    parts += [_section(kind, references) for kind in SECTIONS]
    parts.append(
        "## Codes of a `nack`\n\n"
        "These are the protocol's own. Any other of the [errors](errors.md) may come as well, from whoever serves a\n"
        "request.\n\n"
        + table(("code", "means"), ((f"`{one.code}`", _first(one.__doc__)) for one in tree()
                                    if issubclass(one, ProtocolError)))
    )  # fmt: skip
    parts.append(
        "## Close codes\n\n"
        + table(("code", "when"), ((str(code), text) for code, text in CLOSE_CODES.items()))
    )
    parts.append(
        "## Limits\n\nSaid in `welcome`; these are usual.\n\n" + table(("limit", "is", ""), _limits())
    )
    parts.append(
        "## Payloads\n\n" + "\n".join(shape(name, schema) for name, schema in sorted(definitions.items()))
    )
    return "\n".join(parts)


def _section(kind: str, references: dict[str, dict[str, object]]) -> str:
    found = [
        one for one in CATALOG.values() if kind in one.kinds and (kind == "conn" or "conn" not in one.kinds)
    ]
    if not found:
        return ""
    rows = (
        (f"`{one.name}`", one.sender, one.role, _payload(references[one.name]), _about(one)) for one in found
    )
    return f"## Messages: {SECTIONS[kind]}\n\n" + table(("type", "from", "role", "payload", ""), rows)


def _payload(reference: dict[str, object]) -> str:
    name = str(reference["$ref"]).rsplit("/", 1)[1]
    return f"[{name}](#{name.lower()})"


def _about(one: MessageType) -> str:
    parts = [one.about]
    if one.replies:
        parts.append(f"Answered by {' or '.join(f'`{name}`' for name in one.replies)}.")
    if one.opens:
        parts.append("Opens its scope.")
    if one.settles:
        parts.append("Acked as well when the scope is over or unknown.")
    if one.fails:
        parts.append("Also says that the scope failed.")
    return " ".join(parts)


def _limits() -> Iterable[tuple[str, str, str]]:
    """The fields of Limits with the words beneath them."""
    body = next(
        one.body for one in ast.parse(inspect.getsource(Limits)).body if isinstance(one, ast.ClassDef)
    )
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            name = ast.unparse(field.target)
            yield f"`{name}`", f"{getattr(Limits(), name):,}", str(ast.literal_eval(text.value))


def _first(text: str | None) -> str:
    return (text or "").split("\n\n")[0]


def schema_document() -> str:
    """The JSON Schema."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False)


def asyncapi_document() -> str:
    """The AsyncAPI document."""
    return json.dumps(asyncapi(), indent=1, ensure_ascii=False)
