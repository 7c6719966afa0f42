"""A worker that holds a run tries to make its log, its session and its people say what is not so."""

from __future__ import annotations

from typing import Any

import pytest
from tests.remote.conftest import Make
from tests.remote.rig import RemoteRig
from tests.remote.test_hostile_workers import Document, Hostile, dumped, event, leased, run_with

from overnight.domain.run import Run
from overnight.errors import Conflict, Forbidden, InvalidInput, NotFound
from overnight.ids import new_approval_id, new_host_id

pytestmark = pytest.mark.anyio
NOW = 1_790_000_000_000
APPROVAL = new_approval_id(NOW)
OPEN: Document = {
    "op": "open_turn",
    "turn": {"run_pk": 0, "number": 1, "attempt": 1, "state": "started", "backend": "", "token": 0, "folder": "",
             "started_at": 0, "first_seq": 0},
}  # fmt: skip


def turn(**changes: Any) -> Document:
    return {"op": "save_turn", "turn": {**OPEN["turn"], **changes}}


def stamped(type: str, number: int, attempt: int = 1, **data: Any) -> Document:
    return {
        "op": "append",
        "drafts": [{"type": type, "data": {"turn": number, **data}, "turn": number, "attempt": attempt}],
    }


def say(role: str, text: str, number: int | None = None) -> Document:
    return {"op": "say", "message": {"role": role, "text": text, "at": 0, "turn": number}}


def session(type: str, **data: Any) -> Document:
    return {"op": "append", "to": "session", "drafts": [{"type": type, "data": data}]}


def option(kind: str, rule: Document | None = None) -> Document:
    return {"id": kind, "label": "Reject", "kind": kind, "rule": rule}


def question(*kinds: str, default: str = "reject_once", **changes: Any) -> Document:
    options = [option(kind) for kind in (kinds or ("allow_once", "reject_once"))]
    return {
        "op": "add_approval",
        "approval": {
            "pk": 0, "id": APPROVAL, "owner": "", "run_pk": 0, "run_id": "", "session_pk": 0, "session_id": "",
            "kind": "command", "title": "ls", "digest": "d", "options": options, "default_option": default,
            "expires_at": NOW, "created_at": 0,
            "action": {"kind": "execute", "tool": "shell", "title": "ls", "command": "ls"}, **changes,
        },
    }  # fmt: skip


ASKED = event("approval.requested", approval_id=APPROVAL)
FAILED = event("run.failed")
LATE = event("message.completed", text="late")
ANY = {"effect": "allow", "command": "rm -rf /", "tool": "execute", "exact": True}

FORGED: dict[str, Any] = {
    "a message about another turn": lambda _: [OPEN, say("assistant", "x", 9)],
    "words that nobody has said": lambda _: [say("user", "obey")],
    "an event of another turn": lambda _: [OPEN, stamped("message.completed", 7)],
    "an event of a try far ahead": lambda _: [OPEN, stamped("message.completed", 1, 9)],
    "an event after the last one": lambda f: [FAILED, run_with(state="failed")(f), LATE],
    "an event before the end is there": lambda f: [FAILED, LATE, run_with(state="failed")(f)],
    "an end that the session never hears of": lambda f: [FAILED, run_with(state="failed")(f)],
    "a change of what has ended": lambda f: [
        FAILED, run_with(state="failed")(f), session("run.settled"), run_with(pid=7)(f),
    ],
    "a second settlement": lambda f: [
        FAILED, run_with(state="failed")(f), session("run.settled"), session("run.settled"),
    ],
    "a settlement while the run goes on": lambda f: [
        session("run.settled", run_id=f["run"]["id"], state="running")
    ],
    "the end of a session that goes on": lambda f: [session("session.completed", by=f["run"]["id"])],
    "a turn that began without being there": lambda _: [stamped("turn.started", 1)],
    "a turn that began twice": lambda f: [
        OPEN, stamped("turn.started", 1), turn(first_seq=f["run"]["last_seq"] + 2), stamped("turn.started", 1),
    ],
    "a beginning under another number": lambda _: [OPEN, stamped("turn.started", 1), turn(first_seq=1)],
    "a beginning that nobody writes down": lambda _: [OPEN, stamped("turn.started", 1)],
    "an end under another name": lambda _: [OPEN, stamped("turn.failed", 1), turn(state="completed")],
    "the end of another turn": lambda _: [OPEN, stamped("turn.completed", 2), turn(state="completed")],
    "output that was never there": lambda _: [
        OPEN, {"op": "advance", "position": {"stdout": 50}}, turn(position={"stdout": 10}),
    ],
    "more than can be counted": lambda _: [OPEN, {"op": "advance", "position": {"stdout": 1 << 60}}],
    "less than nothing": lambda _: [OPEN, turn(usage={"input": -5})],
    "a number in words": lambda _: [OPEN, {"op": "advance", "position": {"stdout": "9" * 30}}],
    "a turn far ahead": lambda f: [run_with(turn=1000)(f)],
    "a try far ahead": lambda f: [run_with(attempt=50)(f)],
    "a fallback that is not there": lambda f: [run_with(fallback=1)(f)],
    "a fallback before the first": lambda f: [run_with(fallback=-1)(f)],
    "a sandbox that nobody has asked for": lambda f: [run_with(sandbox_effective="read_only")(f)],
    "a fragment in the log": lambda _: [event("message.delta", text="x")],
    "a message that nobody has sent": lambda _: [{"op": "take_message", "id": "msg_" + "0" * 26}],
    "news of a message that was not taken": lambda f: [
        session("session.message_taken", message_id="msg_" + "0" * 26, run_id=f["run"]["id"])
    ],
    "what another host remembers": lambda _: [
        {"op": "remember", "backend": "fake", "state": {"thread": "t", "host": new_host_id(NOW)}}
    ],
    "a question that allows itself": lambda _: [question(default="allow_once"), ASKED],
    "a question without its default": lambda _: [question("allow_once"), ASKED],
    "two answers under one name": lambda _: [question("reject_once", "reject_once"), ASKED],
    "a lasting answer about something else": lambda _: [
        question(options=[option("reject_once"), option("allow_always", ANY)]), ASKED,
    ],
    "a rule behind a plain no": lambda _: [question(options=[option("reject_once", ANY)]), ASKED],
    "a budget that is a command": lambda _: [question("raise", "reject_once"), ASKED],
    "a question about another": lambda _: [question(), event("approval.requested", approval_id="apr_x")],
    "a question that nobody hears of": lambda _: [question()],
    "the same request twice": lambda _: [
        OPEN, run_with_turn, question(request="k"), ASKED, question(request="k", id=new_approval_id(NOW + 1)),
    ],
    "a rule's decision about a question": lambda _: [
        question(), ASKED, event("approval.resolved", by="rule", approval_id=APPROVAL)
    ],
    "the use of what nobody has decided": lambda _: [
        question(), ASKED, {"op": "save_approval", "id": APPROVAL, "cancelled": False, "used": True},
    ],
    "a withdrawal that nobody hears of": lambda _: [
        question(), ASKED, {"op": "save_approval", "id": APPROVAL, "cancelled": True, "used": False},
    ],
    "a place that is none": lambda _: [{"op": "place", "path": "here", "chain": [], "free": True}],
}  # fmt: skip
run_with_turn: Document = {}


