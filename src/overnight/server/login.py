"""Logging in from a browser: a one-time code becomes a cookie."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Final

import orjson

from overnight.clock import Clock
from overnight.domain.request import LOCAL_OWNER
from overnight.domain.token import PREFIX, AccessToken, digest, new_secret
from overnight.engine.sharing import Sharing
from overnight.errors import Forbidden, TooManyRequests, Unauthorized
from overnight.ids import new_token_id
from overnight.ports.unit_of_work import Transaction, UnitOfWork
from overnight.server.auth import Authenticator

CODE_KEY: Final = "login_code"
CODE_HOURS: Final = 24
COOKIE: Final = "overnight_session"
_ATTEMPTS: Final = 5
_REFILL_S: Final = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser's login: the secret for its cookie, and for how many seconds it is good."""

    secret: str
    max_age_s: int


async def issue_code(uow: UnitOfWork, clock: Clock) -> str:
    """A fresh one-time code, good for a day; an earlier one that was not used is worthless from now on."""
    code = secrets.token_urlsafe(16)
    expires_at = clock.wall_ms() + CODE_HOURS * 3_600_000
    stored = orjson.dumps({"digest": digest(code), "expires_at": expires_at}).decode()
    await uow.write(lambda tx: tx.installation.put(CODE_KEY, stored))
    return code


class Logins:
    """Turns codes (and users' tokens) into sessions; a handful of attempts at once, then one every few seconds."""

    def __init__(
        self,
        uow: UnitOfWork,
        clock: Clock,
        authenticator: Authenticator,
        sharing: Sharing,
        *,
        session_days: float,
    ) -> None:
        self._uow = uow
        self._clock = clock
        self._authenticator = authenticator
        self._sharing = sharing
        self._session_s = round(session_days * 86_400)
        self._left = float(_ATTEMPTS)
        self._counted_at = clock.boot()

    async def login(self, code: str) -> Session:
        """A session for the owner of the code. Raises TooManyRequests, Unauthorized, Forbidden (a machine's token)."""
        self._count_attempt()
        if code.startswith(PREFIX):
            principal = (await self._authenticator.caller(code)).principal
            if principal.kind != "user" or principal.owner.startswith("shr_"):
                raise Forbidden("only a user's token can log in")
            return await self._uow.write(lambda tx: self._session(tx, principal.owner))
        return await self._uow.write(lambda tx: self._redeem(tx, code))

    async def enter(self, code: str) -> Session:
        """A session for whoever has a link's code, good for what is shared alone.

        Raises TooManyRequests, Unauthorized.
        """
        self._count_attempt()
        guest = await self._sharing.enter(code, session_s=self._session_s)
        return Session(secret=guest.secret, max_age_s=guest.max_age_s)

    def _count_attempt(self) -> None:
        now = self._clock.boot()
        self._left = min(float(_ATTEMPTS), self._left + (now - self._counted_at) / _REFILL_S)
        self._counted_at = now
        if self._left < 1:
            raise TooManyRequests("too many attempts to log in", extra={"retry_after_s": _REFILL_S})
        self._left -= 1

    def _redeem(self, tx: Transaction, code: str) -> Session:
        stored = orjson.loads(tx.installation.get(CODE_KEY) or "{}")
        known = str(stored.get("digest", ""))
        if not hmac.compare_digest(known, digest(code)) or self._clock.wall_ms() >= stored["expires_at"]:
            raise Unauthorized(
                "the code is not valid (any more)", mend="restart the server, or log in with a token"
            )
        tx.installation.put(CODE_KEY, None)
        return self._session(tx, LOCAL_OWNER)

    def _session(self, tx: Transaction, owner: str) -> Session:
        now = self._clock.wall_ms()
        secret = new_secret()
        tx.tokens.add(
            AccessToken(
                pk=0, id=new_token_id(now), owner=owner, name=f"browser-{secrets.token_hex(4)}", kind="user",
                digest=digest(secret), created_at=now, expires_at=now + self._session_s * 1000,
            )
        )  # fmt: skip
        return Session(secret=secret, max_age_s=self._session_s)
