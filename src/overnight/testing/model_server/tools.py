"""Names of tools: a script says `shell`, every client has its own word for it."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from overnight.models.script import Call, Move

Arguments = Mapping[str, Any]

_SHELLS: tuple[tuple[str, Callable[[str], dict[str, Any]]], ...] = (
    ("exec_command", lambda command: {"cmd": command}),
    ("Bash", lambda command: {"command": command, "description": "run a command"}),
    ("run_shell_command", lambda command: {"command": command, "description": "run a command"}),
    ("run_commands", lambda command: {"commands": [command]}),
    ("shell_command", lambda command: {"command": command}),
    ("bash", lambda command: {"command": command, "description": "run a command"}),
    ("shell", lambda command: {"command": command}),
)
_WRITERS: tuple[tuple[str, Callable[[str, str], dict[str, Any]]], ...] = (
    ("Write", lambda path, content: {"file_path": path, "content": content}),
    ("write_file", lambda path, content: {"file_path": path, "content": content}),
    ("write", lambda path, content: {"filePath": path, "content": content}),
)
_READERS: tuple[tuple[str, str], ...] = (
    ("Read", "file_path"),
    ("read_file", "file_path"),
    ("read", "filePath"),
)
_FINISHERS = ("complete", "attempt_completion", "submit_and_exit")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedCall:
    """A call in the client's own words. A custom (free-form) tool takes `input` as plain text."""

    id: str
    name: str
    arguments: Arguments
    custom: bool = False


def resolve(move: Move, offered: frozenset[str], custom: frozenset[str]) -> tuple[ResolvedCall, ...]:
    """The calls of `move` by the names in `offered`; an unknown name goes out as it is."""
    calls = [_resolve_one(call, offered, custom) for call in move.calls]
    if move.finish:
        calls += [_call(name, {}) for name in _FINISHERS if name in offered][:1]
    return tuple(calls)


def _resolve_one(call: Call, offered: frozenset[str], custom: frozenset[str]) -> ResolvedCall:
    if call.name in custom:
        return _call(call.name, call.arguments, custom=True)
    if call.name == "shell":
        return _shell(str(call.arguments["command"]), offered)
    if call.name == "write_file":
        return _write(str(call.arguments["path"]), str(call.arguments["content"]), offered)
    if call.name == "read_file":
        return _read(str(call.arguments["path"]), offered)
    return _call(call.name, call.arguments)


def _shell(command: str, offered: frozenset[str]) -> ResolvedCall:
    for name, arguments in _SHELLS:
        if name in offered:
            return _call(name, arguments(command))
    return _call("shell", {"command": command})


def _write(path: str, content: str, offered: frozenset[str]) -> ResolvedCall:
    for name, arguments in _WRITERS:
        if name in offered:
            return _call(name, arguments(path, content))
    return _shell(f"printf %s {shlex.quote(content)} > {shlex.quote(path)}", offered)


def _read(path: str, offered: frozenset[str]) -> ResolvedCall:
    for name, key in _READERS:
        if name in offered:
            return _call(name, {key: path})
    return _shell(f"cat {shlex.quote(path)}", offered)


def _call(name: str, arguments: Arguments, *, custom: bool = False) -> ResolvedCall:
    return ResolvedCall(id=f"call_{secrets.token_hex(10)}", name=name, arguments=arguments, custom=custom)
