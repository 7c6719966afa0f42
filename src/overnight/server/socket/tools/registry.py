"""Which tools are on offer, by whom, and whether arguments fit. A tool belongs to the user whose host offers it."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from overnight.errors import (
    ArgumentsRefused,
    InvalidInput,
    ToolNotFound,
    ToolTaken,
    ToolUnavailable,
    TooManyRequests,
)
from overnight.server.socket.handlers import Socket
from overnight.wire.socket.catalog.tools import ListedTool, Registered, ToolMeta

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

MOST_OF_USER: Final = 1024
"""Tools that one user's hosts may offer at once."""
MOST_BYTES_OF_USER: Final = 640 * 1024
"""Bytes of all their schemas and descriptions: a list of them has to fit in one message."""
MOST_SCHEMA: Final = 64 * 1024
"""Bytes of one tool's schema."""
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Offered:
    """A tool on offer."""

    meta: ToolMeta
    host: Socket
    id: str
    schema: bytes

    @property
    def weight(self) -> int:
        """Bytes that it takes in a list, about."""
        return len(self.schema) + len(self.meta.description.encode()) + 512

    @property
    def here(self) -> bool:
        """Whether its host is connected now."""
        return self.host.link.connection.state == "open"


class Registry:
    """The tools of this server's hosts, by owner and name."""

    def __init__(self) -> None:
        self._offered: dict[tuple[str, str], Offered] = {}

    def register(self, host: Socket, tools: Iterable[ToolMeta]) -> list[Registered]:
        """Offer all of them. Raises InvalidInput, ToolTaken, TooManyRequests; then none is offered."""
        owner = host.caller.user
        fresh = {meta.name: Offered(meta, host, secrets.token_hex(8), _schema(meta)) for meta in tools}
        for name in fresh:
            known = self._offered.get((owner, name))
            if known is not None and known.host is not host and known.here:
                raise ToolTaken(
                    f"{name} is offered by another host", mend="end that host, or choose another name"
                )
        names = {name for of, name in self._offered if of == owner} | fresh.keys()
        if len(names) > MOST_OF_USER:
            raise TooManyRequests(f"one user's hosts may offer {MOST_OF_USER} tools")
        others = (one for (of, name), one in self._offered.items() if of == owner and name not in fresh)
        if sum(one.weight for one in (*others, *fresh.values())) > MOST_BYTES_OF_USER:
            raise TooManyRequests(
                f"the tools of one user's hosts may have {MOST_BYTES_OF_USER // 1024} KiB of schemas and descriptions"
            )
        self._offered |= {(owner, name): offered for name, offered in fresh.items()}
        return [Registered(name=name, id=offered.id) for name, offered in fresh.items()]

    def unregister(self, host: Socket, names: Iterable[str] | None = None) -> None:
        """Offer these of the host no more; None: all."""
        wanted = None if names is None else frozenset(names)
        for key, offered in tuple(self._offered.items()):
            if offered.host is host and (wanted is None or key[1] in wanted):
                del self._offered[key]

    def listed(self, owner: str, prefix: str, streaming: bool | None) -> list[ListedTool]:
        """What the owner's callers may call, by name."""
        found = sorted((name, offered) for (of, name), offered in self._offered.items() if of == owner)
        return [
            ListedTool(**offered.meta.model_dump(), available=offered.here)
            for name, offered in found
            if name.startswith(prefix) and streaming in (None, offered.meta.streaming)
        ]

    def find(self, owner: str, name: str) -> Offered:
        """The tool. Raises ToolNotFound, ToolUnavailable while its host is cut off."""
        offered = self._offered.get((owner, name))
        if offered is None:
            raise ToolNotFound(
                f"no tool {name[:64]!r} is on offer", mend="see which there are with tool.list"
            )
        if not offered.here:
            raise ToolUnavailable(
                f"the host of {name} is not connected now", mend="try again once it is back"
            )
        return offered


def arguments_of(offered: Offered, given: Mapping[str, Any] | str) -> dict[str, Any]:
    """The arguments, read and checked against the tool's schema. Raises ArgumentsRefused."""
    found: Any = given
    if isinstance(given, str):
        try:
            found = orjson.loads(given or "{}")
        except orjson.JSONDecodeError as error:
            raise ArgumentsRefused(f"the arguments are no JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise ArgumentsRefused("the arguments must be a JSON object")
    arguments = dict(found)
    faults = sorted(
        _validator(offered.schema).iter_errors(arguments), key=lambda one: list(map(str, one.absolute_path))
    )
    if faults:
        told = [
            f"{'/'.join(['', *map(str, one.absolute_path)]) or '/'}: {one.message[:200]}"
            for one in faults[:_SHOWN]
        ]
        raise ArgumentsRefused("; ".join(told), mend=f"send what the schema of {offered.meta.name} wants")
    return arguments


def _schema(meta: ToolMeta) -> bytes:
    """The schema as it is kept. Raises InvalidInput for one that is none, or that leads elsewhere."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - loaded with the first tool
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    schema = dict(meta.parameters)
    text = orjson.dumps(schema)
    if len(text) > MOST_SCHEMA:
        raise InvalidInput(f"the schema of {meta.name} has more than {MOST_SCHEMA} bytes")
    if schema.get("type") != "object":
        raise InvalidInput(
            f"the schema of {meta.name} must be of an object", mend='begin it with {"type": "object"}'
        )
    if any(not at.startswith("#") for at in _references(schema)):
        raise InvalidInput(
            f"the schema of {meta.name} refers to what is not in it", mend="put it beneath $defs"
        )
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidInput(f"the schema of {meta.name} is none: {error.message[:300]}") from None
    return text


def _references(schema: Any) -> Iterable[str]:
    """Where a schema points to: never to be fetched from anywhere."""
    if isinstance(schema, Mapping):
        for name, value in schema.items():
            if name in {"$ref", "$dynamicRef", "$schema", "$id"} and isinstance(value, str):
                if name not in {"$schema", "$id"}:
                    yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


@functools.lru_cache(maxsize=512)
def _validator(schema: bytes) -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from referencing import Registry as Schemas  # noqa: PLC0415

    return Draft202012Validator(orjson.loads(schema), registry=Schemas())
