"""Between two turns: where a cancel, a pause or a shutdown takes effect while no agent lives."""

from __future__ import annotations

from typing import Final, cast

import orjson

from overnight.domain.run import Run
from overnight.domain.states import Input, State
from overnight.domain.values import Cancellation, CancelReason, WaitingFor
from overnight.engine import moves
from overnight.engine.follow_requests import drop_requests
from overnight.engine.hold import Wish
from overnight.ports.backend import Stopped
from overnight.ports.unit_of_work import Transaction

NOTHING_TO_STOP: Final = Stopped()


def let_go(
    tx: Transaction, run: Run, wish: Wish | None, now_ms: int, stopped: Stopped | None = NOTHING_TO_STOP
) -> bool:
    """Whether the run was let go, because it is to be cancelled, to stand still, or its worker is to end.

    `stopped`: what the ladder did to its agent; None when nobody could look.
    """
    if run.state is State.CANCELLING:
        cancelled(tx, run, now_ms, stopped)
    elif run.state is State.PAUSING:
        moves.paused(tx, run, run.pause_reason or "manual", now_ms)
    elif wish == "shutdown":
        moves.handed_back(tx, run, "shutdown", now_ms)
        tx.notify("queue")
    else:
        return False
    return True


def cancelled(tx: Transaction, run: Run, now_ms: int, stopped: Stopped | None) -> Run:
    """The process tree is gone: the run is cancelled, for the reason that was given when it was asked for."""
    cancellation = Cancellation(
        reason=_reason(tx, run),
        steps=stopped.steps if stopped else (),
        survivors=stopped.survivors if stopped else None,
    )
    drop_requests(tx, run, now_ms)
    return moves.cancelled(tx, run, cancellation, now_ms)


def give_back_until(tx: Transaction, run: Run, why: str, due_at: int, now_ms: int) -> Run:
    """The hold ends so that others can use the slot; nobody takes the run before `due_at` (wall milliseconds)."""
    data = {"reason": why, "not_before": due_at}
    return moves.move(
        tx, run, Input.HAND_BACK, "run.requeued", now_ms, data,
        not_before=due_at, waiting_for=WaitingFor(kind="time", detail=why), worker=None, pid=None, now=None,
    )  # fmt: skip


def _reason(tx: Transaction, run: Run) -> CancelReason:
    found = tx.events.select(
        run.pk, after=None, before=None, descending=True, types=("run.cancelling",), turn=None, limit=1
    )
    if not found:
        return "system"
    return cast("CancelReason", orjson.loads(found[0].body)["data"].get("reason", "manual"))
