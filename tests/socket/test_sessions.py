"""The agent protocol: sessions, what is said in them, what works in them, and what people decide."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.stage import Stage, staged
from tests.socket.test_logs import linked

from overnight.client.socket.link import Link, Nacked
from overnight.ids import RunId

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def talking(stage: Stage) -> AsyncIterator[tuple[Link, str]]:
    """A link, and the scope of a session that it hears."""
    async with linked(stage) as link:
        opened = await link.request("conn", "session.open", {"name": "Talk"})
        scope = f"session:{opened.payload['session']['id']}"
        await link.request(scope, "session.resume", {})
        yield link, scope


async def until(link: Link, scope: str, type_: str) -> tuple[dict[str, Any], list[Any]]:
    """The first message of that type, and all that came before it."""
    before: list[Any] = []
    async with asyncio.timeout(30):
        async for one in link.inbox(scope):
            if one.type == type_:
                return dict(one.payload), before
            before.append(one)
    raise AssertionError(f"no {type_} came")


async def said(link: Link, scope: str, text: str) -> dict[str, Any]:
    return dict((await link.request(scope, "session.send", {"text": text})).payload)


async def test_what_is_said_becomes_a_run_whose_progress_and_end_are_heard(stage: Stage) -> None:
    async with talking(stage) as (link, scope):
        sent = await said(link, scope, "Hello.")
        run_id = sent["run"]["id"]
        run = await stage.store.read(lambda tx: tx.runs.get(RunId(run_id), "usr_local"))
        progress, before = await until(link, scope, "agent.progress")
        assert progress["run"] == run_id
        facts = [
            event["type"] for one in before if one.type == "agent.event" for event in one.payload["events"]
        ]
        assert "run.linked" in facts
        await stage.append(run, "Hi!")
        await stage.finish(run)
        result, before = await until(link, scope, "agent.result")
        assert (result["run"]["id"], result["run"]["state"]) == (run_id, "completed")
        told = [event for one in before if one.type == "agent.progress" for event in one.payload["events"]]
        assert [event["type"] for event in told][-1] == "run.completed"
        seqs = [event["seq"] for event in (*progress["events"], *told)]
        assert seqs == list(range(1, len(await stage.log(run)) + 1))


async def test_a_session_goes_on_over_stop_and_restart(stage: Stage) -> None:
    async with talking(stage) as (link, scope):
        await said(link, scope, "First.")
        await link.request(scope, "session.stop", {"reason": "enough"})
        end, before = await until(link, scope, "session.stopped")
        assert end["reason"] == "enough"
        cursor = max(one.payload["cursor"] for one in before if one.type == "agent.event")
        again = await link.request(scope, "session.resume", {"after": cursor})
        assert again.payload["session"]["id"] == scope.partition(":")[2]
        await said(link, scope, "Second.")
        fresh, _ = await until(link, scope, "agent.event")
        assert fresh["events"][0]["seq"] == cursor + 1
    async with linked(stage) as link:
        await link.request(scope, "session.resume", {})
        first, _ = await until(link, scope, "agent.event")
        assert first["events"][0]["seq"] == 1


async def test_sessions_on_one_connection_keep_their_messages_apart(stage: Stage) -> None:
    async with talking(stage) as (link, one):
        opened = await link.request("conn", "session.open", {})
        other = f"session:{opened.payload['session']['id']}"
        await link.request(other, "session.resume", {})
        sent = {scope: (await said(link, scope, "Hello."))["run"]["id"] for scope in (one, other)}
        for scope, run_id in sent.items():
            progress, _ = await until(link, scope, "agent.progress")
            assert progress["run"] == run_id


async def test_the_agent_is_paused_and_cancelled_and_says_how_it_is(stage: Stage) -> None:
    async with talking(stage) as (link, scope):
        heartbeat = await link.request(scope, "agent.control", {"action": "heartbeat"})
        assert heartbeat.payload["status"] == "watching"
        with pytest.raises(Nacked) as refused:
            await link.request(scope, "agent.control", {"action": "cancel"})
        assert refused.value.code == "not_found"
        run_id = (await said(link, scope, "Work."))["run"]["id"]
        state = await link.request(scope, "session.state", {})
        assert (state.payload["run"]["id"], state.payload["waiting"]) == (run_id, 1)
        await link.request(scope, "agent.control", {"action": "pause"})
        state = await link.request(scope, "agent.control", {"action": "state"})
        assert state.payload["run"]["state"] == "paused"
        await link.request(scope, "agent.control", {"action": "resume"})
        await link.request(scope, "agent.control", {"action": "cancel", "reason": "never mind"})
        result, _ = await until(link, scope, "agent.result")
        assert result["run"]["state"] == "cancelled"


@pytest.mark.parametrize("action", ["goal", "clear_saturation"])
async def test_what_waits_for_plans_says_so(stage: Stage, action: str) -> None:
    async with talking(stage) as (link, scope):
        with pytest.raises(Nacked) as refused:
            await link.request(scope, "agent.control", {"action": action, "text": "x"})
        assert refused.value.code == "not_available"
        with pytest.raises(Nacked) as refused:
            await link.request(scope, "memory.recall", {})
        assert refused.value.code == "not_available"


async def test_approvals_of_the_session_are_listed_and_unknown_ones_refused(stage: Stage) -> None:
    async with talking(stage) as (link, scope):
        found = await link.request(scope, "approval.list", {})
        assert found.payload["approvals"] == []
        with pytest.raises(Nacked) as refused:
            await link.request(
                scope, "approval.resolve", {"approval": "apr_" + "0" * 26, "option": "allow_once"}
            )
        assert refused.value.code == "not_found"


async def test_strangers_hear_nothing(stage: Stage) -> None:
    async with talking(stage) as (_, scope), linked(stage, await stage.token(owner="usr_other")) as link:
        with pytest.raises(Nacked) as refused:
            await link.request(scope, "session.resume", {})
        assert refused.value.code == "not_found"
