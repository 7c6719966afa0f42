"""Opening a session to others: to a named user with a role, or read-only to whoever has a link."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from overnight.clock import Clock
from overnight.domain.event import Draft
from overnight.domain.request import Principal
from overnight.domain.session import Role, Session, Share
from overnight.domain.token import AccessToken, digest, new_secret
from overnight.errors import InvalidInput, TooManyRequests, Unauthorized
from overnight.ids import SessionId, ShareId, new_share_id, new_token_id
from overnight.ports.unit_of_work import Transaction, UnitOfWork

MAX_SHARES: Final = 200
"""Usable shares of one session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A new share; `code` is a link's, shown this once."""

    share: Share
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Who came in by a link: the secret of a token that is good for that session alone, and for how many seconds."""

    secret: str
    max_age_s: int


class Sharing:
    """Shares of sessions."""

    def __init__(self, *, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock

    async def with_user(
        self, session_id: SessionId, user: str, role: Role, expires_s: float | None, by: Principal
    ) -> Opened:
        """Open it to `user`, whose earlier share ends. Raises NotFound, InvalidInput, TooManyRequests."""
        if user == by.owner:
            raise InvalidInput("the session is this user's own")
        share = await self._uow.write(
            lambda tx: self._add(tx, session_id, by, expires_s, user=user, role=role, code=None)
        )
        return Opened(share=share)

    async def by_link(self, session_id: SessionId, expires_s: float | None, by: Principal) -> Opened:
        """Open it, read-only, to whoever has the code. Raises NotFound, TooManyRequests."""
        code = secrets.token_urlsafe(32)
        share = await self._uow.write(
            lambda tx: self._add(tx, session_id, by, expires_s, user=None, role="viewer", code=code)
        )
        return Opened(share=share, code=code)

    async def of_session(self, session_id: SessionId, by: Principal) -> tuple[Share, ...]:
        """Those that can be used now, oldest first. Raises NotFound."""

        def query(tx: Transaction) -> tuple[Share, ...]:
            return _usable(tx, tx.sessions.get(session_id, by.owner), self._clock.wall_ms())

        return await self._uow.read(query)

    async def revoke(self, session_id: SessionId, share_id: ShareId, by: Principal) -> Share:
        """End a share, and every login by its link. Idempotent. Raises NotFound."""

        def unit(tx: Transaction) -> Share:
            session = tx.sessions.lock(tx.sessions.get(session_id, by.owner).pk)
            now = self._clock.wall_ms()
            before = {share.id: share.revoked_at for share in tx.shares.of_session(session.pk)}
            share = tx.shares.revoke(session.pk, share_id, now)
            if before.get(share.id) is None:
                data = {"share_id": share.id, "by": by.name}
                tx.events.append(session.pk, [Draft(type="session.unshared", data=data)], now)
            return share

        return await self._uow.write(unit)

    async def enter(self, code: str, *, session_s: int) -> Guest:
        """A token for whoever has a link's code. Raises Unauthorized."""

        def unit(tx: Transaction) -> Guest:
            now = self._clock.wall_ms()
            share = tx.shares.by_digest(digest(code))
            if share is None or share.kind != "link" or not share.usable(now):
                raise Unauthorized("the link is not valid (any more)", mend="ask for a new one")
            until = now + session_s * 1000
            until = until if share.expires_at is None else min(until, share.expires_at)
            secret = new_secret()
            # It is the share's own and nobody's: whatever is not looked up by the share, it owns nothing.
            token = tx.tokens.add(
                AccessToken(
                    pk=0, id=new_token_id(now), owner=share.id, name=f"link-{secrets.token_hex(4)}", kind="user",
                    digest=digest(secret), created_at=now, expires_at=until,
                )
            )  # fmt: skip
            tx.shares.bind(token.pk, share.pk)
            return Guest(secret=secret, max_age_s=max(1, (until - now) // 1000))

        return await self._uow.write(unit)

    def _add(
        self, tx: Transaction, session_id: SessionId, by: Principal, expires_s: float | None, *,
        user: str | None, role: Role, code: str | None,
    ) -> Share:  # fmt: skip
        session = tx.sessions.lock(tx.sessions.get(session_id, by.owner).pk)
        now = self._clock.wall_ms()
        if len(_usable(tx, session, now)) >= MAX_SHARES:
            raise TooManyRequests(f"{session.id} is shared {MAX_SHARES} times", mend="revoke some")
        share = tx.shares.add(
            Share(
                pk=0, id=new_share_id(now), session_pk=session.pk, session_id=session.id, owner=session.owner,
                kind="link" if user is None else "user", user=user, role=role,
                digest=None if code is None else digest(code), by=by.name, created_at=now,
                expires_at=None if expires_s is None else now + round(expires_s * 1000),
            )
        )  # fmt: skip
        data = {"share_id": share.id, "kind": share.kind, "user": user, "role": role, "by": by.name}
        tx.events.append(session.pk, [Draft(type="session.shared", data=data)], now)
        return share


def _usable(tx: Transaction, session: Session, now_ms: int) -> tuple[Share, ...]:
    return tuple(share for share in tx.shares.of_session(session.pk) if share.usable(now_ms))
