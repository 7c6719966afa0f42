"""What came of a deed, as the protocol says it. Pure."""

from __future__ import annotations

from typing import Final

from overnight.backends.acp import rpc
from overnight.backends.acp.asking import Pending
from overnight.backends.process.talk import (
    Deed,
    Done,
    OpenTerminal,
    Refusal,
    Result,
    TerminalState,
    Text,
    UseTerminal,
)

_CODES: Final = {"not_found": rpc.NOT_FOUND, "refused": rpc.REFUSED, "failed": rpc.INTERNAL_ERROR}


def result_of(pending: Pending, deed: Deed, result: Result) -> bytes:
    """The answer to the request that the deed was done for."""
    match result:
        case Refusal():
            return rpc.refusal(pending.id, _CODES[result.code], result.message)
        case Text():
            return rpc.reply(pending.id, {"content": result.text})
        case TerminalState() if isinstance(deed, UseTerminal) and deed.verb == "wait":
            return rpc.reply(pending.id, {"exitCode": result.exit_code, "signal": result.signal})
        case TerminalState():
            return rpc.reply(pending.id, _output(result))
        case Done() if isinstance(deed, OpenTerminal):
            return rpc.reply(pending.id, {"terminalId": deed.terminal})
        case Done():
            return rpc.reply(pending.id, {})


def _output(state: TerminalState) -> dict[str, object]:
    said: dict[str, object] = {"output": state.output, "truncated": state.truncated}
    if state.ended:
        said["exitStatus"] = {"exitCode": state.exit_code, "signal": state.signal}
    return said
