"""Leases over REST: facts, batches and answers as JSON, in both directions, for workers that have the engine."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final, get_args

from overnight.domain.approval import Approval
from overnight.domain.backend import BackendCheck
from overnight.domain.event import Recorded
from overnight.domain.json_values import Unfit, dump, load
from overnight.domain.rule import Rule
from overnight.domain.run import Run, Turn
from overnight.domain.session import QueuedMessage, Session, SessionMessage
from overnight.domain.spec import RunSpec
from overnight.ports.remote import (
    AddInput,
    Answers,
    Ask,
    AskKind,
    Batch,
    Facts,
    Grant,
    Granted,
    News,
    Op,
    Renewal,
    SaveRun,
)

PROTOCOL: Final = 1
"""What is spoken here; a caller says it with every request, and another number is refused."""


def run_document(run: Run, *, spec: bool) -> dict[str, Any]:
    """A run; without its spec where the other side has that."""
    found: dict[str, Any] = dump(run)
    if not spec:
        del found["spec"]
    return found


def run_of(document: Mapping[str, Any], spec: RunSpec | None = None) -> Run:
    """A run from its document, and from the spec that is known already."""
    return load(Run, document if spec is None else {**document, "spec": spec})


def facts_document(facts: Facts, *, spec: bool) -> dict[str, Any]:
    """The facts; without the run's spec where the other side has that."""
    found: dict[str, Any] = dump(facts)
    if not spec:
        del found["run"]["spec"]
    return found


def facts_of(document: Mapping[str, Any], spec: RunSpec | None = None) -> Facts:
    """The reverse."""
    return load(Facts, {**document, "run": {**document["run"], "spec": spec}} if spec else document)


def grant_document(grant: Grant) -> dict[str, Any]:
    """The answer to an offer. `goal` and `run_id` are there for workers that want nothing more."""
    return {
        "protocol": PROTOCOL,
        "state": grant.state,
        "lease_s": grant.lease_s,
        "now": grant.now,
        "runs": [granted_document(one) for one in grant.runs],
    }


def granted_document(granted: Granted) -> dict[str, Any]:
    """One lease."""
    run = granted.facts.run
    return {
        "run_id": run.id,
        "token": run.token,
        "goal": run.spec.goal,
        "mode": run.spec.mode,
        "backend": run.backend,
        "model": run.model,
        "turn": run.turn,
        "last_seq": run.last_seq,
        "environment": dict(granted.environment),
        "agent_key": granted.agent_key,
        "facts": facts_document(granted.facts, spec=True),
    }


def grant_of(document: Mapping[str, Any]) -> Grant:
    """The reverse."""
    return Grant(
        runs=tuple(granted_of(one) for one in document["runs"]), state=document["state"],
        lease_s=document["lease_s"], now=document["now"],
    )  # fmt: skip


def granted_of(document: Mapping[str, Any]) -> Granted:
    """The reverse of `granted_document`."""
    return Granted(
        facts=facts_of(document["facts"]), environment=document["environment"],
        agent_key=document.get("agent_key", ""),
    )  # fmt: skip


def batch_document(batch: Batch) -> dict[str, Any]:
    """The batch of a worker that has the engine; a run in it goes without its spec."""
    ops = [_op_document(op) for op in batch.ops]
    return {"token": batch.token, "batch": batch.n, "base": batch.base, "wake": batch.wake, "ops": ops}


def _op_document(op: Op) -> dict[str, Any]:
    if isinstance(op, AddInput):
        return {"op": op.op, "n": op.n, "data": b64encode(op.data).decode()}
    found: dict[str, Any] = dump(op)
    if isinstance(op, SaveRun):
        del found["run"]["spec"]
    return found


def ops_of(documents: list[dict[str, Any]], spec: RunSpec) -> tuple[Op, ...]:
    """The steps of a batch. Raises Unfit, ValueError."""
    return tuple(_op(document, spec) for document in documents)


def _op(document: dict[str, Any], spec: RunSpec) -> Op:
    if document.get("op") == "add_input":
        document = {**document, "data": b64decode(str(document.get("data", "")), validate=True)}
    elif document.get("op") == "save_run":
        document = {**document, "run": {**document["run"], "spec": spec}}
    kind = _KINDS.get(str(document.get("op")))
    if kind is None:
        raise Unfit("there is no such step", ("op",))
    found: Op = load(kind, document)
    return found


_KINDS: Final[Mapping[str, Any]] = {kind.__dataclass_fields__["op"].default: kind for kind in get_args(Op)}
_ANSWERED: Final[Mapping[AskKind, Any]] = {
    "events": tuple[Recorded, ...],
    "messages": tuple[SessionMessage, ...],
    "inputs": tuple[tuple[int, str], ...],
    "turn": Turn | None,
    "approval": Approval | None,
    "approval_of": Approval | None,
    "allowance": Approval | None,
    "rules": tuple[Rule, ...] | None,
    "message": QueuedMessage | None,
    "session": Session | None,
    "state": dict[str, object],
    "environment": dict[str, str],
}


def asks_of(documents: list[dict[str, Any]]) -> tuple[Ask, ...]:
    """Raises Unfit."""
    return tuple(load(Ask, document) for document in documents)


def ask_document(ask: Ask) -> dict[str, Any]:
    """One question."""
    found: dict[str, Any] = dump(ask)
    return found


def answers_document(answers: Answers) -> list[Any]:
    """In the order of the questions."""
    return [_answer_document(ask, value) for ask, value in answers.items()]


def _answer_document(ask: Ask, value: Any) -> Any:
    if ask.what == "inputs":
        return [[n, b64encode(data).decode()] for n, data in value or ()]
    return dump(value)


def answers_of(asks: tuple[Ask, ...], documents: list[Any]) -> Answers:
    """The reverse."""
    pairs = zip(asks, documents, strict=True)
    return {ask: _answer(ask, document) for ask, document in pairs}


def _answer(ask: Ask, document: Any) -> object:
    found: Any = load(_ANSWERED[ask.what], document)
    return tuple((n, b64decode(data)) for n, data in found) if ask.what == "inputs" else found


def checks_of(documents: list[dict[str, Any]]) -> tuple[BackendCheck, ...]:
    """Preflights. Raises Unfit."""
    return tuple(load(BackendCheck, document) for document in documents)


def check_document(check: BackendCheck) -> dict[str, Any]:
    """One preflight."""
    found: dict[str, Any] = dump(check)
    return found


def renewal_of(document: Mapping[str, Any]) -> Renewal:
    """Which leases are lost."""
    return load(Renewal, dict(document))


def news_of(document: Mapping[str, Any]) -> News:
    """What has happened."""
    return load(News, dict(document))
