"""One hold of one run, as this process has it: the lease, the turn that lives, and what was asked meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Literal, Never, Protocol

import structlog

from overnight.clock import Clock
from overnight.domain.lease import Lease
from overnight.domain.request import Request
from overnight.domain.run import Run
from overnight.errors import KeeperGone, LeaseLost
from overnight.ids import RunId
from overnight.ports.backend import BackendTurn

Wish = Literal["park", "steer", "pause", "shutdown", "cancel"]
"""Why the turn in progress shall end early; a later one in this order outranks an earlier one."""

_RANK: Final[dict[Wish | None, int]] = {
    None: 0, "park": 1, "steer": 2, "pause": 3, "shutdown": 4, "cancel": 5,
}  # fmt: skip

log = structlog.get_logger(__name__)


class Decisions(Protocol):
    """Whoever passes decisions on to the agent of a living turn."""

    async def release(self, request: Request) -> bool:
        """Carry a `decide` request out; False when it is not for the agent of this turn."""
        ...


class Hold:
    """Exclusive right of this process to advance one run, for as long as its token is the current one."""

    def __init__(self, run: Run, lease: Lease, sent_at: float) -> None:
        self.run_pk = run.pk
        self.run_id: RunId = run.id
        self.lease = lease
        """Replaced by every committed renewal."""
        self.sent_at = sent_at
        """Boot time at which the lease, or its last renewal, was asked for: what keepers reckon from."""
        self.living: BackendTurn | None = None
        """The turn under way, where there is one."""
        self.desk: Decisions | None = None
        """Takes decisions for the agent of the living turn."""
        self.blocked = False
        """The living agent waits for a person: it uses no slot."""
        self.interruptible = False
        """Whether the living turn can be ended early in good order."""
        self.wish: Wish | None = None
        self.carried: frozenset[int] = frozenset()
        """Steers (keys of requests) with which a turn of this hold has begun."""
        self.over = False
        """The run was let go in order: that its token is no longer good is no loss."""
        self._steers: set[int] = set()
        self._renewed = asyncio.Event()
        self._stirred = asyncio.Event()
        self._gone = asyncio.Event()
        self._why = ""

    def renewed(self, sent_at: float, lease_s: float) -> None:
        """A renewal that was sent at `sent_at` has been committed."""
        self.lease = self.lease.renewed(sent_at, lease_s)
        self.sent_at = max(self.sent_at, sent_at)
        self._renewed.set()

    async def fresh(self, clock: Clock, age_s: float) -> None:
        """Wait until the lease is not older than that: a keeper with an old one would end its agent at once."""
        while clock.boot() - self.sent_at > age_s:
            self._renewed.clear()
            await self._renewed.wait()

    async def tell_keeper(self, sent_at: float, lease_s: float) -> None:
        """Pass the renewal on; a keeper that is gone or has a newer holder shows at the next write."""
        living = self.living
        if living is None:
            return
        try:
            await living.renew(sent_at, lease_s)
        except (LeaseLost, KeeperGone, OSError) as error:
            log.warning("keeper.renewal_refused", run=self.run_id, error=str(error))

    def lose(self, why: str) -> bool:
        """The hold is no longer good: whoever carries out the run shall let go of it. Whether that is news."""
        is_news = not self._gone.is_set()
        self._why = why
        self._gone.set()
        return is_news

    async def until_lost(self) -> Never:
        """Raises LeaseLost once the hold is no longer good."""
        await self._gone.wait()
        raise LeaseLost(self._why)

    def ask(self, wish: Wish) -> None:
        """The turn in progress shall end early; wakes whoever rests."""
        if _RANK[wish] > _RANK[self.wish]:
            self.wish = wish
        self._stirred.set()

    def steer(self, request_pk: int) -> None:
        """The turn in progress shall make room for this steer, unless it has begun with it."""
        if request_pk not in self.carried:
            self._steers.add(request_pk)
            self.ask("steer")

    def carry(self, request_pks: Iterable[int]) -> None:
        """A turn begins with these steers: they need not end it."""
        self.carried |= frozenset(request_pks)
        self._steers -= self.carried
        if not self._steers:
            self.forget("steer")

    def forget(self, *wishes: Wish) -> None:
        """These have been granted, or taken back."""
        if self.wish in wishes:
            self.wish = None

    def stir(self) -> None:
        """Something has changed: whoever rests shall look again."""
        self._stirred.set()

    async def stirred(self) -> None:
        """Wait until something is asked, or has changed, since the last time that this returned."""
        await self._stirred.wait()
        self._stirred.clear()
