"""How much room the limits of the queue leave: counted over all held runs, whoever holds them.

Writers take turns, so nobody else's claim comes between the counting and the claim that it allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import bindparam, func, insert, literal_column, select, update

from overnight.domain.queue_limits import QueueLimits, label_key
from overnight.domain.run import Run
from overnight.stores.sql.context import Context
from overnight.stores.sql.database_clock import ask
from overnight.stores.sql.rows import dump
from overnight.stores.sql.schema import leases, run_labels, runs
from overnight.stores.sql.statements import Statement, elements, key
from overnight.stores.sql.worker_schema import rates

ENDLESS: Final = 1 << 30

_HELD_PK: Final = leases.c.run_pk + literal_column("0")
"""Nothing that an index could be asked for: so the few leases are read, and the run of each is looked up."""
_BACKENDS: Final = Statement(
    select(runs.c.backend, func.count())
    .select_from(leases.join(runs, runs.c.pk == _HELD_PK))
    .group_by(runs.c.backend)
)
_LABELS: Final = Statement(
    select(run_labels.c.name, run_labels.c.value, func.count())
    .select_from(leases.join(run_labels, run_labels.c.run_pk == _HELD_PK))
    .where(run_labels.c.name.in_(select(elements("key_names").c.value)))
    .group_by(run_labels.c.name, run_labels.c.value)
)
_RATES: Final = Statement(
    select(rates.c.name, rates.c.full_at).where(rates.c.name.in_(select(elements("key_names").c.value)))
)
_SET_RATE: Final = Statement(update(rates).where(rates.c.name == key("name")).values(full_at=bindparam("at")))
_ADD_RATE: Final = Statement(insert(rates).values(name=bindparam("rate"), full_at=bindparam("at")))


class Room:
    """What one claim may still take. Nothing is asked of the database where there are no limits."""

    def __init__(self, context: Context, limits: QueueLimits, *, looking: bool = False) -> None:
        """`looking`: nothing is to be written."""
        self._context = context
        self._limits = limits
        self._looking = looking
        self._backends = dict(limits.backends) if limits.backends else {}
        self._labels = {label_key(*label): most for label, most in limits.labels.items()}
        self._stored: dict[str, int] = {}
        self._starts: dict[str, int] = {}
        self._now_us = 0
        if limits.backends:
            self._count(self._backends, context.link.all(_BACKENDS))
        if limits.labels:
            names = sorted({name for name, _ in limits.labels})
            held = context.link.all(_LABELS, key_names=dump(names))
            self._count(self._labels, ((label_key(name, value), many) for name, value, many in held))
        if limits.rates:
            self._look_at_rates()

    @staticmethod
    def _count(left: dict[str, int], held: Iterable[tuple[str, int]]) -> None:
        for name, many in held:
            if name in left:
                left[name] -= many

    def _look_at_rates(self) -> None:
        self._now_us = ask(self._context) * 1000
        names = dump(sorted(self._limits.rates))
        self._stored = {name: at for name, at in self._context.link.all(_RATES, key_names=names)}  # noqa: C416
        for name, full_at in self._stored.items():
            bounded = self._limits.rates[name].bounded(full_at, self._now_us)
            if (
                bounded < full_at and not self._looking
            ):  # the clock went back: wait for a bucket, not for the clock
                self._context.link.run(_SET_RATE, key_name=name, at=bounded)
                self._stored[name] = bounded

    def for_backend(self, name: str) -> int:
        """How many more runs of that backend."""
        room = self._backends.get(name, ENDLESS)
        rate = self._limits.rates.get(name)
        if rate is not None:
            room = min(room, rate.room(self._stored.get(name, 0), self._now_us) - self._starts.get(name, 0))
        return max(room, 0)

    def full_backends(self) -> dict[str, str]:
        """The backends without room, with the reason."""
        named = {**self._limits.rates, **self._limits.backends}
        return {name: self._why_full(name) for name in named if self.for_backend(name) == 0}

    def _why_full(self, name: str) -> str:
        if self._backends.get(name, 1) <= 0:
            return f"limit: backend {name} ({self._limits.backends[name]} at once)"
        return f"rate: backend {name} ({self._limits.rates[name]})"

    def for_label(self, name: str) -> int:
        """How many more runs with that label (`name=value`)."""
        return max(self._labels.get(name, ENDLESS), 0)

    def full_label(self, run: Run) -> str | None:
        """The first label of the run whose limit is reached."""
        if not self._labels:
            return None
        own = sorted(label_key(*label) for label in run.spec.labels.items())
        return next((name for name in own if self.for_label(name) == 0), None)

    def most_of_label(self, name: str) -> int:
        """The limit of a label, as it is set."""
        return {label_key(*label): most for label, most in self._limits.labels.items()}[name]

    def take(self, run: Run) -> None:
        """The run has been claimed."""
        if run.backend in self._backends:
            self._backends[run.backend] -= 1
        if run.backend in self._limits.rates:
            self._starts[run.backend] = self._starts.get(run.backend, 0) + 1
        for label in run.spec.labels.items() if self._labels else ():
            if label_key(*label) in self._labels:
                self._labels[label_key(*label)] -= 1

    def settle(self) -> None:
        """Write down what was taken from the buckets."""
        for name, starts in self._starts.items():
            at = self._limits.rates[name].after(self._stored.get(name, 0), self._now_us, starts)
            if self._context.link.run(_SET_RATE, key_name=name, at=at) == 0:
                self._context.link.run(_ADD_RATE, rate=name, at=at)
