"""What a worker elsewhere is told about a run that it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final

from overnight.domain.agent_token import key_of_run
from overnight.domain.event import canonical
from overnight.domain.run import Run, Turn
from overnight.domain.session import QueuedMessage
from overnight.engine.agent_access import key_in
from overnight.engine.remote import rules
from overnight.errors import InvalidInput, NotFound
from overnight.ids import ApprovalId, MessageId
from overnight.ports.remote import Answers, Ask, AskKind, Facts, Granted
from overnight.ports.unit_of_work import Transaction

MOST_EVENTS: Final = 1000
MOST_MESSAGES: Final = 200
MOST_TYPES: Final = 100


def granted(tx: Transaction, run: Run, secrets: Mapping[str, str], now_ms: int) -> Granted:
    """A run that was leased just now, with the values and the key that its agents get; `secrets` are the operator's."""
    return Granted(
        facts=facts_of(tx, run, now_ms),
        environment=environment_of(tx, run, secrets),
        agent_key=key_of_run(bytes.fromhex(key_in(tx)), run.id).hex(),
    )


def environment_of(tx: Transaction, run: Run, secrets: Mapping[str, str]) -> dict[str, str]:
    """The values that its agents get: its own, and those that it names of the operator's."""
    named = {name: secrets[name] for name in run.spec.secrets if name in secrets}
    return {**tx.runs.secret_environment(run.pk), **named}


def facts_of(tx: Transaction, run: Run, now_ms: int) -> Facts:
    """The facts of `run`, all of one moment."""
    session = tx.sessions.get(run.session_id, None)
    facts = Facts(
        run=run,
        session=replace(session, variables={}, config={}, plan=None),
        turn=tx.turns.last(run.pk),
        requests=tx.requests.pending(run.pk),
        approvals=tx.approvals.pending(run.pk),
        queued=tx.queue.queued(run.session_pk, 1) if run.spec.mode == "chat" else (),
        messages=tx.sessions.message_count(run.session_pk),
        now=now_ms,
    )
    return replace(facts, base=_base(facts))


def _base(facts: Facts) -> str:
    """A digest of all that a unit could have decided by.

    A run's own facts never come back to an earlier value, for every change raises `change` or the last number of its
    log: so an old digest never fits again.
    """
    run, session = facts.run, facts.session
    document = [
        run.change, run.last_seq, run.token, run.state.value,
        [session.state, session.phase, session.step, session.version],
        _turn(facts.turn),
        [request.pk for request in facts.requests],
        [[approval.id, approval.digest, len(approval.options)] for approval in facts.approvals],
        _message(facts.queued),
        facts.messages,
    ]  # fmt: skip
    return sha256(canonical(document)).hexdigest()[:32]


def _turn(turn: Turn | None) -> object:
    if turn is None:
        return None
    return [
        turn.number,
        turn.attempt,
        turn.state.value,
        turn.position.stdout,
        turn.position.stderr,
        turn.items,
    ]


def _message(queued: Sequence[QueuedMessage]) -> object:
    return [message.id for message in queued]


def answers_of(tx: Transaction, run: Run, asks: Sequence[Ask]) -> Answers:
    """What was asked besides; None for what is not there. Raises InvalidInput for what cannot be asked."""
    found: Answers = {}
    for ask in asks:
        rules.check_values(ask)
        if len(ask.types) > MOST_TYPES:
            raise InvalidInput(f"at most {MOST_TYPES} types of events can be asked for")
        try:
            found[ask] = _ANSWERS[ask.what](tx, run, ask)
        except NotFound:
            found[ask] = None
    return found


def _events(tx: Transaction, run: Run, ask: Ask) -> object:
    return tx.events.select(
        run.pk, after=ask.after, before=ask.before, descending=ask.descending, types=ask.types, turn=ask.number,
        limit=min(ask.limit, MOST_EVENTS),
    )  # fmt: skip


def _messages(tx: Transaction, run: Run, ask: Ask) -> object:
    return tx.sessions.messages(run.session_pk, min(ask.limit, MOST_MESSAGES), ask.before)


def _inputs(tx: Transaction, run: Run, ask: Ask) -> object:
    return tx.turns.inputs(run.pk, ask.number or 0, ask.attempt or 0, ask.after or 0)


def _one_turn(tx: Transaction, run: Run, ask: Ask) -> object:
    return tx.turns.get(run.pk, ask.number or 0)


def _approval(tx: Transaction, run: Run, ask: Ask) -> object:
    approval = tx.approvals.get(ApprovalId(ask.id), None)
    return approval if approval.run_pk == run.pk else None


def _approval_of(tx: Transaction, run: Run, ask: Ask) -> object:
    return tx.approvals.of_request(run.pk, ask.number or 0, ask.attempt or 0, ask.id)


def _allowance(tx: Transaction, run: Run, ask: Ask) -> object:
    return tx.approvals.unused_allowance(run.pk, ask.id, turn=ask.number or 0, attempt=ask.attempt or 0)


def _rules(tx: Transaction, run: Run, _ask: Ask) -> object:
    return tx.approvals.rules(run.session_pk)


def _queued_message(tx: Transaction, run: Run, ask: Ask) -> object:
    return tx.queue.get(run.session_pk, MessageId(ask.id))


def _session(tx: Transaction, run: Run, _ask: Ask) -> object:
    return tx.sessions.get(run.session_id, None)


def _state(tx: Transaction, run: Run, ask: Ask) -> object:
    """Of its own backends: another one's conversation in the session is none of this worker's business."""
    return tx.sessions.backend_state(run.session_pk, ask.id) if ask.id in rules.own_backends(run) else {}


def _environment(tx: Transaction, run: Run, _ask: Ask) -> object:
    return tx.runs.secret_environment(run.pk)


_ANSWERS: Final[Mapping[AskKind, Callable[[Transaction, Run, Ask], object]]] = {
    "events": _events,
    "messages": _messages,
    "inputs": _inputs,
    "turn": _one_turn,
    "approval": _approval,
    "approval_of": _approval_of,
    "allowance": _allowance,
    "rules": _rules,
    "message": _queued_message,
    "session": _session,
    "state": _state,
    "environment": _environment,
}
