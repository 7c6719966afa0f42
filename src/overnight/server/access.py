"""Who may do what with things that are not their own: shared sessions, their runs and their approvals.

Asked once for each request, before any route. A route then looks things up by the owner that it is told, so a thing
that is not shared stays unknown to others.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from overnight.clock import Clock
from overnight.domain.session import Role, Share
from overnight.errors import Forbidden, NotFound
from overnight.ids import ApprovalId, RunId, SessionId
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.server.auth import Caller

CACHE_S: Final = 10.0
"""A share that another process has made opens at the latest after this."""
MOST_PLACES: Final = 4096
MOST_USERS: Final = 1024
_NAMED: Final = re.compile(
    r"/api/v1/(?P<kind>runs|sessions|approvals)/(?P<id>(?:run|ses|apr)_[0-9a-z]{26})(?P<rest>/.*)?"
)
_RESPONSE: Final = re.compile(r"/api/v1/openai/responses/(?P<id>run_[0-9a-z]{26})")
"""A run by its other name."""
_LISTS: Final = {
    "/api/v1/runs": "session",
    "/api/v1/runs/counts": "session",
    "/api/v1/approvals": "session_id",
    "/api/v1/connections": "session_id",
}
"""Lists that can be narrowed to one session, and by which parameter."""
_RANK: Final[dict[Role, int]] = {"viewer": 1, "operator": 2, "decider": 3}
_READING: Final = frozenset({"GET", "HEAD"})
_OWNERS: Final = re.compile(r"/share(?:/.*)?")
"""Beneath a session: who else it is shared with is the owner's to know."""
_OPERATING: Final = {
    "runs": re.compile(r"POST /control"),
    "sessions": re.compile(r"POST /(?:messages|suspend|resume)|DELETE /messages/[^/]+"),
}
_DECIDING: Final = {"approvals": re.compile(r"POST /resolve")}


@dataclass(frozen=True, slots=True)
class _Place:
    """What an id stands for. It never changes, and no id is ever given out again."""

    owner: str
    session_pk: int
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class _Asked:
    """The thing that a request names, and what is done with it."""

    kind: str
    id: str
    method: str
    rest: str

    @property
    def role(self) -> Role | None:
        """The least role that may do this; None: the owner alone."""
        what = f"{self.method} {self.rest}"
        if self.method in _READING:
            return None if self.kind == "sessions" and _OWNERS.fullmatch(self.rest) else "viewer"
        if (pattern := _OPERATING.get(self.kind)) and pattern.fullmatch(what):
            return "operator"
        if (pattern := _DECIDING.get(self.kind)) and pattern.fullmatch(what):
            return "decider"
        return None


class Access:
    """Lets callers act on what is shared with them. Nothing here is kept about what is not."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._shared: OrderedDict[str, tuple[bool, float]] = OrderedDict()

    async def admitted(self, caller: Caller, method: str, path: str, query: bytes) -> Caller:
        """The caller as the routes see it: on a shared session it acts for the owner, under its own name.

        Raises Forbidden for somebody who may see the thing but not do this, and for anything beyond what a link shows.
        """
        asked = _asked(method, path, query)
        if caller.guest and caller.share is not None:
            return await self._as_guest(caller, caller.share, asked)
        if asked is None or caller.principal.kind != "user" or not await self._has_any(caller.user):
            return caller
        place = await self._place(asked)
        if place is None or place.owner == caller.user:
            return caller
        share = await self._uow.read(lambda tx: tx.shares.find(place.session_pk, caller.user))
        if share is None or not share.usable(self._clock.wall_ms()):
            return caller
        _check_role(asked, share)
        return caller.acting(share)

    def forget(self, user: str | None) -> None:
        """Something was shared with that user: look again."""
        if user is not None:
            self._shared.pop(user, None)

    async def _as_guest(self, caller: Caller, share: Share, asked: _Asked | None) -> Caller:
        if asked is None or asked.kind == "approvals" or asked.method not in _READING:
            raise Forbidden("a link shows one session and its runs, and nothing else")
        place = await self._place(asked)
        if place is None or place.session_pk != share.session_pk:
            raise NotFound(f"no such thing as {asked.id}")
        _check_role(asked, share)
        return caller.acting(share)

    async def _has_any(self, user: str) -> bool:
        """Whether anything is shared with that user: most have nothing, and pay nothing for it."""
        known = self._shared.get(user)
        now = self._clock.boot()
        if known is None or known[1] <= now:
            found = await self._uow.read(lambda tx: tx.shares.with_user(user))
            known = self._shared[user] = bool(found), now + CACHE_S
            self._shared.move_to_end(user)
            while len(self._shared) > MOST_USERS:
                self._shared.popitem(last=False)
        return known[0]

    async def _place(self, asked: _Asked) -> _Place | None:
        place = self._places.get(asked.id)
        if place is None:
            try:
                place = await self._uow.read(lambda tx: _look_up(tx, asked.id))
            except NotFound:
                return None
            self._places[asked.id] = place
            while len(self._places) > MOST_PLACES:
                self._places.popitem(last=False)
        return place


def _asked(method: str, path: str, query: bytes) -> _Asked | None:
    match = _NAMED.fullmatch(path)
    if match is not None:
        return _Asked(match["kind"], match["id"], method, match["rest"] or "")
    match = _RESPONSE.fullmatch(path)
    if match is not None:
        return _Asked("runs", match["id"], method, "")
    name = _LISTS.get(path)
    if name is None or method not in _READING:
        return None
    given = [value for key, value in parse_qsl(query.decode("latin-1")) if key == name]
    return (
        _Asked("sessions", given[0], method, "") if len(given) == 1 and _SESSION.fullmatch(given[0]) else None
    )


_SESSION: Final = re.compile(r"ses_[0-9a-z]{26}")


def _look_up(tx: Transaction, id: str) -> _Place:
    if id.startswith("ses_"):
        session = tx.sessions.get(SessionId(id), None)
        return _Place(session.owner, session.pk, session.id)
    if id.startswith("apr_"):
        approval = tx.approvals.get(ApprovalId(id), None)
        return _Place(approval.owner, approval.session_pk, approval.session_id)
    run = tx.runs.get(RunId(id), None)
    return _Place(run.owner, run.session_pk, run.session_id)


def _check_role(asked: _Asked, share: Share) -> None:
    needed = asked.role
    if needed is None:
        raise Forbidden("only the owner of the session may do this")
    if _RANK[share.role] < _RANK[needed]:
        raise Forbidden(
            f"this needs the role {needed}; the session is shared with you as {share.role}",
            mend="ask its owner",
        )
