"""The same promise on Postgres, with tables that hold 10⁴ rows and more: what runs often goes by its index."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Executable
from tests.stores.filling import FILL
from tests.stores.test_plans import WHOLE_TABLE_IS_RIGHT, statements

from overnight.clock import SystemClock
from overnight.domain.states import State
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import RunFilter
from overnight.stores.sql import (
    approvals,
    claims,
    gates,
    holds,
    installation,
    places,
    postgres_schema,
    queue,
    requests,
    run_pages,
    runs,
    session_removal,
    sessions,
    shares,
    turns,
)  # fmt: skip
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.stores.sql.statements import Row, Statement
from overnight.stores.sql.transaction import SqlTransaction
from overnight.testing.services.postgres import PostgresServer

LARGE = {
    "runs", "run_specs", "run_labels", "run_places", "streams", "sessions", "events", "turns", "messages",
    "approvals", "requests", "queue", "shares", "idempotency", "inputs", "workspace_locks", "leases",
    "tokens", "token_shares",
}  # fmt: skip


@pytest.fixture(scope="module")
def link(postgres_server: PostgresServer) -> Iterator[PostgresLink]:
    name = postgres_server.fresh()
    connections = PostgresConnections(postgres_server.url(name))
    postgres_schema.prepare(connections)
    postgres_server.execute(FILL, name)
    found = connections.open(writing=True)
    found.script("SET statement_timeout = 0; SET plan_cache_mode = force_generic_plan")
    yield found
    found.close()
    postgres_server.drop(name)


def plan(link: PostgresLink, sql: str) -> list[str]:
    return [row[0] for row in link.raw.execute(f"EXPLAIN (GENERIC_PLAN) {sql}", prepare=False)]


def whole_tables(steps: list[str]) -> list[str]:
    return [
        step for step in steps if "Seq Scan on" in step and step.split("Seq Scan on ")[1].split()[0] in LARGE
    ]


@pytest.mark.parametrize("name, statement", [pytest.param(*found, id=found[0]) for found in statements()])
def test_no_fixed_statement_reads_a_whole_table(link: PostgresLink, name: str, statement: Statement) -> None:
    steps = plan(link, statement.postgres.sql)
    assert name in WHOLE_TABLE_IS_RIGHT or not whole_tables(steps), "\n".join(steps)


@pytest.mark.parametrize(
    "statement, index",
    [
        (claims._DUE, "ix_runs_due"),
        (claims._DUE_LIMITED, "ix_runs_limited"),
        (gates._EARLIER, "ix_runs_session"),
        (gates._OPEN_TIME, "ix_runs_gate_time"),
        (gates._OPEN_NEXT, "ix_runs_gate_session"),
        (gates._WAITING, "ix_runs_due"),
        (gates._WAITING, "ix_runs_limited"),
        (places._WAITED_FOR, "ix_runs_gate_key"),
        (places._LOCKED_INSIDE, "ix_workspace_locks_node"),
        (installation._EXPIRED, "ix_runs_ended"),
        (approvals._OVERDUE, "ix_approvals_overdue"),
        (approvals._PENDING, "ix_approvals_run"),
        (run_pages._CHANGED, "ix_runs_change"),
        (run_pages._CHANGED_OF, "ix_runs_change"),
        (session_removal._USED, "ix_runs_session"),
        (sessions._LIVE, "ix_runs_session"),
        (sessions._UNTOUCHED, "ix_sessions_untouched"),
        (queue._QUEUED, "ix_queue_waiting"),
        (shares._WITH_USER, "ix_shares_of_user"),
        (runs._LOCK, "pk_runs"),
        (runs._SAVE, "pk_runs"),
        (turns._ADVANCE, "pk_turns"),
        (holds._HELD, "pk_leases"),
    ],
)
def test_the_index_made_for_it(link: PostgresLink, statement: Statement, index: str) -> None:
    steps = plan(link, statement.postgres.sql)
    assert any(f"{index} " in step for step in steps), "\n".join(steps)
    assert not any("Sort" in step for step in steps), "\n".join(steps)


def test_requests_that_wait(link: PostgresLink) -> None:
    """The few of one run, which are sorted: Postgres does not know that IS NULL leaves one value."""
    steps = plan(link, requests._PENDING.postgres.sql)
    assert any("Index Scan using ix_requests_pending" in step for step in steps), "\n".join(steps)


def spied(
    link: PostgresLink, monkeypatch: pytest.MonkeyPatch, call: Callable[[SqlTransaction], object]
) -> list[list[str]]:
    """The plans of all that `call` puts together for itself."""
    seen: list[list[str]] = []
    original = PostgresLink.select

    def select(self: PostgresLink, clause: Executable) -> list[Row]:
        dialect = self._core.dialect
        sql = str(clause.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))  # type: ignore[attr-defined]
        seen.append([row[0] for row in self.rows(f"EXPLAIN {sql.replace('%%', '%')}")])
        return original(self, clause)

    monkeypatch.setattr(PostgresLink, "select", select)
    call(SqlTransaction(link, SystemClock(), SystemClock()))
    return seen


@pytest.mark.parametrize(
    "asked, index",
    [
        (RunFilter(), "ix_runs_newest"),
        (RunFilter(owner="usr_7"), "ix_runs_owner_newest"),
        (RunFilter(owner="usr_7", states=(State.RUNNING,)), "ix_runs_owner_state"),
    ],
)
@pytest.mark.parametrize("after", [None, (5000, 15000)])
def test_pages_of_runs(
    link: PostgresLink, monkeypatch: pytest.MonkeyPatch, asked: RunFilter, index: str, after: Any
) -> None:
    (steps,) = spied(link, monkeypatch, lambda tx: tx.runs.page(asked, limit=50, after=after))
    assert any(index in step for step in steps), "\n".join(steps)
    assert not whole_tables(steps), "\n".join(steps)


@pytest.mark.parametrize(
    "owner, index", [(None, "ix_sessions_newest"), ("usr_7", "ix_sessions_owner_newest")]
)
def test_pages_of_sessions(
    link: PostgresLink, monkeypatch: pytest.MonkeyPatch, owner: str | None, index: str
) -> None:
    plans = spied(
        link, monkeypatch, lambda tx: tx.sessions.page(SessionFilter(owner=owner), limit=50, after=(5, 5))
    )
    assert any(index in step for step in plans[0]), "\n".join(plans[0])
    assert not any(whole_tables(steps) for steps in plans)


def test_events_are_read_by_their_key(link: PostgresLink, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(tx: SqlTransaction) -> object:
        return tx.events.select(
            10_001, after=1, before=None, descending=True, types=("output.recorded",), turn=1, limit=10
        )

    (steps,) = spied(link, monkeypatch, call)
    assert any("pk_events" in step for step in steps), "\n".join(steps)
