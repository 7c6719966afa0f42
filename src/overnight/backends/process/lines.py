"""Small pieces that codecs of JSON lines share: telling protocol from output, and remembering the last words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from overnight.backends.process.failures import shortened
from overnight.backends.process.program import Exit
from overnight.domain.update import Output, Update
from overnight.domain.values import Failure

Event = Mapping[str, Any]
"""A JSON object with a string `type`."""
Handler = Callable[[Event], list[Update]]
_MAX_TAIL = 4096


def protocol_object(line: bytes, total: int | None) -> Event | None:
    """The JSON object of a protocol line: one with a string `type`. None for anything else, which is output."""
    if total is not None or not line.startswith(b"{"):
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("type"), str) else None


def updates_of(
    line: bytes, total: int | None, handlers: Mapping[str, Handler], unknown: Callable[[Event], Update]
) -> list[Update]:
    """What a line of standard output means: by the handler of its type, else `unknown`; output if it is no event.

    An event of a shape that its handler does not know is kept raw too, never fatal.
    """
    event = protocol_object(line, total)
    if event is None:
        return [Output(stream="stdout", data=line, total=total)]
    handler = handlers.get(event["type"])
    try:
        return handler(event) if handler else [unknown(event)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return [unknown(event)]


class StandardError:
    """Passes standard error on as output and keeps its last 4 KiB for messages."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, line: bytes, total: int | None) -> Output:
        """The line as output."""
        self._tail = (self._tail + line)[-_MAX_TAIL:]
        return Output(stream="stderr", data=line, total=total)

    @property
    def text(self) -> str:
        """The last words, as text."""
        return self._tail.decode("utf-8", "replace").strip()


def silent_exit(exit: Exit, errors: StandardError, *, begun: bool) -> Failure:
    """The failure of a process that ended without its protocol's last word.

    One that had begun its turn was cut off, which may go better next time; one that never began would do it again.
    """
    if exit.signal is not None:
        return Failure(
            code="agent_killed", message=f"the agent was ended by signal {exit.signal}", retryable=True
        )
    said = errors.text.splitlines()[-1:] or ["it said nothing"]
    message = f"the agent ended with exit status {exit.code} and no result: {said[0]}"
    return Failure(code="agent_exit", message=shortened(message), retryable=begun)
