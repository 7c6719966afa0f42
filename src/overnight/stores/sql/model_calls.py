"""What runs have asked of language models."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, func, insert, select

from overnight.ports.model import ModelUsage
from overnight.ports.model_ledger import ModelCall, RecordedCall
from overnight.stores.sql.context import Context
from overnight.stores.sql.model_schema import model_calls
from overnight.stores.sql.statements import Row, Statement, key

_NANO: Final = 1_000_000_000
_COUNTS: Final = ("input", "cached", "cache_write", "output", "reasoning")
_COLUMNS: Final = ("run_pk", "stream", "model", "ending", "reason", *_COUNTS, "cost", "at")
_ADD: Final = Statement(insert(model_calls).values({name: bindparam(name) for name in _COLUMNS}))
_PAGE: Final = Statement(
    select(model_calls.c.pk, *(model_calls.c[name] for name in _COLUMNS[1:]))
    .where(model_calls.c.run_pk == key("run"), model_calls.c.pk > key("after"))
    .order_by(model_calls.c.pk)
    .limit(bindparam("most"))
)
_SUM: Final = Statement(
    select(
        func.count(), *(func.coalesce(func.sum(model_calls.c[name]), 0) for name in _COUNTS),
        func.sum(model_calls.c.cost),
    ).where(model_calls.c.run_pk == key("run"))
)  # fmt: skip


class SqlModelCallTable:
    """See `ports.model_ledger.ModelCallTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def add(self, run_pk: int, call: ModelCall, at: int) -> None:
        """See the port."""
        usage = call.usage
        self._link.run(
            _ADD, run_pk=run_pk, stream=call.stream, model=call.model, ending=call.ending, reason=call.reason,
            **{name: getattr(usage, name) for name in _COUNTS},
            cost=None if usage.cost_usd is None else round(usage.cost_usd * _NANO), at=at,
        )  # fmt: skip

    def page(self, run_pk: int, *, after: int, limit: int) -> tuple[RecordedCall, ...]:
        """See the port."""
        return tuple(map(_call, self._link.all(_PAGE, key_run=run_pk, key_after=after, most=limit)))

    def total(self, run_pk: int) -> tuple[int, ModelUsage]:
        """See the port."""
        row = self._link.one(_SUM, key_run=run_pk)
        return (0, ModelUsage()) if row is None else (int(row[0]), _usage(row[1:6], row[6]))


def _call(row: Row) -> RecordedCall:
    pk, stream, model, ending, reason = row[:5]
    call = ModelCall(
        stream=stream, model=model, ending=ending, reason=reason, usage=_usage(row[5:10], row[10])
    )
    return RecordedCall(pk=pk, call=call, at=row[11])


def _usage(counts: Row, cost: int | None) -> ModelUsage:
    # Postgres sums whole numbers to a decimal.
    numbers = dict(zip(_COUNTS, map(int, counts), strict=True))
    return ModelUsage(**numbers, cost_usd=None if cost is None else int(cost) / _NANO)
