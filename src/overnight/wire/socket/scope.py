"""The scopes of one side of a connection: those that are open, and what is left of those that are over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from overnight.wire.socket.credit import Intake
from overnight.wire.socket.envelope import kind_of
from overnight.wire.socket.limits import Limits
from overnight.wire.socket.outbox import Outbox, Policy
from overnight.wire.socket.sequence import Sequence

SURVIVING: Final = frozenset({"stream", "tool"})
"""Kinds without a log: they outlive a cut for a while, and what was under way is sent again."""
REOPENING: Final = frozenset({"run", "session"})
"""Kinds with a log: a scope that is over may be opened again, from a cursor."""
MOST_SETTLING: Final = 1024


@dataclass(slots=True, kw_only=True, eq=False)
class Scope:
    """An open scope. `mine`: this side has opened it, with the message `opener`. `arrived`: messages taken so far."""

    name: str
    mine: bool
    opener: str | None
    outbox: Outbox
    intake: Intake
    sequence: Sequence = field(default_factory=Sequence)
    arrived: int = 0
    kind: str = field(init=False)
    """`session`, `stream`, `tool` or `run`."""

    def __post_init__(self) -> None:
        self.kind = kind_of(self.name)

    @property
    def survives(self) -> bool:
        """Whether it outlives a cut."""
        return self.kind in SURVIVING


class Scopes:
    """Every table here is bounded. A scope that is over leaves a tombstone; late messages do not bring it back."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[str, Scope] = {}
        self._settling: dict[str, Scope] = {}
        self._tombstones: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Scope]:
        return iter(list(self._open.values()))

    def get(self, name: str) -> Scope | None:
        """The scope, if it is open and this side has not ended it."""
        found = self._open.get(name)
        return None if found is None or found.outbox.closing else found

    def sending(self, name: str) -> Scope | None:
        """The scope, if it is open or has still something to send."""
        return self._open.get(name)

    def over(self, name: str) -> bool:
        """Whether it was there and is over."""
        return name in self._tombstones or name in self._open

    def open(self, name: str, *, mine: bool, opener: str | None, window_in: int, window_out: int,
             policy: Policy) -> Scope:  # fmt: skip
        """A new scope."""
        keep = self.limits.keep_bytes if kind_of(name) in SURVIVING else 0
        outbox = Outbox(window=window_out, policy=policy, keep_bytes=keep)
        self._tombstones.pop(name, None)
        self._settling.pop(name, None)
        scope = Scope(name=name, mine=mine, opener=opener, outbox=outbox, intake=Intake(window_in))
        self._open[name] = scope
        return scope

    def close(self, name: str, *, bury: bool = True) -> Scope | None:
        """It is over, and nothing of it is kept but the tombstone."""
        self._settling.pop(name, None)
        if bury:
            self.bury(name)
        return self._open.pop(name, None)

    def bury(self, name: str) -> None:
        """Leave a tombstone; the oldest goes when there are too many."""
        self._tombstones[name] = None
        if len(self._tombstones) > self.limits.tombstones:
            del self._tombstones[next(iter(self._tombstones))]

    def sent_last(self, scope: Scope) -> None:
        """Its last message is on the way; where a cut could swallow it, it is kept until it has arrived."""
        self._open.pop(scope.name, None)
        if scope.survives:
            self._settling[scope.name] = scope
            if len(self._settling) > MOST_SETTLING:
                del self._settling[next(iter(self._settling))]

    def settled(self, name: str) -> None:
        """Its last message has arrived."""
        self._settling.pop(name, None)

    def surviving(self) -> list[Scope]:
        """Those that outlive a cut, the ones whose last message may not have arrived among them."""
        return [one for one in self._open.values() if one.survives] + list(self._settling.values())

    def reopen(self, scope: Scope) -> None:
        """It has something to send again."""
        self._settling.pop(scope.name, None)
        self._open[scope.name] = scope

    def counts(self) -> dict[str, int]:
        """How many entries each table has."""
        return {"open": len(self._open), "settling": len(self._settling), "tombstones": len(self._tombstones)}
