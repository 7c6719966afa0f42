"""Sessions: histories, lists, queues, shares, and what goes with one that is removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.domain.event import Draft
from overnight.domain.request import Principal
from overnight.domain.session import QueuedMessage, Session, SessionMessage, Share
from overnight.domain.states import Input, State
from overnight.domain.token import AccessToken, digest, new_secret
from overnight.errors import Conflict, NotFound, SessionBusy
from overnight.ids import MessageId, ShareId, new_message_id, new_share_id, new_token_id
from overnight.ports.notifier import stream_topic
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import Idempotency, RunFilter
from overnight.testing.conformance.stage import Stage

BOB = "usr_bob"


def _message(session: Session, text: str) -> QueuedMessage:
    return QueuedMessage(
        pk=0, id=new_message_id(1), session_pk=session.pk, text=text, by="anna", created_at=5
    )


def _share(session: Session, **values: object) -> Share:
    given = {"kind": "user", "user": BOB, "by": "anna", "created_at": 1} | values
    return Share(
        pk=0, id=new_share_id(1), session_pk=session.pk, session_id=session.id, owner=session.owner, **given  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.anyio
class SessionSuite:
    """The contracts of sessions, their queues and shares."""

    async def test_every_field_of_a_session_comes_back(self, stage: Stage) -> None:
        session = await stage.session()
        changed = replace(
            session, name="Ö", mode="chat", state="completed", made_for_run=False, phase="review", step=4, version=9,
            variables={"a": {"b": [1, None]}}, plan={"steps": []}, config={"model": "m"}, updated_at=77,
        )  # fmt: skip
        await stage.uow.write(lambda tx: tx.sessions.save(changed))
        assert await stage.uow.read(lambda tx: tx.sessions.get(session.id, "usr_local")) == changed
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.sessions.get(session.id, BOB))

    async def test_a_touch_writes_time_phase_and_step_alone(self, stage: Stage) -> None:
        session = await stage.session()
        at = session.updated_at + 5
        await stage.uow.write(lambda tx: tx.sessions.touch(session.pk, at, phase="execution", step=2))
        await stage.uow.write(lambda tx: tx.sessions.touch(session.pk, at - 3))
        found = await stage.uow.read(lambda tx: tx.sessions.lock(session.pk))
        assert found == replace(session, updated_at=at, phase="execution", step=2)
        with pytest.raises(NotFound):
            await stage.uow.write(lambda tx: tx.sessions.touch(999, 1))

    async def test_histories_are_read_from_their_end(self, stage: Stage) -> None:
        session = await stage.session()
        for n in range(7):
            message = SessionMessage(role="user", text=f"m{n + 1}", at=n)
            await stage.uow.write(lambda tx: tx.sessions.add_message(session.pk, message))
        assert await stage.uow.read(lambda tx: tx.sessions.message_count(session.pk)) == 7
        found = await stage.uow.read(lambda tx: tx.sessions.messages(session.pk, 3, 5))
        assert [message.text for message in found] == ["m2", "m3", "m4"]
        assert await stage.uow.read(lambda tx: tx.sessions.messages(session.pk, 3, 1)) == ()

    async def test_lists_have_ones_own_and_what_is_shared(self, stage: Stage) -> None:
        made = []
        for name in ("One", "two", "Three"):
            stage.clock.jump_wall(1)
            made.append(await stage.session(name=name))
        theirs = await stage.session(BOB, name="theirs", state="suspended", mode="chat")
        mine = SessionFilter(owner="usr_local")
        assert await stage.uow.read(lambda tx: tx.sessions.page(mine, limit=2)) == (made[2], made[1])
        after = (made[1].created_at, made[1].pk)
        assert await stage.uow.read(lambda tx: tx.sessions.page(mine, limit=2, after=after)) == (made[0],)
        folded = replace(mine, text="tWO")
        assert await stage.uow.read(lambda tx: tx.sessions.page(folded, limit=9)) == (made[1],)
        await stage.uow.write(lambda tx: tx.shares.add(_share(made[0])))
        gone = await stage.uow.write(lambda tx: tx.shares.add(_share(made[1])))
        await stage.uow.write(lambda tx: tx.shares.revoke(made[1].pk, gone.id, 5))
        await stage.uow.write(lambda tx: tx.shares.add(_share(made[2], expires_at=2)))
        bobs = SessionFilter(owner=BOB)
        assert await stage.uow.read(lambda tx: tx.sessions.page(bobs, limit=9)) == (theirs, made[0])
        for narrow in (replace(bobs, states=("suspended",)), replace(bobs, mode="chat")):
            assert await stage.uow.read(lambda tx: tx.sessions.page(narrow, limit=9)) == (theirs,)
        assert len(await stage.uow.read(lambda tx: tx.sessions.page(SessionFilter(), limit=9))) == 4

    async def test_sessions_with_live_runs_are_not_untouched(self, stage: Stage) -> None:
        busy, idle, fresh = [await stage.session(updated_at=at) for at in (1, 2, 9)]
        run = await stage.run(session=busy)
        assert await stage.uow.read(lambda tx: tx.sessions.live_runs(busy.pk)) == 1
        assert await stage.uow.read(lambda tx: tx.sessions.untouched("active", 9, 5)) == (idle.pk,)
        await stage.move(run, Input.CANCEL, ended_at=3)
        assert await stage.uow.read(lambda tx: tx.sessions.untouched("active", 9, 5)) == (busy.pk, idle.pk)
        assert await stage.uow.read(lambda tx: tx.sessions.untouched("active", 99, 1)) == (busy.pk,)
        assert await stage.uow.read(lambda tx: tx.sessions.untouched("suspended", 99, 5)) == ()
        assert fresh.state == "active"

    async def test_messages_wait_in_order_until_a_turn_takes_them(self, stage: Stage) -> None:
        session, other = await stage.session(), await stage.session()
        first = await stage.uow.write(lambda tx: tx.queue.add(_message(session, "a")))
        second = await stage.uow.write(lambda tx: tx.queue.add(_message(session, "b")))
        await stage.uow.write(lambda tx: tx.queue.add(_message(other, "c")))
        assert await stage.uow.read(lambda tx: tx.queue.queued(session.pk, 9)) == (first, second)
        assert await stage.uow.read(lambda tx: tx.queue.queued(session.pk, 1)) == (first,)
        run = await stage.run(session=session)
        taken = replace(first, state="sent", run_id=run.id, turn=3)
        await stage.uow.write(lambda tx: tx.queue.save(taken, 9))
        assert await stage.uow.read(lambda tx: tx.queue.queued(session.pk, 9)) == (second,)
        assert await stage.uow.read(lambda tx: tx.queue.get(session.pk, first.id)) == taken
        for session_pk, message_id in ((other.pk, first.id), (session.pk, MessageId("msg_none"))):
            with pytest.raises(NotFound):
                await stage.uow.read(lambda tx: tx.queue.get(session_pk, message_id))

    async def test_keys_of_what_was_made_with_a_session(self, stage: Stage) -> None:
        session = await stage.session()
        given = Idempotency(route="POST /sessions", key="k", body_hash="h")
        assert await stage.uow.read(lambda tx: tx.keys.find("usr_local", given.route, "k")) is None
        await stage.uow.write(lambda tx: tx.keys.add("usr_local", given, session.pk, session.id))
        assert await stage.uow.read(lambda tx: tx.keys.find("usr_local", given.route, "k")) == (
            given,
            session.id,
        )
        assert await stage.uow.read(lambda tx: tx.keys.find(BOB, given.route, "k")) is None
        with pytest.raises(Conflict):
            await stage.uow.write(lambda tx: tx.keys.add("usr_local", given, session.pk, "other"))

    async def test_shares_with_users_and_by_link(self, stage: Stage) -> None:
        session = await stage.session()
        viewer = await stage.uow.write(lambda tx: tx.shares.add(_share(session)))
        decider = await stage.uow.write(lambda tx: tx.shares.add(_share(session, role="decider")))
        assert await stage.uow.read(lambda tx: tx.shares.find(session.pk, BOB)) == decider
        assert await stage.uow.read(lambda tx: tx.shares.find(session.pk, "usr_eve")) is None
        found = await stage.uow.read(lambda tx: tx.shares.of_session(session.pk))
        assert [share.id for share in found] == [viewer.id, decider.id]
        assert found[0].revoked_at is not None
        assert await stage.uow.read(lambda tx: tx.shares.with_user(BOB)) == (session.pk,)
        assert await stage.uow.read(lambda tx: tx.shares.with_user("usr_eve")) == ()
        link = await stage.uow.write(
            lambda tx: tx.shares.add(_share(session, kind="link", user=None, digest="d" * 64, expires_at=9))
        )
        assert await stage.uow.read(lambda tx: tx.shares.by_digest("d" * 64)) == link
        assert await stage.uow.read(lambda tx: tx.shares.by_digest("e" * 64)) is None
        assert (link.session_id, link.owner, link.usable(8), link.usable(9)) == (
            session.id, "usr_local", True, False,
        )  # fmt: skip
        with pytest.raises(NotFound):
            await stage.uow.write(lambda tx: tx.shares.revoke(session.pk, ShareId("shr_none"), 5))

    async def test_revoking_a_link_revokes_whoever_came_in_by_it(self, stage: Stage) -> None:
        session = await stage.session()
        link = await stage.uow.write(
            lambda tx: tx.shares.add(_share(session, kind="link", user=None, digest="d" * 64))
        )
        token = await stage.uow.write(lambda tx: tx.tokens.add(_token("guest")))
        other = await stage.uow.write(lambda tx: tx.tokens.add(_token("other")))
        await stage.uow.write(lambda tx: tx.shares.bind(token.pk, link.pk))
        assert await stage.uow.read(lambda tx: tx.shares.of_token(token.pk)) == link
        assert await stage.uow.read(lambda tx: tx.shares.of_token(other.pk)) is None
        for at in (7, 9):
            revoked = await stage.uow.write(lambda tx: tx.shares.revoke(session.pk, link.id, at))
            assert revoked.revoked_at == 7
        found = await stage.uow.read(lambda tx: tx.tokens.by_digest(token.digest))
        kept = await stage.uow.read(lambda tx: tx.tokens.by_digest(other.digest))
        assert found is not None
        assert kept is not None
        assert (found.revoked_at, kept.revoked_at) == (7, None)

    async def test_a_session_goes_with_everything_that_hangs_on_it(self, stage: Stage) -> None:
        before = await stage.uow.read(_sizes)
        session = await stage.session()
        run, _, _ = await stage.held(session=session, spec={"labels": {"a": "b"}}, chain=("1:2", "1:1"))
        by = Principal(owner="usr_local", name="anna")
        given = Idempotency(route="r", key="k", body_hash="h")
        link = await stage.uow.write(
            lambda tx: tx.shares.add(_share(session, kind="link", user=None, digest="d" * 64))
        )
        token = await stage.uow.write(lambda tx: tx.tokens.add(_token("guest")))
        await stage.uow.write(lambda tx: tx.shares.bind(token.pk, link.pk))
        await stage.uow.write(lambda tx: tx.shares.add(_share(session)))
        await stage.uow.write(lambda tx: tx.requests.add(run.pk, "steer", {"text": "x"}, by, 1))
        await stage.uow.write(lambda tx: tx.queue.add(_message(session, "a")))
        await stage.uow.write(lambda tx: tx.keys.add("usr_local", given, session.pk, session.id))
        await stage.uow.write(
            lambda tx: tx.sessions.add_message(session.pk, SessionMessage(role="user", text="t", at=1))
        )
        await stage.uow.write(lambda tx: tx.sessions.save_backend_state(session.pk, "echo", {"a": 1}))
        await stage.uow.write(lambda tx: tx.events.append(session.pk, [Draft(type="session.created")], 1))
        with pytest.raises(SessionBusy):
            await stage.uow.write(lambda tx: tx.sessions.delete(session.pk))
        await stage.finish(run)
        topic = stage.notifier.subscribe(stream_topic(session.id))
        assert await stage.uow.write(lambda tx: tx.sessions.delete(session.pk)) == (run.id,)
        assert await topic.next(5)
        topic.close()
        for missing in (
            lambda tx: tx.sessions.get(session.id, None),
            lambda tx: tx.runs.get(run.id, None),
            lambda tx: tx.events.mark(run.pk),
            lambda tx: tx.events.mark(session.pk),
        ):
            with pytest.raises(NotFound):
                await stage.uow.read(missing)
        found = await stage.uow.read(lambda tx: tx.tokens.by_digest(token.digest))
        assert found is not None
        assert found.revoked_at is not None
        assert await stage.uow.read(_sizes) == before
        assert await stage.uow.read(lambda tx: tx.keys.find("usr_local", "r", "k")) is None

    async def test_the_last_run_takes_what_was_made_for_it_along(self, stage: Stage) -> None:
        session = await stage.session()
        run, _, _ = await stage.held(session=session)
        await stage.uow.write(lambda tx: tx.queue.add(_message(session, "a")))
        await stage.uow.write(lambda tx: tx.shares.add(_share(session)))
        await stage.finish(run)
        await stage.uow.write(lambda tx: tx.runs.delete(run.pk))
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.sessions.get(session.id, None))


def _sizes(tx: object) -> tuple[object, ...]:
    counts: dict[State, int] = tx.runs.counts(RunFilter())  # type: ignore[attr-defined]
    return (counts, len(tx.sessions.page(SessionFilter(), limit=100)))  # type: ignore[attr-defined]


def _token(name: str) -> AccessToken:
    return AccessToken(
        pk=0, id=new_token_id(0), owner="usr_local", name=name, kind="user", digest=digest(new_secret()), created_at=1
    )  # fmt: skip
