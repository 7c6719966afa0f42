"""Sessions: their states and versions, what runs inherit from them, how they expire and how they are removed."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from dataclasses import replace
from typing import Any, get_args

import pytest
from tests.engine.conftest import Make, fake, quiet
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import ME, Rig

from overnight.domain.mode import ModeEntry, Modes
from overnight.domain.request import Principal
from overnight.domain.session import SESSION_MOVES, Session, SessionInput, SessionState, next_state
from overnight.domain.spec import LimitsSpec, RunSpec
from overnight.domain.states import State
from overnight.domain.update import TurnOutcome
from overnight.engine.maintenance.session_expirer import SessionExpirer
from overnight.engine.policy import RunPolicy, SessionPolicy
from overnight.engine.sessions import Change, Draw
from overnight.engine.sharing import Sharing
from overnight.errors import (
    Conflict,
    IdempotencyKeyReused,
    InvalidInput,
    ModeUnavailable,
    NotFound,
    OvernightError,
    SessionBusy,
    SessionExpired,
    StaleVersion,
    Unauthorized,
)
from overnight.ports.tables import Idempotency
from overnight.testing.clocks import ManualClock

pytestmark = pytest.mark.anyio
BOB = Principal(owner="usr_bob", name="bob")
DAY_MS = 86_400_000


async def lasting(agent: FakeAgent) -> TurnOutcome | None:
    await agent.go.wait()
    agent.say("done")
    return None


async def made(server: Rig, **asked: Any) -> Session:
    session, _ = await server.sessions.create(Draw(**asked), ME)
    return session


async def types(server: Rig, session: Session) -> list[str]:
    return [event.type for event in await server.store.read(lambda tx: tx.events.after(session.pk, 0, 1000))]


@pytest.mark.parametrize("state", get_args(SessionState))
@pytest.mark.parametrize("input", get_args(SessionInput))
def test_every_move_of_a_session_is_in_the_table(state: SessionState, input: SessionInput) -> None:
    session = Session(pk=1, id="ses_x", owner="o", name="n", mode="chat", state=state, created_at=1, updated_at=1)  # type: ignore[arg-type]  # fmt: skip
    wanted = SESSION_MOVES[state].get(input)
    if wanted is None:
        with pytest.raises(SessionExpired if state == "expired" else Conflict):
            next_state(session, input)
    else:
        assert next_state(session, input) == wanted


def test_nothing_leads_out_of_expired_and_only_an_active_session_completes() -> None:
    assert not SESSION_MOVES["expired"]
    assert [state for state, moves in SESSION_MOVES.items() if "complete" in moves] == ["active"]


async def test_made_suspended_resumed(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    session = await made(server, name="Parser", variables={"a": 1})
    assert (session.state, session.phase, session.version, session.made_for_run) == (
        "active",
        "init",
        1,
        False,
    )
    await server.sessions.suspend(session.id, ME)
    suspended = await server.sessions.suspend(session.id, ME)
    assert suspended.state == "suspended"
    await server.sessions.resume(session.id, ME)
    resumed = await server.sessions.resume(session.id, ME)
    assert (resumed.state, resumed.version) == ("active", 1)
    assert await types(server, session) == ["session.created", "session.suspended", "session.resumed"]
    with pytest.raises(NotFound):
        await server.sessions.get(session.id, BOB)


async def test_a_session_with_a_live_run_is_neither_suspended_nor_deleted(rig: Make) -> None:
    backend = fake(lasting)
    server = await rig(backend)
    session = await made(server)
    run = await server.submit(mode="oneshot", session_id=session.id)
    await server.agent(backend)
    for forbidden in (server.sessions.suspend, server.sessions.delete):
        with pytest.raises(SessionBusy):
            await forbidden(session.id, ME)
    backend.agents[0].go.set()
    await server.until(run)
    await server.sessions.suspend(session.id, ME)


async def test_a_version_counts_what_is_patched_and_nothing_else(rig: Make) -> None:
    server = await rig(fake())
    session = await made(server)
    await server.until(await server.submit(mode="oneshot", session_id=session.id))
    changed = await server.sessions.patch(session.id, Change(name="n", variables={"x": [1]}, version=1), ME)
    assert (changed.version, changed.name, changed.variables) == (2, "n", {"x": [1]})
    with pytest.raises(StaleVersion) as stale:
        await server.sessions.patch(session.id, Change(name="m", version=1), ME)
    assert stale.value.extra == {"version": 2}
    assert (await server.sessions.patch(session.id, Change(name="n", version=2), ME)).version == 2
    await server.sessions.suspend(session.id, ME)
    last = await server.sessions.patch(session.id, Change(config={"model": "m"}), ME)
    assert (last.version, last.state) == (3, "suspended")


async def test_of_many_stale_writers_one_wins(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    session = await made(server)
    patches = [server.sessions.patch(session.id, Change(name=f"n{n}", version=1), ME) for n in range(10)]
    results = await asyncio.gather(*patches, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Session"] + ["StaleVersion"] * 9


async def test_fifty_sessions_at_once(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    sessions = await asyncio.gather(*(made(server, name=f"s{n}") for n in range(50)))
    assert len({session.id for session in sessions}) == 50


async def test_the_same_key_makes_one_session(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    key = Idempotency(route="POST /sessions", key="k", body_hash="a")
    results = await asyncio.gather(
        *(server.sessions.create(Draw(name="n"), ME, idempotency=key) for _ in range(5))
    )
    assert len({session.id for session, _ in results}) == 1
    assert sum(new for _, new in results) == 1
    with pytest.raises(IdempotencyKeyReused):
        await server.sessions.create(Draw(name="m"), ME, idempotency=replace(key, body_hash="b"))
    assert (await server.sessions.create(Draw(), BOB, idempotency=key))[1]


@pytest.mark.parametrize(
    "asked, error",
    [
        ({"mode": "gossip"}, ModeUnavailable),
        ({"mode": "plan"}, ModeUnavailable),
        ({"variables": {"x": "y" * 300_000}}, InvalidInput),
        ({"config": {"prompt": {"instructions": "y" * 70_000}}}, InvalidInput),
        ({"config": {"goal": "x"}}, InvalidInput),
        ({"config": {"environment": {"CI": "1"}}}, InvalidInput),
        ({"config": {"modle": "x"}}, InvalidInput),
        ({"config": {"limits": {"turns": 0}}}, InvalidInput),
    ],
)
async def test_what_makes_no_sense_is_refused(
    rig: Make, asked: dict[str, Any], error: type[Exception]
) -> None:
    server = await rig(fake(), supervise=False)
    with pytest.raises(error):
        await made(server, **asked)


PROFILES = Modes(
    [
        ModeEntry(
            id="nightly", base="oneshot", label="Nightly", description="d",
            defaults={"model": "big", "limits": {"attempts": 7, "tokens": 500}, "labels": {"from": "profile"}},
        ),
        ModeEntry(id="talk", base="chat", label="Talk", description="d", defaults={"limits": {"turns": 9}}),
    ]
)  # fmt: skip


async def test_a_run_takes_what_it_does_not_say_from_session_and_profile(rig: Make) -> None:
    server = await rig(fake(), supervise=False, policy=RunPolicy(default_backend="fake", modes=PROFILES))
    session = await made(
        server,
        mode="nightly",
        config={"effort": "low", "limits": {"tokens": 100}, "labels": {"of": "session"}},
    )
    run = await server.submit(session_id=session.id, limits={"turns": 3}, effort="high")
    spec = run.spec
    assert (spec.mode, spec.profile, spec.model, spec.effort) == ("oneshot", "nightly", "big", "high")
    assert (spec.limits.turns, spec.limits.tokens, spec.limits.attempts) == (3, 100, 7)
    assert spec.labels == {"from": "profile", "of": "session"}
    plain = await server.submit(session_id=session.id, mode="continuous")
    assert (plain.spec.mode, plain.spec.profile, plain.spec.model) == ("continuous", None, None)
    preview = await server.service.preview(RunSpec(goal="g", session_id=session.id), ME)
    assert (preview.spec.mode, preview.spec.model) == ("oneshot", "big")
    with pytest.raises(InvalidInput, match="profile"):
        await server.submit(profile="nightly")


async def test_a_conversation_has_no_end_of_its_own_but_the_operators(rig: Make) -> None:
    free = await rig(fake(), supervise=False, policy=RunPolicy(default_backend="fake", modes=PROFILES))
    chat = (await free.submit(mode="chat")).spec
    assert (chat.limits.turns, chat.completion.stop_file, chat.completion.idle_turns) == (None, None, 0)
    talk = (await free.submit(mode="talk")).spec
    assert (talk.mode, talk.profile, talk.limits.turns) == ("chat", "talk", 9)
    await free.close()
    ceiling = LimitsSpec(turns=20)
    bound = await rig(fake(), supervise=False, policy=RunPolicy(default_backend="fake", max_limits=ceiling))
    assert (await bound.submit(mode="chat")).spec.limits.turns == 20


async def test_a_retry_keeps_what_was_inherited(rig: Make) -> None:
    server = await rig(fake(), policy=RunPolicy(default_backend="fake", modes=PROFILES))
    run = await server.submit(mode="nightly", not_before="2999-01-01T00:00:00Z")
    await server.control(run, "cancel")
    again = await server.service.retry(run.id, ME)
    assert (again.spec.profile, again.spec.model) == ("nightly", "big")
    assert (await server.sessions.get(again.session_id, ME)).mode == "nightly"


async def test_phases_follow_the_run(rig: Make) -> None:
    backend = fake(lasting)
    server = await rig(backend)
    session = await made(server)
    run = await server.submit(mode="oneshot", session_id=session.id)
    await server.agent(backend)
    assert (await server.sessions.get(session.id, ME)).phase == "execution"
    backend.agents[0].go.set()
    await server.until(run)
    found = await server.sessions.get(session.id, ME)
    assert (found.phase, found.step, found.state) == ("completed", 1, "active")
    budget = await server.submit(mode="continuous", session_id=session.id, limits={"tokens": 1})
    agent = await server.agent(backend, 2)
    agent.use(5)
    agent.go.set()
    await server.until(budget, State.WAITING)
    assert (await server.sessions.get(session.id, ME)).phase == "review"
    await server.control(budget, "cancel")
    found = await server.sessions.get(session.id, ME)
    assert (found.phase, found.state) == ("failed", "active")


async def test_a_session_made_for_its_run_ends_as_the_run_did(rig: Make) -> None:
    backend = fake(quiet)
    server = await rig(backend)
    good = await server.until(await server.submit(mode="oneshot"))
    assert (await server.sessions.get(good.session_id, ME)).state == "completed"
    bad = await server.submit(mode="oneshot", not_before="2999-01-01T00:00:00Z")
    await server.control(bad, "cancel")
    assert (await server.sessions.get(bad.session_id, ME)).state == "suspended"
    again = await server.submit(mode="oneshot", session_id=good.session_id)
    assert "session.resumed" in await types(server, await server.sessions.get(good.session_id, ME))
    await server.until(again)


async def test_sessions_expire_only_when_nobody_has_touched_them_and_no_run_lives(rig: Make) -> None:
    clock = ManualClock()
    server = await rig(fake(), supervise=False, clock=clock)
    idle, aside, busy, used = [await made(server, name=name) for name in ("idle", "aside", "busy", "used")]
    await server.sessions.suspend(aside.id, ME)
    await server.submit(session_id=busy.id, not_before="2999-01-01T00:00:00Z")
    home = server.shop.folders.make(server.shop.folders.home(idle.id, "fake"))
    expirer = SessionExpirer(server.store, clock, SessionPolicy(), server.shop.folders)
    clock.jump_wall(DAY_MS - 1000)
    await server.sessions.patch(used.id, Change(name="touched"), ME)
    assert await expirer.once() == 0
    clock.jump_wall(2000)
    assert await expirer.once() == 1
    states = {s.name: s.state for s in (await server.sessions.page(_all(), limit=9, after=None))[0]}
    assert states == {"idle": "expired", "aside": "suspended", "busy": "active", "touched": "active"}
    assert not home.exists()
    assert (await types(server, idle))[-1] == "session.expired"
    clock.jump_wall(30 * DAY_MS)
    assert await expirer.once() == 2
    states = {s.name: s.state for s in (await server.sessions.page(_all(), limit=9, after=None))[0]}
    assert states == {"idle": "expired", "aside": "expired", "busy": "active", "touched": "expired"}
    with pytest.raises(SessionExpired):
        await server.sessions.resume(idle.id, ME)
    with pytest.raises(SessionExpired):
        await server.sessions.patch(idle.id, Change(name="x"), ME)
    assert (await server.sessions.history(idle.id, ME, limit=9, before=None)).total == 0


def _all() -> Any:
    from overnight.ports.session_tables import SessionFilter

    return SessionFilter(owner=ME.owner)


async def test_a_session_goes_with_its_files(rig: Make) -> None:
    backend = fake(quiet)
    server = await rig(backend)
    session = await made(server)
    posted = await server.chat.post(session.id, "hello", "after_turn", ME)
    assert posted.run is not None
    await server.until(posted.run)
    folders = server.shop.folders
    kept = [folders.run(posted.run.id), folders.run(session.id), folders.homes(session.id)]
    assert all(folder.exists() for folder in kept)
    assert await server.sessions.delete(session.id, ME) == (posted.run.id,)
    assert not any(folder.exists() for folder in kept)
    for gone in (server.sessions.get(session.id, ME), server.sessions.delete(session.id, ME)):
        with pytest.raises(NotFound):
            await gone
    with pytest.raises(NotFound):
        await server.run(posted.run)


async def test_a_named_session_outlives_its_runs_with_its_homes(rig: Make) -> None:
    server = await rig(fake(quiet))
    session = await made(server)
    run = await server.until(await server.submit(mode="oneshot", session_id=session.id))
    await server.service.delete(run.id, ME)
    assert server.shop.folders.homes(session.id).exists()
    assert (await server.sessions.history(session.id, ME, limit=9, before=None)).total == 2


async def test_histories_come_in_pages(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await rig(fake(quiet))
    session = await made(server)
    for text in ("one", "two", "three"):
        posted = await server.chat.post(session.id, text, "after_turn", ME)
        assert posted.run is not None
        await server.until(posted.run)
    seen: list[str] = []
    before: int | None = None
    while True:
        found = await server.sessions.history(session.id, ME, limit=4, before=before)
        seen = [message.text for message in found.messages] + seen
        before = found.before
        assert found.total == 6
        if before is None:
            break
    assert seen == ["one", "done", "two", "done", "three", "done"]
    monkeypatch.setattr("overnight.engine.sessions.HISTORY_BYTES", 6)
    small = await server.sessions.history(session.id, ME, limit=4, before=None)
    assert ([message.text for message in small.messages], small.before) == (["done"], 6)


async def test_a_hundred_sessions_made_and_deleted_leave_nothing(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    before = await server.store.read(lambda tx: tx.installation.size_bytes())
    await _made_and_deleted(server, 5)
    tracemalloc.start()
    try:
        held, _ = tracemalloc.get_traced_memory()
        await _made_and_deleted(server, 100)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - held < 1_000_000
    finally:
        tracemalloc.stop()
    after = await server.store.read(lambda tx: tx.installation.size_bytes())
    assert after - before < 10_000_000
    assert (await server.sessions.page(_all(), limit=9, after=None))[0] == ()


async def _made_and_deleted(server: Rig, count: int) -> None:
    for n in range(count):
        session = await made(server, name=f"s{n}", variables={"x": "y" * 10_000})
        await server.sessions.delete(session.id, ME)


async def test_a_links_code_is_good_until_it_is_revoked_or_expires(rig: Make) -> None:
    clock = ManualClock()
    server = await rig(fake(), supervise=False, clock=clock)
    sharing = Sharing(uow=server.store, clock=clock)
    session = await made(server)
    opened = await sharing.by_link(session.id, 60, ME)
    assert opened.code is not None
    guest = await sharing.enter(opened.code, session_s=3600)
    assert guest.max_age_s == 60
    with pytest.raises(Unauthorized):
        await sharing.enter("x" + opened.code, session_s=3600)
    clock.jump_wall(60_000)
    with pytest.raises(Unauthorized):
        await sharing.enter(opened.code, session_s=3600)
    second = await sharing.by_link(session.id, None, ME)
    assert second.code is not None
    for _ in range(2):
        await sharing.revoke(session.id, second.share.id, ME)
    with pytest.raises(Unauthorized):
        await sharing.enter(second.code, session_s=3600)
    for wrong in (
        sharing.by_link(session.id, None, BOB),
        sharing.revoke(session.id, second.share.id, BOB),
        sharing.with_user(session.id, ME.owner, "viewer", None, ME),
    ):
        with pytest.raises(OvernightError):
            await wrong
    assert [one.id for one in await sharing.of_session(session.id, ME)] == []
