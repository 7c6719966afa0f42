"""Which MCP server is meant, and how it is named."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from overnight.errors import InvalidInput

_LONGEST: Final = 64
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class McpProgram:
    """A program that speaks MCP over its standard streams. It gets the usual variables, `environment`, and no more."""

    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: str | None = None

    @classmethod
    def of(cls, line: str) -> McpProgram:
        """The program of a command line. Raises InvalidInput."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise InvalidInput(f"{line!r} is no command line: {error}") from None
        if not words:
            raise InvalidInput("the command of an MCP server is empty")
        return cls(command=words[0], arguments=tuple(words[1:]))

    @property
    def shown(self) -> str:
        """For people."""
        return PurePath(self.command).name


@dataclass(frozen=True, slots=True, kw_only=True)
class McpAddress:
    """A server that speaks MCP over streamable HTTP. Raises InvalidInput for another URL."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse what is no URL of a web server."""
        if not re.match(r"https?://[^/?#@\s]+([/?#]\S*)?\Z", self.url):
            raise InvalidInput(
                f"{self.shown!r} is not the URL of an MCP server", mend="it begins with http://"
            )

    @property
    def shown(self) -> str:
        """For people: without what might be a secret."""
        return self.url.partition("?")[0].rpartition("@")[2][:200]


McpTarget = McpProgram | McpAddress


def of_session(servers: Sequence[Mapping[str, Any]], folder: str) -> dict[str, McpTarget]:
    """The servers that a client of the Agent Client Protocol names, by their names. Others than these are left out."""
    found: dict[str, McpTarget] = {}
    for server in servers:
        name = str(server.get("name") or "mcp")
        if isinstance(server.get("command"), str):
            found[name] = McpProgram(
                command=server["command"], arguments=tuple(map(str, server.get("args") or ())),
                environment=_pairs(server.get("env")), folder=folder,
            )  # fmt: skip
        elif server.get("type") == "http":
            found[name] = McpAddress(url=str(server.get("url")), headers=_pairs(server.get("headers")))
    return found


def tool_name(prefix: str, name: str) -> str:
    """A name that every model takes: letters, digits, `_` and `-`, at most 64 of them."""
    plain = _NOT_IN_NAMES.sub("_", f"{prefix}{name}")[:_LONGEST]
    return plain if plain[:1].isalpha() or plain[:1] == "_" else f"_{plain}"[:_LONGEST]


def prefix_of(server: str) -> str:
    """What stands before the names of the tools of a server with that name."""
    return f"{_NOT_IN_NAMES.sub('_', server)[:24]}__"


def _pairs(given: object) -> dict[str, str]:
    """Of `[{name, value}]`."""
    pairs = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
    return {
        str(pair["name"]): str(pair.get("value", "")) for pair in pairs
        if isinstance(pair, Mapping) and "name" in pair
    }  # fmt: skip
