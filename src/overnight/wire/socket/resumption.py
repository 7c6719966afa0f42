"""Going on after a cut: each side tells what has come of every scope without a log, and sends the rest again."""

from __future__ import annotations

from collections.abc import Mapping

from overnight.wire.socket.catalog.control import Arrived
from overnight.wire.socket.scope import Scope, Scopes
from overnight.wire.socket.sender import Sender
from overnight.wire.socket.sequence import Sequence


def arrived(scopes: Scopes) -> dict[str, dict[str, int]]:
    """What has come of each scope that outlives a cut, and the credit that its sender has from now on."""
    return {
        one.name: {"messages": one.arrived, "credit": one.intake.restart()} for one in scopes.surviving()
    }  # fmt: skip


def go_on(scopes: Scopes, sender: Sender, known: Mapping[str, Arrived] | None, now_ms: int) -> list[str]:
    """Make every scope ready to be sent again. `known`: what the other side has; None: it begins anew.

    Gives the scopes that cannot go on: the other side has forgotten them, or lacks what is no longer kept here.
    """
    lost = []
    for scope in scopes.surviving():
        told = known.get(scope.name) if known is not None else None
        settling = scopes.sending(scope.name) is None
        if told is None and settling:
            scopes.settled(scope.name)
        elif not _again(scope, told, anew=known is None):
            lost.append(scope.name)
            if told is not None:
                sender.control("gap", {"scope": scope.name}, now_ms)
        elif scope.outbox.waiting or not settling:
            scopes.reopen(scope)
            sender.wake(scope)
    return lost


def _again(scope: Scope, told: Arrived | None, *, anew: bool) -> bool:
    scope.sequence = Sequence()
    if told is not None:
        return scope.outbox.replay(told.messages, told.credit)
    # The other side does not know it: only its opener, nothing of which has arrived there, may open it once more.
    unheard = scope.mine and scope.arrived == 0 and (not anew or scope.outbox.sent == 0)
    return unheard and scope.outbox.replay(0, scope.outbox.window)
