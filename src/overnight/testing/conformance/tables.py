"""The smaller tables: turns, stdin, requests, sessions, tokens, workers, facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from overnight.domain.backend import BackendCheck, Capabilities, Problem
from overnight.domain.connection import Connection
from overnight.domain.request import Principal
from overnight.domain.run import Position, Turn
from overnight.domain.session import SessionMessage
from overnight.domain.states import TurnState
from overnight.domain.token import AccessToken, digest, new_secret
from overnight.domain.values import Failure, FileStats, TestStats, Usage
from overnight.errors import Conflict, NotFound
from overnight.ids import WorkerId, new_connection_id, new_host_id, new_run_id, new_token_id, new_worker_id
from overnight.ports.notifier import requests_topic
from overnight.testing.conformance.stage import Stage


def _turn(run_pk: int, number: int = 1, attempt: int = 1) -> Turn:
    return Turn(
        run_pk=run_pk,
        number=number,
        attempt=attempt,
        state=TurnState.STARTED,
        backend="echo",
        token=1,
        folder=f"runs/x/turns/{number}-{attempt}",
        started_at=10,
        first_seq=2,
        resume_before={"thread": "t"},
    )


def _token(name: str, owner: str = "usr_local") -> AccessToken:
    return AccessToken(
        pk=0,
        id=new_token_id(0),
        owner=owner,
        name=name,
        kind="user",
        digest=digest(new_secret()),
        created_at=1,
        expires_at=99,
    )


def _connection(server: WorkerId, at: int, **changes: Any) -> Connection:
    values: dict[str, Any] = {
        "id": new_connection_id(at),
        "server": server,
        "owner": "usr_local",
        "actor": "anna",
        "kind": "sse",
        "connected_at": at,
        "heartbeat_at": at,
    }
    return Connection(**values | changes)


@pytest.mark.anyio
class TableSuite:
    """The contracts of the tables that hang on runs and sessions, and of those beside them."""

    async def test_turns_and_their_attempts(self, stage: Stage) -> None:
        run = await stage.run()
        assert await stage.uow.read(lambda tx: tx.turns.last(run.pk)) is None
        turns = [_turn(run.pk), _turn(run.pk, 1, 2), _turn(run.pk, 2)]
        for turn in turns:
            await stage.uow.write(lambda tx: tx.turns.open(turn))
        assert await stage.uow.read(lambda tx: tx.turns.page(run.pk)) == tuple(turns)
        assert await stage.uow.read(lambda tx: tx.turns.last(run.pk)) == turns[2]
        assert await stage.uow.read(lambda tx: tx.turns.get(run.pk, 1)) == turns[1]
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.turns.get(run.pk, 3))

    async def test_every_field_of_a_turn_comes_back(self, stage: Stage) -> None:
        run = await stage.run()
        turn = _turn(run.pk)
        await stage.uow.write(lambda tx: tx.turns.open(turn))
        changed = replace(
            turn,
            state=TurnState.FAILED,
            backend="other",
            model="m",
            token=3,
            pid=7,
            ended_at=20,
            last_seq=9,
            position=Position(stdout=5, stderr=6),
            stop_reason="end",
            error=Failure(code="c", message="m"),
            usage=Usage(input=1),
            files=FileStats(changed=2),
            tests=TestStats(passed=3),
            items=4,
            last_message="hello",
        )
        await stage.uow.write(lambda tx: tx.turns.save(changed))
        assert await stage.uow.read(lambda tx: tx.turns.get(run.pk, 1)) == changed
        with pytest.raises(NotFound):
            await stage.uow.write(lambda tx: tx.turns.save(replace(changed, number=5)))

    async def test_a_position_advances_with_the_items(self, stage: Stage) -> None:
        run = await stage.run()
        await stage.uow.write(lambda tx: tx.turns.open(_turn(run.pk)))
        for stdout, items in ((100, 2), (250, 3)):
            position = Position(stdout=stdout, stderr=7)
            await stage.uow.write(lambda tx: tx.turns.advance(run.pk, 1, 1, position, items))
        found = await stage.uow.read(lambda tx: tx.turns.get(run.pk, 1))
        assert (found.position, found.items) == (Position(stdout=250, stderr=7), 5)
        with pytest.raises(NotFound):
            await stage.uow.write(lambda tx: tx.turns.advance(run.pk, 1, 9, Position(), 0))

    async def test_stdin_messages_have_no_holes(self, stage: Stage) -> None:
        run = await stage.run()
        await stage.uow.write(lambda tx: tx.turns.open(_turn(run.pk)))
        for n in (1, 2, 3):
            await stage.uow.write(lambda tx: tx.turns.add_input(run.pk, 1, 1, n, b"\x00%d" % n))
        for wrong in (3, 5, 0):
            with pytest.raises(Conflict):
                await stage.uow.write(lambda tx: tx.turns.add_input(run.pk, 1, 1, wrong, b"x"))
        found = await stage.uow.read(lambda tx: tx.turns.inputs(run.pk, 1, 1, 1))
        assert found == ((2, b"\x002"), (3, b"\x003"))
        await stage.uow.write(lambda tx: tx.turns.add_input(run.pk, 1, 2, 1, b"own numbers"))

    async def test_requests_are_pending_until_settled(self, stage: Stage) -> None:
        run = await stage.run()
        by = Principal(owner="usr_local", name="anna")
        listener = stage.notifier.subscribe(requests_topic(run.pk))
        first = await stage.uow.write(lambda tx: tx.requests.add(run.pk, "steer", {"text": "go"}, by, 5))
        assert await listener.next(5)
        listener.close()
        second = await stage.uow.write(lambda tx: tx.requests.add(run.pk, "cancel", {}, by, 6))
        assert await stage.uow.read(lambda tx: tx.requests.pending(run.pk)) == (first, second)
        assert (first.actor, first.body) == ("anna", {"text": "go"})
        for _ in range(2):
            await stage.uow.write(lambda tx: tx.requests.settle(first.pk, "done", 9))
        assert await stage.uow.read(lambda tx: tx.requests.pending(run.pk)) == (second,)

    async def test_sessions_and_their_messages(self, stage: Stage) -> None:
        session = await stage.session(variables={"a": [1]}, config={"b": None})
        assert await stage.uow.read(lambda tx: tx.sessions.get(session.id, "usr_local")) == session
        changed = replace(session, name="n2", state="suspended", version=2, variables={}, made_for_run=False)
        await stage.uow.write(lambda tx: tx.sessions.save(changed))
        assert await stage.uow.read(lambda tx: tx.sessions.lock(session.pk)) == changed
        history = [
            SessionMessage(role="user", text=f"m{n}", at=n, run_id=new_run_id(n), turn=n) for n in range(5)
        ]
        for message in history:
            await stage.uow.write(lambda tx: tx.sessions.add_message(session.pk, message))
        assert await stage.uow.read(lambda tx: tx.sessions.messages(session.pk, 3)) == tuple(history[2:])
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.sessions.lock(999))

    async def test_a_backend_keeps_its_own_session_state(self, stage: Stage) -> None:
        session = await stage.session()
        assert await stage.uow.read(lambda tx: tx.sessions.backend_state(session.pk, "echo")) == {}
        for state in ({"thread": "1"}, {"thread": "2", "n": 1}):
            await stage.uow.write(lambda tx: tx.sessions.save_backend_state(session.pk, "echo", state))
        await stage.uow.write(lambda tx: tx.sessions.save_backend_state(session.pk, "other", {}))
        found = await stage.uow.read(lambda tx: tx.sessions.backend_state(session.pk, "echo"))
        assert found == {"thread": "2", "n": 1}

    async def test_access_tokens(self, stage: Stage) -> None:
        token = await stage.uow.write(lambda tx: tx.tokens.add(_token("ci")))
        theirs = await stage.uow.write(lambda tx: tx.tokens.add(_token("ci", "usr_other")))
        with pytest.raises(Conflict):
            await stage.uow.write(lambda tx: tx.tokens.add(_token("ci")))
        assert await stage.uow.read(lambda tx: tx.tokens.by_digest(token.digest)) == token
        assert await stage.uow.read(lambda tx: tx.tokens.by_digest("0" * 64)) is None
        assert await stage.uow.read(lambda tx: tx.tokens.all("usr_local")) == (token,)
        assert await stage.uow.read(lambda tx: tx.tokens.all(None)) == (token, theirs)
        await stage.uow.write(lambda tx: tx.tokens.used(token.pk, 44))
        used = await stage.uow.read(lambda tx: tx.tokens.by_digest(token.digest))
        assert used is not None
        assert used.last_used_at == 44
        with pytest.raises(NotFound):
            await stage.uow.write(lambda tx: tx.tokens.revoke(theirs.id, "usr_local", 5))
        revoked = await stage.uow.write(lambda tx: tx.tokens.revoke("ci", "usr_local", 5))
        assert (revoked.pk, revoked.revoked_at) == (token.pk, 5)
        assert (await stage.uow.write(lambda tx: tx.tokens.revoke(token.id, None, 9))).revoked_at == 5
        again = await stage.uow.write(lambda tx: tx.tokens.add(_token("ci")))
        assert (await stage.uow.write(lambda tx: tx.tokens.revoke("ci", "usr_local", 7))).pk == again.pk

    async def test_workers(self, stage: Stage) -> None:
        worker, gone = await stage.worker(), await stage.worker()
        now = stage.clock.wall_ms()
        await stage.uow.write(lambda tx: tx.workers.beat(worker.pk, now + 5))
        await stage.uow.write(lambda tx: tx.workers.set_state(gone.id, "gone", now))
        assert await stage.uow.read(lambda tx: tx.workers.all()) == (
            replace(worker, seen_at=now + 5),
            replace(gone, state="gone"),
        )
        stage.clock.jump_wall(3_600_001)
        assert [found.pk for found in await stage.uow.read(lambda tx: tx.workers.all())] == [worker.pk]

    async def test_connections_live_by_their_servers_heartbeat(self, stage: Stage) -> None:
        here, there = new_worker_id(1), new_worker_id(2)
        mine = [_connection(here, at, client=f"tab-{at}") for at in (10, 20)]
        theirs = _connection(there, 15, owner="usr_other", actor="ci", kind="socket")
        for connection in (*mine, theirs):
            await stage.uow.write(lambda tx: tx.connections.add(connection))
        assert await stage.uow.read(lambda tx: tx.connections.all(None)) == (mine[0], theirs, mine[1])
        assert await stage.uow.read(lambda tx: tx.connections.all("usr_other")) == (theirs,)
        assert await stage.uow.write(lambda tx: tx.connections.beat(here, 100)) == 2
        assert await stage.uow.write(lambda tx: tx.connections.stale(100)) == 1, (
            "only the other server is silent"
        )
        found = await stage.uow.read(lambda tx: tx.connections.all(None))
        assert found == tuple(replace(one, heartbeat_at=100) for one in mine)
        for _ in range(2):
            await stage.uow.write(lambda tx: tx.connections.remove([mine[0].id]))
        assert [one.id for one in await stage.uow.read(lambda tx: tx.connections.all(None))] == [mine[1].id]
        assert await stage.uow.write(lambda tx: tx.connections.forget(here)) == 1
        assert await stage.uow.read(lambda tx: tx.connections.all(None)) == ()

    async def test_a_session_is_followed_directly_or_by_its_runs(self, stage: Stage) -> None:
        session, server = await stage.session(), new_worker_id(1)
        run, other = await stage.run(session=session), await stage.run()
        targets = (session.id, run.id, other.id, None)
        for at, target in enumerate(targets):
            connection = _connection(server, at, target=target, owner=f"usr_{at}")
            await stage.uow.write(lambda tx: tx.connections.add(connection))
        found = await stage.uow.read(lambda tx: tx.connections.following(session.id))
        assert [one.target for one in found] == [session.id, run.id], "whosever they are"

    async def test_backend_checks_are_cached_by_host(self, stage: Stage) -> None:
        check = BackendCheck(
            name="echo",
            status="warn",
            version="1",
            capabilities=Capabilities(resume=True, sandbox=("read_only",)),
            problems=(Problem(code="c", message="m", mend="do"),),
            checked_at=5,
            stamp="s",
        )
        host, other = stage.host, new_host_id(5)
        await stage.uow.write(lambda tx: tx.workers.save_check(host, replace(check, status="fail")))
        await stage.uow.write(lambda tx: tx.workers.save_check(host, check))
        await stage.uow.write(lambda tx: tx.workers.save_check(other, replace(check, name="zeta")))
        assert await stage.uow.read(lambda tx: tx.workers.checks(host)) == (check,)
        assert len(await stage.uow.read(lambda tx: tx.workers.checks(None))) == 2

    async def test_single_facts(self, stage: Stage) -> None:
        assert await stage.uow.read(lambda tx: tx.installation.get("host_id")) is None
        for value in ("a", "b"):
            await stage.uow.write(lambda tx: tx.installation.put("host_id", value))
        assert await stage.uow.read(lambda tx: tx.installation.get("host_id")) == "b"
        await stage.uow.write(lambda tx: tx.installation.put("host_id", None))
        assert await stage.uow.read(lambda tx: tx.installation.get("host_id")) is None
        assert await stage.uow.read(lambda tx: tx.installation.size_bytes()) > 0