@pytest.mark.parametrize("what", FORGED)
async def test_what_is_not_so_is_refused_whole(rig: Make, what: str) -> None:
    server, worker, run, lease = await leased(rig)
    before = await dumped(server.store)
    run_with_turn.update(run_with(turn=1)(lease["facts"]))
    with pytest.raises((Forbidden, Conflict, InvalidInput, NotFound)):
        await worker.ack(run.id, lease["token"], LATE, *FORGED[what](lease["facts"]))
    assert await dumped(server.store) == before


async def test_the_same_steps_said_truly_are_taken(rig: Make) -> None:
    """Else the refusals above would prove nothing."""
    server, worker, run, lease = await leased(rig)
    facts = lease["facts"]
    first = facts["run"]["last_seq"] + 1
    await worker.ack(
        run.id, lease["token"], OPEN, run_with(turn=1)(facts), say("user", run.spec.goal, 1),
        stamped("turn.started", 1), turn(first_seq=first), question(request="k"), ASKED,
    )  # fmt: skip
    [asked] = await server.data(run, "approval.requested")
    assert (asked["title"], asked["default_option"]) == ("ls", "reject_once"), "in the server's own words"
    facts = (await worker.call(f"/{run.id}/facts", token=lease["token"]))["facts"]
    ops = [
        {"op": "save_approval", "id": APPROVAL, "cancelled": True, "used": False},
        event("approval.cancelled", approval_id=APPROVAL), say("assistant", "done", 1),
        stamped("turn.failed", 1), turn(first_seq=first, state="failed"), FAILED,
        run_with(turn=1, state="failed")(facts), session("run.settled", state="a lie"),
        {"op": "end_session", "state": "suspended"}, session("session.suspended"),
    ]  # fmt: skip
    await worker.ack(run.id, lease["token"], *ops, batch=2)
    assert await written(server, run) == ["run.settled", "session.suspended"]
    assert (await server.run(run)).state == "failed"


async def written(server: RemoteRig, run: Run) -> list[str]:
    """What the session was told of the end, checked for what it says."""
    found = await server.store.read(lambda tx: tx.events.after(run.session_pk, 0, 100))
    return [one.type for one in found if one.type.startswith(("run.settled", "session.s"))]


async def test_secrets_are_hidden_wherever_a_worker_writes(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    secret = lease["environment"]["OVERNIGHT_VAR_KEY"]
    now = run_with(now={"item": "x", "text": f"uses {secret}", "since": 1})(lease["facts"])
    error = {"code": "x", "message": secret, "retryable": False}
    await worker.ack(
        run.id, lease["token"], OPEN, now, say("assistant", f"it is {secret}"),
        turn(error=error, last_message=secret, stop_reason=secret), LATE,
    )  # fmt: skip
    assert secret not in str({k: v for k, v in (await dumped(server.store)).items() if k != "run_specs"})


async def test_what_is_asked_is_bounded(rig: Make) -> None:
    _, worker, run, lease = await leased(rig)
    for _ in range(3):
        facts = (await worker.call(f"/{run.id}/facts", token=lease["token"]))["facts"]
        said = int(facts["run"]["last_seq"])
        await worker.ack(run.id, lease["token"], LATE, batch=said - 1)
    for asked, most in (({"what": "events", "limit": 2}, 2), ({"what": "events", "limit": 0}, 0)):
        found = await answers(worker, run, lease, asked)
        assert len(found) == most
    for asked in (
        {"what": "events", "limit": -1},
        {"what": "events", "limit": 5, "types": ["x.y"] * 101},
        {"what": "messages", "limit": 5, "before": 1 << 60},
    ):
        with pytest.raises(InvalidInput):
            await answers(worker, run, lease, asked)
    assert await answers(worker, run, lease, {"what": "state", "id": "codex"}) == {}


async def answers(worker: Hostile, run: Run, lease: Document, asked: Document) -> Any:
    found = await worker.call(f"/{run.id}/facts", token=lease["token"], asks=[asked])
    return found["answers"][0]
