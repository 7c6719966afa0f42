"""Live text of agents elsewhere: fragments that are passed on and never stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from overnight.domain.event import canonical
from overnight.domain.redaction import Redactor
from overnight.domain.run import Run
from overnight.engine.remote.seats import Caller, held, seat_of
from overnight.errors import LeaseLost
from overnight.ports.notifier import Notice, stream_topic
from overnight.ports.remote import Fragment
from overnight.ports.unit_of_work import Transaction


def notices(
    tx: Transaction, caller: Caller, fragments: Sequence[Fragment],
    redactor_of: Callable[[Transaction, Run], Redactor],
) -> list[Notice]:  # fmt: skip
    """What the readers of these runs are told; what is about a run that is not held so is left out.

    Secrets are hidden by whoever sends them, across the borders of fragments; here whatever is left in one piece.
    """
    found: list[Notice] = []
    seat = seat_of(tx, caller)
    for (run_id, token), group in groupby(fragments, key=lambda one: (one.run_id, one.token)):
        try:
            run = held(tx, seat, run_id, token)
        except LeaseLost:
            continue
        redactor = redactor_of(tx, run)
        found += [_notice(run, fragment, redactor) for fragment in group if fragment.turn == run.turn]
    return found


def _notice(run: Run, fragment: Fragment, redactor: Redactor) -> Notice:
    data = {
        "item_id": redactor.text(fragment.item_id),
        "offset": fragment.offset,
        "text": redactor.text(fragment.text),
    }
    head = {"type": fragment.type, "run_id": run.id, "session_id": run.session_id, "turn": run.turn}
    return Notice(topic=stream_topic(run.id), delta=canonical({**head, "data": data}))
