"""Who is asking: tokens by their hash, what each kind may do, and logins from a browser."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from overnight.clock import Clock
from overnight.domain.request import LOCAL_OWNER, Principal
from overnight.domain.token import AccessToken, digest
from overnight.errors import Forbidden, OvernightError, Unauthorized
from overnight.ports.unit_of_work import UnitOfWork

CACHE_S: Final = 10.0
"""A token revoked by another process is refused at the latest after this."""
CACHE_SIZE: Final = 1024
USED_EVERY_MS: Final = 60_000
_MAX_SECRET: Final = 512

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMIN: Final = re.compile(r"/api/v1/(?:tokens|admin|config|doctor)(?![a-z]).*", re.DOTALL)
"""Whatever begins so is refused, known path or not."""
_AGENT: Final = re.compile(r"/api/v1/(?:runs|stream|backends)(?:/.*)?")
_WORKER: Final = re.compile(r"/api/v1/(?:backends|workers|stats)(?:/.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated request: the principal, and the hash that it came with."""

    principal: Principal
    digest: str

    @property
    def admin(self) -> bool:
        """Whether the operator's own routes are open to it."""
        return self.principal.kind == "user" and self.principal.owner == LOCAL_OWNER

    def check(self, method: str, path: str) -> None:
        """Raise Forbidden unless this kind of token may do that. What it is comes from the server's record alone."""
        kind = self.principal.kind
        if kind == "agent" and not (method in _READING and _AGENT.fullmatch(path)):
            raise Forbidden("an agent's token may only read its owner's runs")
        if kind == "worker" and not (method in _READING and _WORKER.fullmatch(path)):
            raise Forbidden("a worker's token may only read backends and workers")
        if kind == "user" and not self.admin and _ADMIN.fullmatch(path):
            raise Forbidden("only the operator may do this")


@dataclass(slots=True)
class _Known:
    token: AccessToken
    until: float


_MEND: Final = "make one on the server's machine with: overnight token new NAME"


class Authenticator:
    """Finds the caller behind a secret. Answers are cached for a few seconds, and forgotten when a token is revoked."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._on_revoked: list[Callable[[int], None]] = []
        self._notes: set[asyncio.Task[None]] = set()

    async def caller(self, secret: str | None) -> Caller:
        """The caller with that secret. Raises Unauthorized when there is none, or it is unknown, revoked or expired."""
        if not secret or len(secret) > _MAX_SECRET or not secret.isascii():
            raise Unauthorized(mend="send `Authorization: Bearer …`, or log in at /")
        return await self._by_digest(digest(secret))

    async def still(self, caller: Caller) -> bool:
        """Whether an earlier caller would be let in now: asked while a stream stays open."""
        try:
            await self._by_digest(caller.digest)
        except Unauthorized:
            return False
        return True

    def on_revoked(self, call: Callable[[int], None]) -> None:
        """Have `call` told the pk of every token that is revoked here."""
        self._on_revoked.append(call)

    def forget(self, token: AccessToken) -> None:
        """The token was revoked: nothing remembered about it counts any more."""
        self._known.pop(token.digest, None)
        for call in self._on_revoked:
            call(token.pk)

    async def _by_digest(self, wanted: str) -> Caller:
        token = await self._token(wanted)
        if token is None or not hmac.compare_digest(token.digest, wanted):
            raise Unauthorized("the token is not known", mend=_MEND)
        now = self._clock.wall_ms()
        if not token.usable(now):
            raise Unauthorized("the token was revoked or has expired", mend=_MEND)
        name = LOCAL_OWNER if token.owner == LOCAL_OWNER and token.kind == "user" else token.name
        principal = Principal(owner=token.owner, name=name, kind=token.kind, token_pk=token.pk)
        return Caller(principal=principal, digest=wanted)

    async def _token(self, wanted: str) -> AccessToken | None:
        known = self._known.get(wanted)
        if known is not None and self._clock.boot() < known.until:
            return known.token
        token = await self._uow.read(lambda tx: tx.tokens.by_digest(wanted))
        if token is None:
            self._known.pop(wanted, None)
            return None
        self._known[wanted] = _Known(token, self._clock.boot() + CACHE_S)
        self._known.move_to_end(wanted)
        while len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        self._note_use(token)
        return token

    def _note_use(self, token: AccessToken) -> None:
        """Beside the request: neither a slow nor a full disk may keep anybody from reading."""
        now = self._clock.wall_ms()
        if token.last_used_at is not None and now - token.last_used_at < USED_EVERY_MS:
            return
        task = asyncio.create_task(self._write_use(token.pk, now), name="note the use of a token")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write_use(self, pk: int, now: int) -> None:
        with contextlib.suppress(OvernightError):
            await self._uow.write(lambda tx: tx.tokens.used(pk, now))
