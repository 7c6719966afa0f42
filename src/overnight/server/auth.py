"""Who is asking: tokens by their hash, what each kind may do, and logins from a browser."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from overnight.clock import Clock
from overnight.domain.agent_token import PREFIX as OF_AGENT
from overnight.domain.agent_token import Claim, claimed
from overnight.domain.request import LOCAL_OWNER, Principal
from overnight.domain.session import Share
from overnight.domain.token import AccessToken, digest
from overnight.engine.agent_access import agent_key
from overnight.errors import Forbidden, NotFound, OvernightError, Unauthorized
from overnight.ids import RunId
from overnight.ports.unit_of_work import Transaction, UnitOfWork

CACHE_S: Final = 10.0
"""A token revoked by another process is refused at the latest after this."""
CACHE_SIZE: Final = 1024
USED_EVERY_MS: Final = 60_000
_MAX_SECRET: Final = 512

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMIN: Final = re.compile(
    r"/api/v1/(?:(?:tokens|admin|config|doctor|leases)(?![a-z])|workers/).*", re.DOTALL
)
"""Whatever begins so is refused, known path or not."""
_AGENT: Final = re.compile(r"/api/v1/(?:runs|stream|backends|openai)(?:/.*)?")
_WORKER: Final = re.compile(r"/api/v1/leases(?:/.*)?")
SOCKET: Final = "/api/v1/socket"
"""Open to every kind of token; what may be done there is for each message to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated request: the principal, and the hash that it came with."""

    principal: Principal
    """For whom it acts: where a session is shared, `owner` is the session's and `name` says who it really is."""
    digest: str
    user: str
    """Who it really is: the owner of the token; of a link, the share."""
    share: Share | None = None
    """The share by which it acts, if it does not act in its own name."""
    claim: Claim | None = None
    """Of an agent's own process: the attempt at a turn that it is."""

    @property
    def run_id(self) -> RunId | None:
        """The one run that it works for, where it is an agent's own process."""
        return None if self.claim is None else self.claim.run_id

    @property
    def admin(self) -> bool:
        """Whether the operator's own routes are open to it."""
        return self.principal.kind == "user" and self.user == LOCAL_OWNER and self.share is None

    @property
    def guest(self) -> bool:
        """Whether it came in by a link."""
        return self.share is not None and self.share.kind == "link"

    def acting(self, share: Share) -> Caller:
        """The same, acting on the session that is shared with it."""
        name = f"link {share.id}" if share.kind == "link" else self.user
        principal = replace(self.principal, owner=share.owner, name=name)
        return replace(self, principal=principal, share=share)

    def check(self, method: str, path: str) -> None:
        """Raise Forbidden unless this kind of token may do that. What it is comes from the server's record alone."""
        kind = self.principal.kind
        if self.claim is not None and path != SOCKET:
            raise Forbidden("the token of an agent's process is for the socket alone", mend=_MEND)
        if kind == "agent" and path != SOCKET and not (method in _READING and _AGENT.fullmatch(path)):
            raise Forbidden("an agent's token may only read its owner's runs", mend=_MEND)
        if kind == "worker" and path != SOCKET and not _WORKER.fullmatch(path):
            raise Forbidden("a worker's token is for leases, and for nothing else", mend=_MEND)
        if kind == "user" and not self.admin and _ADMIN.fullmatch(path):
            raise Forbidden("only the operator may do this")


@dataclass(slots=True)
class _Known:
    token: AccessToken
    share: Share | None
    until: float


_MEND: Final = "make one on the server's machine with: overnight token new NAME (for a worker: --kind worker)"


