"""Why a connection is closed, as numbers of RFC 6455."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CLOSE_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        1000: "all is said",
        1001: "the client goes away",
        1002: "the other side breaks the protocol of WebSockets, or the numbering of the control lane",
        1003: "a message that is not text",
        1007: "text that is no UTF-8",
        1008: "no valid hello in time, a token that is not or no longer valid, too many without one",
        1009: "a message over the limit",
        1011: "the other side did not answer a ping, or something went wrong here",
        1012: "the server restarts: come back soon",
        1013: "too many connections: come back later",
    }
)
"""Code and reason. 1006 is never sent: it stands for a connection that was cut."""
