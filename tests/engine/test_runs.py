"""A run from its claim to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import Rig

from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def test_a_oneshot_run_is_one_turn(rig: Make) -> None:
    backend = fake()
    server = await rig(backend)
    run = await server.submit(mode="oneshot")
    ended = await server.until(run, State.COMPLETED)
    assert ended.completion is not None
    assert (ended.completion.by, ended.turn, ended.attempt, ended.stats.turns) == ("one_turn", 1, 1, 1)
    assert await server.types(run) == [
        "run.queued", "run.started", "turn.started", "message.completed", "turn.completed", "run.completed",
    ]  # fmt: skip
    assert ended.worker is None
    await eventually(lambda: backend.agents[0].released)  # after the end is told


async def test_a_continuous_run_goes_on_until_the_pattern(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write(f"{agent.start.turn}.txt", "x\n")
        agent.append("WORKLOG.md", "STATUS: DONE\n" if agent.start.turn == 3 else "going on\n")

    backend = fake(script)
    server = await rig(backend)
    (server.workspace() / "WORKLOG.md").write_text("STATUS: DONE\n", encoding="utf-8")
    run = await server.submit(completion={"pattern": "^STATUS: DONE$"})
    ended = await server.until(run, State.COMPLETED)
    assert ended.completion is not None
    assert (ended.completion.by, ended.completion.line) == ("pattern", "STATUS: DONE")
    assert (ended.turn, ended.stats.turns, ended.stats.files.changed >= 3) == (3, 3, True)
    written = {data["path"] for data in await server.data(run, "file.written")}
    assert {"1.txt", "2.txt", "3.txt"} <= written
    assert [data["kind"] for data in await server.data(run, "log.updated")] == ["work"] * 3


async def test_the_pattern_counts_in_this_turns_last_message(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write(f"{agent.start.turn}.txt", "x")
        agent.say("ALL DONE" if agent.start.turn == 2 else "not yet")

    server = await rig(fake(script))
    ended = await server.until(await server.submit(completion={"pattern": "^ALL DONE$"}), State.COMPLETED)
    assert ended.turn == 2


async def test_the_stop_file_ends_the_run_and_goes(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write(".overnight/stop" if agent.start.turn == 2 else "a.txt", "")

    server = await rig(fake(script))
    ended = await server.until(await server.submit(), State.COMPLETED)
    assert ended.completion is not None
    assert (ended.completion.by, ended.turn) == ("stop_file", 2)
    assert not (server.workspace() / ".overnight/stop").exists()


async def test_a_stop_file_from_before_the_first_turn_completes_nothing(rig: Make) -> None:
    backend = fake()
    server = await rig(backend, supervise=False)
    run = await server.submit()
    (server.workspace() / ".overnight").mkdir()
    (server.workspace() / ".overnight/stop").write_text("")
    await server.supervisor.start()
    ended = await server.until(run, State.FAILED)
    assert ended.error is not None
    assert ended.error.code == "stop_file_present"
    assert backend.agents == []


async def test_the_backends_own_verdict_completes(rig: Make) -> None:
    async def script(agent: FakeAgent) -> TurnOutcome:
        return TurnOutcome(stop_reason="end_turn", done=agent.start.turn == 2)

    ended_by = await _end(await rig(fake(script)))
    assert ended_by == ("backend", 2)


async def test_turns_that_change_nothing_but_the_logs_end_by_idle(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.append("WORKLOG.md", "thinking\n")
        agent.append("DECISIONS.md", "none\n")
        agent.write(".overnight/x", str(agent.start.turn))

    assert await _end(await rig(fake(script)), completion={"idle_turns": 2}) == ("idle", 2)


async def test_ignored_files_are_no_work(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write("build/x", str(agent.start.turn))

    server = await rig(fake(script))
    (server.workspace() / ".gitignore").write_text("build/\n")
    assert await _end(server, completion={"idle_turns": 2}) == ("idle", 2)


async def _end(server: Rig, **body: Any) -> tuple[str, int]:
    ended = await server.until(await server.submit(**body), State.COMPLETED)
    assert ended.completion is not None
    return ended.completion.by, ended.turn


@pytest.mark.parametrize("limits, idle", [({"turns": 2}, 0), ({}, 2)])
async def test_ended_without_its_condition_is_condition_not_met(
    rig: Make, limits: dict[str, int], idle: int
) -> None:
    server = await rig(fake())
    run = await server.submit(completion={"pattern": "^DONE$", "idle_turns": idle}, limits=limits)
    ended = await server.until(run, State.FAILED)
    assert ended.error is not None
    assert (ended.error.code, ended.turn) == ("condition_not_met", 2)


async def test_the_limit_of_turns_completes_where_no_condition_was_named(rig: Make) -> None:
    assert await _end(await rig(fake()), completion={"idle_turns": 0}, limits={"turns": 2}) == ("limit", 2)


async def test_fifty_runs_at_once_show_no_foreign_output(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        for n in range(10):
            agent.print(f"{agent.start.run_id} {n}")
            await asyncio.sleep(0)
        agent.say(agent.start.run_id)

    server = await rig(fake(script), slots=50)
    runs = [await server.submit(mode="oneshot", workspace=None) for _ in range(50)]
    for run in runs:
        await server.until(run, State.COMPLETED, within=60)
        lines = "".join(data["text"] for data in await server.data(run, "output.recorded")).splitlines()
        assert lines == [f"{run.id} {n}" for n in range(10)]
        assert [data["text"] for data in await server.data(run, "message.completed")] == [run.id]


async def test_two_runs_in_one_workspace_never_overlap(rig: Make) -> None:
    spans: list[str] = []

    async def script(agent: FakeAgent) -> None:
        spans.append("in")
        await agent.work(0.01)
        spans.append("out")

    server = await rig(fake(script))
    (server.workspace() / "inner").mkdir()
    places = [server.workspace(), server.workspace() / "inner", server.workspace()]
    runs = [await server.submit(mode="oneshot", workspace=str(place)) for place in places]
    for run in runs:
        await server.until(run, State.COMPLETED)
    assert spans == ["in", "out"] * 3


async def test_a_session_keeps_messages_and_the_backends_own_state(rig: Make) -> None:
    from overnight.domain.update import SessionKnown

    async def script(agent: FakeAgent) -> None:
        agent.emit(SessionKnown(state={"thread": f"t{len(backend.agents)}"}))
        agent.say(f"answer {len(backend.agents)}")

    backend = fake(script)
    server = await rig(backend)
    first = await server.submit("one", mode="oneshot")
    await server.until(first, State.COMPLETED)
    second = await server.submit("two", mode="oneshot", session_id=first.session_id)
    await server.until(second, State.COMPLETED)
    messages = await server.store.read(lambda tx: tx.sessions.messages(first.session_pk, 10))
    assert [(m.role, m.text) for m in messages] == [
        ("user", "one"), ("assistant", "answer 1"), ("user", "two"), ("assistant", "answer 2"),
    ]  # fmt: skip
    assert [agent.start.resume for agent in backend.agents] == [{}, {"thread": "t1"}]


async def test_secrets_are_in_no_event_and_no_history(rig: Make) -> None:
    secret = "very-secret-value-1"

    async def script(agent: FakeAgent) -> TurnOutcome:
        assert agent.start.environment == {"OVERNIGHT_VAR_KEY": secret}
        agent.print(f"key is {secret}")
        agent.say(f"I used {secret}")
        return TurnOutcome(failure=Failure(code="broken", message=f"bad key {secret}"))

    from overnight.domain.values import Failure

    server = await rig(fake(script))
    run = await server.submit(mode="oneshot", environment={"OVERNIGHT_VAR_KEY": secret})
    ended = await server.until(run, State.FAILED)
    assert secret not in str(await server.events(run))
    assert secret not in str(ended)
    messages = await server.store.read(lambda tx: tx.sessions.messages(run.session_pk, 10))
    assert secret not in str(messages)


async def test_a_run_that_prints_too_many_events_fails(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        while True:
            agent.say("again")
            await asyncio.sleep(0)

    server = await rig(fake(script))
    run = await server.submit(mode="oneshot", limits={"events": 100})
    ended = await server.until(run, State.FAILED)
    assert ended.error is not None
    assert ended.error.code == "event_limit"


async def test_a_missing_sandbox_is_said_once(rig: Make) -> None:
    from overnight.domain.backend import Capabilities

    server = await rig(fake(capabilities=Capabilities(workspace=True)))
    run = await server.submit(completion={"idle_turns": 0}, limits={"turns": 2})
    ended = await server.until(run, State.COMPLETED)
    assert ended.sandbox_effective == "none"
    assert [data["code"] for data in await server.data(run, "error.recorded")] == ["sandbox_unavailable"]
