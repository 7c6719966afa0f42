"""What came of a question or a deed, as the protocol says it. Pure."""

from __future__ import annotations

from typing import Final

from overnight.backends.acp import rpc
from overnight.backends.acp.asking import Pending, Permission
from overnight.backends.acp.forms import CANCELLED, Form
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
from overnight.ports.backend import Verdict

REQUEST_CANCELLED: Final = -32800
_CANCELLED: Final = {"outcome": {"outcome": "cancelled"}}
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


def chosen(pending: Pending, leave: Permission, verdict: Verdict) -> bytes:
    """The agent's option for a verdict; without a fitting one the request is cancelled."""
    option = verdict.option if leave.is_question else leave.option(allow=verdict.allow)
    if option is None:
        return rpc.reply(pending.id, _CANCELLED)
    return rpc.reply(pending.id, {"outcome": {"outcome": "selected", "optionId": option}})


def given_up(pending: Pending) -> bytes:
    """The answer to a request of a turn that is being cancelled."""
    if isinstance(pending.wanted, Permission):
        return rpc.reply(pending.id, _CANCELLED)
    if isinstance(pending.wanted, Form):
        return rpc.reply(pending.id, CANCELLED)
    return rpc.refusal(pending.id, REQUEST_CANCELLED, "cancelled")


def copied(copy: int) -> object:
    """What tells the answer to a request that uses an id again from the first one's; see `rpc.key_of`."""
    return {"copy": copy} if copy else None
