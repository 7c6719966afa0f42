"""Every type of message. The reference, the JSON Schema and the AsyncAPI document are made from this."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from overnight.wire.socket.catalog import control, runs, sessions, streams, tools
from overnight.wire.socket.catalog.message import MessageType


def catalog(messages: Iterable[MessageType]) -> Mapping[str, MessageType]:
    """The types by their names, each there once."""
    found: dict[str, MessageType] = {}
    for one in messages:
        if one.name in found:
            raise ValueError(f"two message types are named {one.name}")
        found[one.name] = one
    return MappingProxyType(found)


CATALOG: Final[Mapping[str, MessageType]] = catalog([
    *control.MESSAGES, *streams.MESSAGES, *tools.MESSAGES, *sessions.MESSAGES, *runs.MESSAGES
])  # fmt: skip


def failure_of(kind: str, known: Mapping[str, MessageType] = CATALOG) -> str | None:
    """The name of the terminal by which a scope of this kind says that it failed."""
    return next((one.name for one in known.values() if one.fails and kind in one.kinds), None)
