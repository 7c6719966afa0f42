"""The agent protocol on the server: sessions over sockets, with what becomes of them and of what works in them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from overnight.client.socket.link import Handler, Link
from overnight.client.socket.terms import Resumer
from overnight.domain.event import Recorded
from overnight.domain.run import Run
from overnight.domain.session import Session
from overnight.domain.states import FINAL, State
from overnight.domain.token import TokenKind
from overnight.engine.approvals import Resolve
from overnight.engine.channel import Batch
from overnight.engine.control import Control
from overnight.engine.follow import Reader
from overnight.engine.sessions import Draw
from overnight.errors import Forbidden, NotAvailable, NotFound, OvernightError
from overnight.ids import ApprovalId, RunId, SessionId, check_id
from overnight.ports.approval_tables import ApprovalFilter
from overnight.ports.tables import RunFilter, StreamMark
from overnight.ports.unit_of_work import Transaction
from overnight.server.auth import Caller
from overnight.server.context import Parts
from overnight.server.socket.handlers import Socket
from overnight.server.socket.logs import OVER, Subscriptions, Words, payloads, stream_id
from overnight.server.socket.runs import admitted, check_cursor
from overnight.wire.socket.envelope import CONN, Envelope
from overnight.wire.v1.approvals import approval_resource
from overnight.wire.v1.runs import run_summary, time
from overnight.wire.v1.sessions import message_resource, session_resource

WORDS: Final = Words(events="agent.event", fragment=None, end="session.stopped")
LIVE: Final = tuple(state for state in State if state not in FINAL)
_LATER: Final = frozenset({"goal", "clear_saturation"})
_STATUS: Final[Mapping[State, str]] = {State.WAITING: "waiting_for_person", State.BLOCKED: "blocked"}


class AgentSessions:
    """The session messages of one server."""

    kinds: frozenset[TokenKind] = frozenset({"user"})

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._desks: dict[Socket, _Desk] = {}

    def handlers(self, socket: Socket) -> Mapping[str, Handler]:
        """See `Spoken`."""
        desk = self._desks[socket] = _Desk(self._parts, socket)
        return {
            "session.open": desk.open,
            "session.resume": desk.resume,
            "session.send": desk.send,
            "session.state": desk.state,
            "session.stop": desk.stop,
            "agent.control": desk.control,
            "approval.list": desk.approvals,
            "approval.resolve": desk.resolve,
        }

    def resumers(self, socket: Socket) -> Mapping[str, Resumer]:
        """See `Spoken`."""
        return {"session": self._desks[socket].go_on}

    async def left(self, socket: Socket) -> None:
        """See `Spoken`: sessions and what works in them go on."""
        desk = self._desks.pop(socket, None)
        if desk is not None:
            await desk.close()


class _Desk:
    """What is done for one connection."""

    def __init__(self, parts: Parts, socket: Socket) -> None:
        self._parts = parts
        self._services = parts.services
        self._socket = socket
        self._followed = Subscriptions(socket, parts.authenticator)
        self._runs: dict[str, _LiveRuns] = {}

    async def open(self, link: Link, envelope: Envelope) -> None:
        body, caller = envelope.body, self._socket.caller
        if caller.guest:
            raise Forbidden("a link shows one session, and makes none")
        asked = Draw(name=body.name, mode=body.mode, variables=body.variables, config=body.config)
        session, _ = await self._services.sessions.create(asked, caller.principal)
        told = await self._opened(session)
        await link.send(CONN, "session.opened", told, reply_to=envelope.id)

    async def resume(self, link: Link, envelope: Envelope) -> None:
        caller, session, mark = await self._found(envelope.scope)
        check_cursor(envelope.body.after, mark)
        reader = self._services.follower.events(session, envelope.body.after)
        told = await self._opened(session)
        await link.send(envelope.scope, "session.opened", told, reply_to=envelope.id)
        await self._begin(envelope.scope, session, reader, caller)

    async def go_on(self, link: Link, scope: str, cursor: int) -> None:  # noqa: ARG002 - it is the socket's own
        caller, session, mark = await self._found(scope)
        check_cursor(cursor, mark)
        await self._begin(scope, session, self._services.follower.events(session, cursor), caller)

    async def send(self, link: Link, envelope: Envelope) -> None:
        session_id = _session_of(envelope.scope)
        caller = await self._may("POST", f"/api/v1/sessions/{session_id}/messages")
        body = envelope.body
        posted = await self._services.chat.post(session_id, body.text, body.when, caller.principal)
        told = {
            "message": message_resource(posted.message), "run": run_summary(posted.run) if posted.run else None,
            "steer_how": posted.steer_how,
        }  # fmt: skip
        await link.send(envelope.scope, "session.sent", told, reply_to=envelope.id)

    async def state(self, link: Link, envelope: Envelope) -> None:
        await link.send(
            envelope.scope, "agent.state", await self._state(envelope.scope), reply_to=envelope.id
        )

    async def stop(self, link: Link, envelope: Envelope) -> None:
        session_id = _session_of(envelope.scope)
        caller = await self._may("POST", f"/api/v1/sessions/{session_id}/suspend")
        for run in await self._live(session_id, caller):
            await self._services.runs.control(
                run.id, Control(action="cancel", reason=envelope.body.reason or None), caller.principal
            )
        with contextlib.suppress(OvernightError):  # it is suspended already, or while its run still ends
            await self._services.sessions.suspend(session_id, caller.principal)
        await self._forget(envelope.scope)
        await link.end(envelope.scope, "session.stopped", {"reason": envelope.body.reason})

    async def control(self, link: Link, envelope: Envelope) -> None:
        body, scope = envelope.body, envelope.scope
        if body.action in _LATER:
            raise NotAvailable(f"{body.action} is not there before plans are")
        if body.action == "state":
            await link.send(scope, "agent.state", await self._state(scope), reply_to=envelope.id)
        elif body.action == "heartbeat":
            await link.send(scope, "agent.heartbeat", await self._heartbeat(scope), reply_to=envelope.id)
        else:
            await self._control(scope, body)

    async def approvals(self, link: Link, envelope: Envelope) -> None:
        session_id = _session_of(envelope.scope)
        caller = await self._may("GET", f"/api/v1/sessions/{session_id}")
        wanted = ApprovalFilter(owner=caller.principal.owner, session_id=session_id, states=("pending",))
        found = await self._services.uow.read(lambda tx: tx.approvals.page(wanted, limit=200))
        told = {"approvals": [approval_resource(one) for one in found]}
        await link.send(envelope.scope, "approvals", told, reply_to=envelope.id)

    async def resolve(self, link: Link, envelope: Envelope) -> None:
        body = envelope.body
        id = ApprovalId(check_id("apr", body.approval))
        caller = await self._may("POST", f"/api/v1/approvals/{id}/resolve")
        asked = Resolve(option=body.option, digest=body.digest, feedback=body.feedback, changes=body.changes)
        decided = await self._services.approvals.resolve(id, asked, caller.principal)
        told = {"approval": approval_resource(decided)}
        await link.send(envelope.scope, "approval.resolved", told, reply_to=envelope.id)

    async def close(self) -> None:
        await self._followed.close()
        for scope in tuple(self._runs):
            await self._forget(scope)

    # Following.

    async def _begin(self, scope: str, session: Session, reader: Reader[Recorded], caller: Caller) -> None:
        await self._forget(scope)
        runs = self._runs[scope] = _LiveRuns(self._parts, self._socket.link, scope)
        for run in await self._live(session.id, caller):
            runs.follow(run)
        self._followed.begin(scope, reader, caller, WORDS, fragments=False, seen=runs.seen)

    async def _forget(self, scope: str) -> None:
        self._followed.end(scope)
        runs = self._runs.pop(scope, None)
        if runs is not None:
            await runs.close()

    # Looking.

    async def _found(self, scope: str) -> tuple[Caller, Session, StreamMark]:
        session_id = _session_of(scope)
        caller = await self._may("GET", f"/api/v1/sessions/{session_id}/stream")

        def query(tx: Transaction) -> tuple[Session, StreamMark]:
            session = tx.sessions.get(session_id, caller.principal.owner)
            return session, tx.events.mark(session.pk)

        return caller, *await self._services.uow.read(query)

    async def _may(self, method: str, path: str) -> Caller:
        return await admitted(self._parts, self._socket.caller, path, method)

    async def _live(self, session_id: SessionId, caller: Caller) -> tuple[Run, ...]:
        wanted = RunFilter(owner=caller.principal.owner, session_id=session_id, states=LIVE)
        found = await self._services.uow.read(lambda tx: tx.runs.page(wanted, limit=10))
        return found.runs

    async def _working(self, session_id: SessionId, caller: Caller) -> Run | None:
        """The run that is under way, or else the next one."""
        return next(reversed(await self._live(session_id, caller)), None)

    async def _opened(self, session: Session) -> dict[str, Any]:
        mark = await self._services.uow.read(lambda tx: tx.events.mark(session.pk))
        mode = self._services.modes.get(session.mode)
        able = {"resume": mode.supports_resume, "approvals": mode.supports_approvals}
        return {"session": self._shown(session), "cursor": mark.last, "capabilities": able}

    def _shown(self, session: Session) -> dict[str, Any]:
        return session_resource(session, expires_at=self._services.session_policy.expires_at(session))

    async def _state(self, scope: str) -> dict[str, Any]:
        caller, session, _ = await self._found(scope)
        run = await self._working(session.id, caller)
        queued = await self._services.chat.queued(session.id, caller.principal)
        return {
            "session": self._shown(session),
            "run": run_summary(run) if run else None,
            "waiting": len(queued),
        }

    async def _heartbeat(self, scope: str) -> dict[str, Any]:
        caller, session, _ = await self._found(scope)
        run = await self._working(session.id, caller)
        if run is None:
            return {"status": "watching"}
        return {
            "status": _STATUS.get(run.state, "working"), "run": run.id, "last_event_at": time(run.last_event_at)
        }  # fmt: skip

    async def _control(self, scope: str, body: Any) -> None:
        caller = await self._may("GET", f"/api/v1/sessions/{_session_of(scope)}")
        run = await self._working(_session_of(scope), caller)
        if run is None:
            raise NotFound("nothing works in this session now")
        caller = await self._may("POST", f"/api/v1/runs/{run.id}/control")
        asked = Control(action=body.action, reason=body.reason, text=body.text, when=body.when)
        await self._services.runs.control(run.id, asked, caller.principal)


class _LiveRuns:
    """The runs at work in one followed session: their facts come into the session's scope as progress."""

    def __init__(self, parts: Parts, link: Link, scope: str) -> None:
        self._parts = parts
        self._link = link
        self._scope = scope
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, run: Run) -> None:
        """Tell all of it from its beginning; once for each run."""
        if run.id not in self._tasks:
            reader = self._parts.services.follower.events(run, 0)
            self._tasks[run.id] = asyncio.create_task(
                self._tell(run.id, reader), name=f"progress of {run.id}"
            )

    async def seen(self, event: Recorded) -> None:
        """A fact of the session's log is about to be told."""
        if event.type == "run.linked":
            run = await self._run(orjson.loads(event.body)["data"]["run_id"])
            if run is not None and not run.final:
                self.follow(run)
        elif event.type == "run.settled":
            run = await self._run(orjson.loads(event.body)["data"]["run_id"])
            telling = self._tasks.get(run.id) if run is not None else None
            if telling is not None:
                await asyncio.wait({telling})  # all of it comes before its result
            if run is not None:
                await self._link.send(self._scope, "agent.result", {"run": run_summary(run)})

    async def close(self) -> None:
        """Tell nothing more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, run_id: str) -> Run | None:
        try:
            return await self._parts.services.uow.read(lambda tx: tx.runs.get(RunId(run_id), None))
        except NotFound:
            return None

    async def _tell(self, run_id: str, reader: Reader[Recorded]) -> None:
        try:
            while (entries := await reader.read()) is not None:
                for entry in entries:
                    if isinstance(entry, Batch):
                        await self._told(run_id, entry)
        except OVER:
            pass
        except OvernightError as error:
            with contextlib.suppress(*OVER):
                self._link.fail(self._scope, error)
        finally:
            reader.close()

    async def _told(self, run_id: str, batch: Batch[Recorded]) -> None:
        head = b'{"run":"%b","position":' % run_id.encode()
        for payload in payloads(batch):
            # The same bytes as for those who follow the run itself, under the name of the run.
            await self._link.send(self._scope, "agent.progress", head + payload.removeprefix(b'{"cursor":'))
        plans = [orjson.loads(event.body)["data"] for event in batch.items if event.type == "plan.updated"]
        if plans:
            entries = plans[-1].get("entries", [])
            await self._link.send(self._scope, "agent.plan", {"run": run_id, "entries": entries})


def _session_of(scope: str) -> SessionId:
    return SessionId(check_id("ses", stream_id(scope, "session")))
