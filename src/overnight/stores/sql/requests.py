"""Requests to runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import bindparam, insert, select, update

from overnight.domain.request import Principal, Request, RequestKind
from overnight.ports.notifier import requests_topic
from overnight.stores.sql.context import Context
from overnight.stores.sql.rows import dump, load
from overnight.stores.sql.schema import requests
from overnight.stores.sql.statements import Statement, key

_ADD: Final = Statement(
    insert(requests)
    .values({name: bindparam(name) for name in ("run_pk", "kind", "body", "owner", "actor", "created_at")})
    .returning(requests.c.pk)
)
_PENDING: Final = Statement(
    select(requests.c.pk, requests.c.kind, requests.c.body, requests.c.actor, requests.c.created_at)
    .where(requests.c.run_pk == key("run"), requests.c.settled_at.is_(None))
    .order_by(requests.c.pk)
)
_SETTLE: Final = Statement(
    update(requests)
    .where(requests.c.pk == key("pk"), requests.c.settled_at.is_(None))
    .values(settled_at=bindparam("at"), outcome=bindparam("result"))
)


class SqlRequestTable:
    """See `ports.tables.RequestTable`."""

    __slots__ = ("_context", "_link")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._link = context.link

    def add(
        self, run_pk: int, kind: RequestKind, body: Mapping[str, object], by: Principal, at: int
    ) -> Request:
        """See the port."""
        row = self._link.one(
            _ADD,
            run_pk=run_pk,
            kind=kind,
            body=dump(dict(body)),
            owner=by.owner,
            actor=by.name,
            created_at=at,
        )
        assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
        self._context.seen.requests.pop(run_pk, None)
        self._context.wake(requests_topic(run_pk))
        return Request(pk=row[0], run_pk=run_pk, kind=kind, body=dict(body), actor=by.name, created_at=at)

    def pending(self, run_pk: int) -> tuple[Request, ...]:
        """See the port."""
        seen = self._context.seen.requests
        if run_pk not in seen:
            seen[run_pk] = tuple(
                Request(pk=pk, run_pk=run_pk, kind=kind, body=load(body), actor=actor, created_at=created_at)
                for pk, kind, body, actor, created_at in self._link.all(_PENDING, key_run=run_pk)
            )
        return seen[run_pk]

    def settle(self, pk: int, outcome: str, at: int) -> None:
        """See the port."""
        self._context.seen.requests.clear()
        self._link.tell(_SETTLE, key_pk=pk, at=at, result=outcome)
