"""Approvals, and the rules that decisions have left."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import and_, bindparam, insert, literal_column, or_, select, update

from overnight.domain.approval import Approval
from overnight.domain.rule import Rule, rule_of
from overnight.errors import NotFound
from overnight.ids import ApprovalId
from overnight.ports.approval_tables import ApprovalFilter
from overnight.stores.sql.approval_rows import (
    APPROVAL_COLUMNS,
    approval_of,
    approval_values,
    changing_approval,
)
from overnight.stores.sql.context import Context
from overnight.stores.sql.people_schema import approvals, rules
from overnight.stores.sql.rows import dump, load
from overnight.stores.sql.statements import Statement, key, text_key

_ROW: Final = tuple(approvals.c[name] for name in APPROVAL_COLUMNS)
_STORED: Final = (*(name for name in APPROVAL_COLUMNS if name != "pk"), "chosen")
_OF_RUN: Final = approvals.c.run_pk == key("run")
_PENDING_STATE: Final = approvals.c.state == literal_column("'pending'")
_ADD: Final = Statement(
    insert(approvals).values({name: bindparam(name) for name in _STORED}).returning(approvals.c.pk)
)
_GET: Final = Statement(
    select(*_ROW).where(
        approvals.c.id == key("id"), (text_key("owner").is_(None)) | (approvals.c.owner == text_key("owner"))
    )
)
_SAVE: Final = Statement(
    update(approvals)
    .where(approvals.c.pk == key("pk"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "context",
                "digest",
                "options",
                "state",
                "decision",
                "chosen",
                "resolved_at",
                "used_at",
            )
        }
    )
)
_PENDING: Final = Statement(select(*_ROW).where(_OF_RUN, _PENDING_STATE).order_by(approvals.c.pk))
_OF_REQUEST: Final = Statement(
    select(*_ROW).where(
        _OF_RUN,
        approvals.c.turn == key("turn"),
        approvals.c.attempt == key("attempt"),
        approvals.c.request == key("request"),
    )
)
_DECIDED: Final = approvals.c.state.in_([literal_column("'resolved'"), literal_column("'expired'")])
_UNUSED: Final = Statement(
    select(*_ROW)
    .where(
        _OF_RUN,
        _DECIDED,
        approvals.c.digest == key("digest"),
        approvals.c.chosen == literal_column("'allow_once'"),
        or_(approvals.c.turn != key("turn"), approvals.c.attempt != key("attempt")),
        approvals.c.used_at.is_(None),
    )
    .limit(1)
)
_OVERDUE: Final = Statement(
    select(*_ROW)
    .where(_PENDING_STATE, approvals.c.expires_at <= key("now"))
    .order_by(approvals.c.expires_at, approvals.c.pk)
    .limit(bindparam("most"))
)
_RULE_COLUMNS: Final = ("session_pk", "rule", "approval_pk", "actor", "created_at")
_ADD_RULE: Final = Statement(insert(rules).values({name: bindparam(name) for name in _RULE_COLUMNS}))
_SAME_RULE: Final = Statement(
    select(rules.c.pk).where(rules.c.session_pk == key("session"), rules.c.rule == key("rule"))
)
_RULES: Final = Statement(
    select(rules.c.rule).where(rules.c.session_pk == key("session")).order_by(rules.c.rule)
)


class SqlApprovalTable:
    """See `ports.tables.ApprovalTable`."""

    __slots__ = ("_link",)

    def __init__(self, context: Context) -> None:
        self._link = context.link

    def add(self, approval: Approval) -> Approval:
        """See the port."""
        row = self._link.one(_ADD, **approval_values(approval))
        assert row is not None  # noqa: S101 -- INSERT … RETURNING always has one
        return replace(approval, pk=row[0])

    def get(self, approval_id: ApprovalId, owner: str | None) -> Approval:
        """See the port."""
        row = self._link.one(_GET, key_id=approval_id, key_owner=owner)
        if row is None:
            raise NotFound(f"no approval {approval_id}")
        return approval_of(row)

    def save(self, approval: Approval) -> None:
        """See the port. Raises NotFound."""
        values = {f"new_{name}": value for name, value in changing_approval(approval).items()}
        if self._link.run(_SAVE, key_pk=approval.pk, **values) != 1:
            raise NotFound(f"no approval {approval.id}")

    def page(
        self, filter: ApprovalFilter, *, limit: int, after: tuple[int, int] | None = None
    ) -> tuple[Approval, ...]:
        """See the port."""
        table = approvals.c
        query = select(*_ROW).order_by(table.created_at.desc(), table.pk.desc()).limit(limit)
        if filter.owner is not None:
            query = query.where(table.owner == filter.owner)
        if filter.states:
            query = query.where(table.state.in_(filter.states))
        if filter.run_id is not None:
            query = query.where(table.run_id == filter.run_id)
        if filter.session_id is not None:
            query = query.where(table.session_id == filter.session_id)
        if after is not None:
            at, pk = after
            query = query.where(or_(table.created_at < at, and_(table.created_at == at, table.pk < pk)))
        return tuple(map(approval_of, self._link.select(query)))

    def pending(self, run_pk: int) -> tuple[Approval, ...]:
        """See the port."""
        return tuple(map(approval_of, self._link.all(_PENDING, key_run=run_pk)))

    def of_request(self, run_pk: int, turn: int, attempt: int, request: str) -> Approval | None:
        """See the port."""
        row = self._link.one(
            _OF_REQUEST, key_run=run_pk, key_turn=turn, key_attempt=attempt, key_request=request
        )
        return approval_of(row) if row else None

    def unused_allowance(self, run_pk: int, digest: str, *, turn: int, attempt: int) -> Approval | None:
        """See the port."""
        row = self._link.one(_UNUSED, key_run=run_pk, key_digest=digest, key_turn=turn, key_attempt=attempt)
        return approval_of(row) if row else None

    def overdue(self, now_ms: int, limit: int) -> tuple[Approval, ...]:
        """See the port."""
        return tuple(map(approval_of, self._link.all(_OVERDUE, key_now=now_ms, most=limit)))

    def add_rule(self, session_pk: int, rule: Rule, *, approval_pk: int, by: str, at: int) -> None:
        """See the port."""
        text = dump(rule.to_json())
        if self._link.one(_SAME_RULE, key_session=session_pk, key_rule=text) is None:
            self._link.run(
                _ADD_RULE, session_pk=session_pk, rule=text, approval_pk=approval_pk, actor=by, created_at=at
            )

    def rules(self, session_pk: int) -> tuple[Rule, ...]:
        """See the port."""
        return tuple(rule_of(load(text)) for (text,) in self._link.all(_RULES, key_session=session_pk))
