"""The client's methods about sessions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from overnight.client.calls import API, Calls, part
from overnight.client.follow import Plan
from overnight.client.shapes import Event, History, Message, Page, Posted, Run, Session


class SessionCalls(Calls):
    """One method a route."""

    async def create_session(self, body: Mapping[str, object], *, key: str | None = None) -> Session:
        """A new session (`name`, `mode`, `variables`, `config`); a lost answer makes no second one."""
        return cast("Session", await self._once("/sessions", body, key))

    async def sessions(
        self, *, limit: int = 50, cursor: str | None = None, **filters: str | Sequence[str] | None
    ) -> Page[Session]:
        """One page, newest first, with those that are shared with the caller. Filters: state, mode, text."""
        query = {"limit": limit, "cursor": cursor, **filters}
        return cast("Page[Session]", await self._json("GET", "/sessions", query=query))

    async def session(self, session_id: str) -> Session:
        """One session, in whatever state."""
        return cast("Session", await self._json("GET", _session(session_id)))

    async def patch_session(self, session_id: str, **body: object) -> Session:
        """Change name, variables or config; with `version`, only if that is still the present one (StaleVersion)."""
        return cast("Session", await self._json("PATCH", _session(session_id), json=body))

    async def suspend_session(self, session_id: str) -> Session:
        """Put an idle session aside. Idempotent."""
        return cast("Session", await self._json("POST", _session(session_id, "/suspend")))

    async def resume_session(self, session_id: str) -> Session:
        """Make a suspended or completed session active again. Idempotent."""
        return cast("Session", await self._json("POST", _session(session_id, "/resume")))

    async def delete_session(self, session_id: str) -> None:
        """Remove a session without a live run, with all that belongs to it. Raises SessionBusy."""
        await self._transport.request("DELETE", API + _session(session_id))

    async def history(self, session_id: str, *, limit: int = 100, before: int | None = None) -> History:
        """What was said, oldest first: the last messages, or those before message number `before`."""
        query = {"limit": limit, "before": before}
        return cast("History", await self._json("GET", _session(session_id, "/history"), query=query))

    async def session_runs(self, session_id: str, *, limit: int = 50, cursor: str | None = None) -> Page[Run]:
        """The runs of a session, newest first."""
        query = {"limit": limit, "cursor": cursor}
        return cast("Page[Run]", await self._json("GET", _session(session_id, "/runs"), query=query))

    async def post_message(
        self, session_id: str, text: str, *, when: str = "after_turn", key: str | None = None
    ) -> Posted:
        """Say something. Once this answers it is stored, and gets its turn exactly once, whatever becomes of us."""
        body = {"text": text, "when": when}
        return cast("Posted", await self._once(_session(session_id, "/messages"), body, key))

    async def messages(self, session_id: str) -> list[Message]:
        """The messages that wait for their turn, oldest first."""
        return cast("Page[Message]", await self._json("GET", _session(session_id, "/messages")))["items"]

    async def remove_message(self, session_id: str, message_id: str) -> None:
        """Take a waiting message back. Idempotent. Raises MessageTaken once a turn has begun with it."""
        await self._transport.request("DELETE", f"{API}{_session(session_id)}/messages/{part(message_id)}")

    async def modes(self) -> list[dict[str, Any]]:
        """What the mode of a run or a session may be."""
        return cast("list[dict[str, Any]]", (await self._json("GET", "/sessions/modes"))["items"])

    async def share_session(self, session_id: str, **body: object) -> dict[str, Any]:
        """Open a session: to `user` in a `role`, or `link=True`; `expires_s`. The `code` of a link comes this once."""
        return await self._json("POST", _session(session_id, "/share"), json=body)

    async def shares(self, session_id: str) -> list[dict[str, Any]]:
        """The shares of a session that can be used now."""
        return cast(
            "list[dict[str, Any]]", (await self._json("GET", _session(session_id, "/share")))["items"]
        )

    async def revoke_share(self, session_id: str, share_id: str) -> None:
        """End a share, and every login by its link. Idempotent."""
        await self._transport.request("DELETE", f"{API}{_session(session_id)}/share/{part(share_id)}")

    async def follow_session(
        self,
        session_id: str,
        after: int = 0,
        *,
        patience_s: float | None = None,
        lost: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[Event]:
        """Every event of the session itself after `after`, each once and in order; ends when it is deleted.

        What happens inside a run is in the run's own stream. As for `Client.follow` otherwise.
        """
        path = f"{API}{_session(session_id)}/stream"
        plan = Plan(path=path, after=after, patience_s=patience_s, lost=lost)
        async with aclosing(self._followed(plan)) as items:
            async for item in items:
                yield cast("Event", item)


def _session(session_id: str, rest: str = "") -> str:
    return f"/sessions/{part(session_id)}{rest}"