class Authenticator:
    """Finds the caller behind a secret. Answers are cached for a few seconds, and forgotten when a token is revoked."""

    def __init__(self, uow: UnitOfWork, clock: Clock) -> None:
        self._uow = uow
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._agent_key: bytes | None = None
        self._on_revoked: list[Callable[[int], None]] = []
        self._on_unshared: list[Callable[[int, int | None], None]] = []
        self._notes: set[asyncio.Task[None]] = set()

    async def caller(self, secret: str | None) -> Caller:
        """The caller with that secret. Raises Unauthorized when there is none, or it is unknown, revoked or expired."""
        if not secret or len(secret) > _MAX_SECRET or not secret.isascii():
            raise Unauthorized(mend="send `Authorization: Bearer …`, or log in at /")
        if secret.startswith(OF_AGENT):
            return await self._of_agent(secret)
        return await self._by_digest(digest(secret))

    async def still(self, caller: Caller) -> bool:
        """Whether an earlier caller would be let in now: asked while a stream stays open."""
        try:
            if caller.claim is not None:
                await self._holding(caller.claim)
                return True
            await self._by_digest(caller.digest)
        except Unauthorized:
            return False
        return caller.share is None or await self._is_usable(caller.share)

    async def _is_usable(self, share: Share) -> bool:
        found = await self._uow.read(lambda tx: tx.shares.of_session(share.session_pk))
        now = self._clock.wall_ms()
        return any(one.pk == share.pk and one.usable(now) for one in found)

    def on_unshared(self, call: Callable[[int, int | None], None]) -> None:
        """Have `call` told the keys of session and share (None: all of the session's) whenever one ends here."""
        self._on_unshared.append(call)

    def unshared(self, session_pk: int, share_pk: int | None = None) -> None:
        """A share has ended, or all of a session's: whoever came by it is out."""
        for digest_, known in tuple(self._known.items()):
            share = known.share
            if share is not None and share.session_pk == session_pk and share_pk in (None, share.pk):
                del self._known[digest_]
        for call in self._on_unshared:
            call(session_pk, share_pk)

    def on_revoked(self, call: Callable[[int], None]) -> None:
        """Have `call` told the pk of every token that is revoked here."""
        self._on_revoked.append(call)

    def forget(self, token: AccessToken) -> None:
        """The token was revoked: nothing remembered about it counts any more."""
        self._known.pop(token.digest, None)
        for call in self._on_revoked:
            call(token.pk)

    async def _of_agent(self, secret: str) -> Caller:
        if self._agent_key is None:
            self._agent_key = await agent_key(self._uow)
        claim = claimed(self._agent_key, secret)
        if claim is None:
            raise Unauthorized("the token of an agent's process was not made here")
        owner = await self._holding(claim)
        principal = Principal(owner=owner, name=f"agent of {claim.run_id}", kind="agent")
        return Caller(principal=principal, digest=digest(secret), user=owner, claim=claim)

    async def _holding(self, claim: Claim) -> str:
        """The owner of the run, as long as the claimed attempt is its latest. Raises Unauthorized."""
        try:
            run = await self._uow.read(lambda tx: tx.runs.get(claim.run_id, None))
        except NotFound:
            raise Unauthorized("the run of this token is gone") from None
        if run.final or (run.turn, run.attempt) != (claim.turn, claim.attempt):
            raise Unauthorized("the turn of this token is over, or is tried anew")
        return run.owner

    async def _by_digest(self, wanted: str) -> Caller:
        known = await self._look_up(wanted)
        if known is None or not hmac.compare_digest(known.token.digest, wanted):
            raise Unauthorized("the token is not known", mend=_MEND)
        token, share, now = known.token, known.share, self._clock.wall_ms()
        if not token.usable(now):
            raise Unauthorized("the token was revoked or has expired", mend=_MEND)
        if is_of_share(token) and (share is None or not share.usable(now)):
            raise Unauthorized("the link is not valid any more", mend="ask for a new one")
        name = LOCAL_OWNER if token.owner == LOCAL_OWNER and token.kind == "user" else token.name
        principal = Principal(owner=token.owner, name=name, kind=token.kind, token_pk=token.pk)
        return Caller(principal=principal, digest=wanted, user=token.owner, share=share)

    async def _look_up(self, wanted: str) -> _Known | None:
        known = self._known.get(wanted)
        if known is not None and self._clock.boot() < known.until:
            return known
        found = await self._uow.read(lambda tx: _stored(tx, wanted))
        if found is None:
            self._known.pop(wanted, None)
            return None
        known = self._known[wanted] = _Known(*found, self._clock.boot() + CACHE_S)
        self._known.move_to_end(wanted)
        while len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        self._note_use(known.token)
        return known

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


def is_of_share(token: AccessToken) -> bool:
    """Whether a link's code was exchanged for it: it belongs to the share and to nobody."""
    return token.owner.startswith("shr_")


def _stored(tx: Transaction, wanted: str) -> tuple[AccessToken, Share | None] | None:
    token = tx.tokens.by_digest(wanted)
    if token is None:
        return None
    return token, tx.shares.of_token(token.pk) if is_of_share(token) else None
