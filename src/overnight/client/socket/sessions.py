"""The agent protocol's client side: any number of sessions on one link, each with a queue, a result and an error.

What comes is sorted by session, and nothing waits for a reader of another one. A session goes on over its stop, over
cuts of the link and over other clients: its log's cursor is all that has to be remembered, and is remembered here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from overnight.client.socket.inbox import Inbox
from overnight.client.socket.link import Link
from overnight.errors import Disconnected, NotFound, OvernightError
from overnight.wire.socket.envelope import CONN, Envelope

Action = Literal["pause", "resume", "cancel", "steer", "state", "heartbeat", "goal", "clear_saturation"]


@dataclass(slots=True)
class _Known:
    """What is known of one session."""

    inbox: Inbox
    cursor: int = 0
    """Number of the last entry of the session's log that was read."""
    result: Mapping[str, Any] | None = None
    error: OvernightError | None = None
    stopped: bool = False


class AgentSessions:
    """Sessions over one link. A session is known from `open` or `resume` until `remove_session_state`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[str, _Known] = {}

    @property
    def sessions(self) -> tuple[str, ...]:
        """Those that have not been removed."""
        return tuple(self._known)

    async def open(self, **wanted: Any) -> str:
        """Make a session (`name`, `mode`, `variables`, `config`) and hear it; its id. Raises Nacked."""
        reply = await self._link.request(CONN, "session.open", wanted)
        id = str(reply.payload["session"]["id"])
        await self.resume(id)
        return id

    async def resume(self, session: str, *, after: int | None = None) -> Mapping[str, Any]:
        """Hear a session from behind `after`: from where reading has stopped here, or its beginning. Raises Nacked."""
        scope, known = f"session:{session}", self._known.get(session)
        cursor = after if after is not None else known.cursor if known is not None else 0
        reply = await self._link.request(scope, "session.resume", {"after": cursor})
        result = known.result if known is not None else None
        self._known[session] = _Known(self._link.inbox(scope), cursor=cursor, result=result)
        return reply.payload

    async def send(self, session: str, text: str, *, now: bool = False) -> Mapping[str, Any]:
        """Say something: a turn of its own, or into the one under way (`now`); message and run. Raises Nacked."""
        when = "now" if now else "after_turn"
        return (
            await self._link.request(f"session:{session}", "session.send", {"text": text, "when": when})
        ).payload

    async def control(self, session: str, action: Action, **more: Any) -> Mapping[str, Any]:
        """Steer what works there (`text`, `reason`, `when`), or ask for its state or heartbeat. Raises Nacked."""
        return (
            await self._link.request(f"session:{session}", "agent.control", {"action": action, **more})
        ).payload

    async def state(self, session: str) -> Mapping[str, Any]:
        """The session, what works in it, and how many messages wait. Raises Nacked."""
        return (await self._link.request(f"session:{session}", "session.state", {})).payload

    async def stop(self, session: str, reason: str = "") -> None:
        """Suspend it and cancel what works there; what was told until then can still be read. Idempotent."""
        await self._link.request(f"session:{session}", "session.stop", {"reason": reason})

    async def events(self, session: str) -> AsyncIterator[Envelope]:
        """What comes in the session, `session.stopped` the last. One reader at a time.

        Raises what has ended the link, or the session's failure; then `resume` goes on behind what was read.
        """
        known = self._of(session)
        try:
            async for envelope in known.inbox:
                self._note(known, envelope)
                yield envelope
                if known.error is not None:
                    raise known.error
        except OvernightError as error:
            known.error = error
            raise

    async def wait_result(self, session: str) -> Mapping[str, Any]:
        """Read on until a run of the session has ended, and give it. Raises as `events`, Disconnected after a stop."""
        async for envelope in self.events(session):
            if envelope.type == "agent.result":
                return dict(envelope.payload["run"])
        raise Disconnected("the session was stopped before a run had ended")

    def last_result(self, session: str) -> Mapping[str, Any] | None:
        """The run of the session that ended last, as far as that was read."""
        return self._of(session).result

    def last_error(self, session: str) -> OvernightError | None:
        """What has ended reading the session, if anything has."""
        return self._of(session).error

    def is_stopped(self, session: str) -> bool:
        """Whether its end was read."""
        return self._of(session).stopped

    def remove_session_state(self, session: str) -> None:
        """Forget it; what still comes is dropped and does not bring it back. Idempotent."""
        known = self._known.pop(session, None)
        if known is not None:
            known.inbox.close()

    def _note(self, known: _Known, envelope: Envelope) -> None:
        payload = envelope.payload
        match envelope.type:
            case "agent.event":
                known.cursor = max(known.cursor, int(payload["cursor"]))
            case "agent.result":
                known.result = dict(payload["run"])
            case "session.stopped":
                known.stopped = True
                if payload.get("code"):
                    known.error = OvernightError(str(payload.get("message") or payload["code"]))
                    known.error.code = str(payload["code"])  # type: ignore[misc]
            case _:
                pass

    def _of(self, session: str) -> _Known:
        try:
            return self._known[session]
        except KeyError:
            raise NotFound(f"the session {session} is not known here") from None
