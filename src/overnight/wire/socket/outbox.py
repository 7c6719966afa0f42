"""What one scope has to send: in order, within its credit, and kept until it is known to have arrived."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

Policy = Literal["pause", "fail"]


@dataclass(slots=True, kw_only=True, eq=False)
class Outgoing:
    """A message that has not been given its sequence number yet."""

    type: str
    id: str
    ts: int
    reply_to: str | None
    payload: bytes
    spends: bool = False
    prompt: bool = False
    """A reply: where events wait for credit, it does not wait behind them."""
    last: bool = False
    """Nothing of its scope follows it."""
    mark: int = 0
    """It has arrived when so many events of the scope were consumed."""


_NOTHING: Final[deque[Outgoing]] = deque()
"""What a scope that keeps nothing keeps; most connections have one such lane and nothing else."""


class Outbox:
    """The queue of a scope, its credit, and copies of what may have to be sent again.

    A terminal opens the gate: what waits before it goes out without credit, so that it always gets through, and the
    reader is sent at most the bound of the queue beyond its window.
    """

    __slots__ = ("_keep_bytes", "_kept", "_kept_bytes", "_prompt", "_spent", "closing", "credit", "policy", "sent",
                 "seq", "waiting", "waiting_bytes", "window")  # fmt: skip

    def __init__(self, *, window: int, policy: Policy = "pause", keep_bytes: int = 0) -> None:
        self.window = window
        self.credit = window
        self.policy: Policy = policy
        self.seq = 0
        """The last number given on this connection."""
        self.sent = 0
        """Messages of the scope that were ever sent, each counted once."""
        self.closing = False
        """The last message is sent, or waits."""
        self.waiting: deque[Outgoing] = deque()
        self.waiting_bytes = 0
        self._spent = 0
        self._prompt = 0
        self._keep_bytes = keep_bytes
        self._kept: deque[Outgoing] = deque() if keep_bytes else _NOTHING
        self._kept_bytes = 0

    def put(self, one: Outgoing) -> None:
        """Queue it behind the others."""
        self.waiting.append(one)
        self.waiting_bytes += len(one.payload)
        self.closing = self.closing or one.last
        self._prompt += one.prompt

    def drop_events(self) -> None:
        """Forget what waits for credit; requests and replies stay."""
        self.waiting = deque(one for one in self.waiting if not one.spends)
        self.waiting_bytes = sum(len(one.payload) for one in self.waiting)

    @property
    def ready(self) -> bool:
        """Whether one in the queue may go."""
        return bool(self.waiting) and (self._prompt > 0 or not self._blocked)

    @property
    def _blocked(self) -> bool:
        return self.waiting[0].spends and self.credit <= 0 and not self.closing

    def take(self) -> Outgoing:
        """The next one of a queue that is ready: counted, numbered by `seq`, and kept where that is wanted."""
        if self._blocked:
            one = next(one for one in self.waiting if one.prompt)
            self.waiting.remove(one)
        else:
            one = self.waiting.popleft()
        self._prompt -= one.prompt
        self.waiting_bytes -= len(one.payload)
        self.seq += 1
        self.sent += 1
        if one.spends:
            self.credit -= 1
            self._spent += 1
        if self._keep_bytes:
            self._keep(one)
        return one

    def _keep(self, one: Outgoing) -> None:
        one.mark = self._spent if one.spends else self._spent + 1
        self._kept.append(one)
        self._kept_bytes += len(one.payload)
        while self._kept_bytes > self._keep_bytes and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft().payload)

    def granted(self, count: int) -> None:
        """The reader has consumed so many events: they need not be kept, and as many may follow."""
        self.credit += count
        consumed = self.credit + self._spent - self.window
        while self._kept and self._kept[0].mark <= consumed:
            self._kept_bytes -= len(self._kept.popleft().payload)

    def replay(self, arrived: int, credit: int) -> bool:
        """A new connection: what came after the first `arrived` messages waits again. False: it is no longer kept."""
        missing = self.sent - arrived
        if not 0 <= missing <= len(self._kept):
            return False
        for _ in range(missing):
            one = self._kept.pop()
            self.waiting.appendleft(one)
            self.waiting_bytes += len(one.payload)
            self._spent -= one.spends
            self._prompt += one.prompt
        self._kept.clear()
        self._kept_bytes = 0
        self.sent = arrived
        self.seq = 0
        self.credit = credit
        return True
