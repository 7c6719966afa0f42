"""The same promise on Postgres, with tables that hold 10⁴ rows and more: what runs often goes by its index."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Executable
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

MANY = 10_000
LARGE = {
    "runs", "run_specs", "run_labels", "run_places", "streams", "sessions", "events", "turns", "messages",
    "approvals", "requests", "queue", "shares", "idempotency", "inputs", "workspace_locks", "leases",
}  # fmt: skip
FILL = f"""
SET session_replication_role = replica;
INSERT INTO streams (pk, kind, owner, run_id, session_id, last_seq, last_at)
  SELECT n, 'session', 'usr_' || n % 50, NULL, 'ses_' || n, 3, n FROM generate_series(1, {MANY}) n;
INSERT INTO streams (pk, kind, owner, run_id, session_id, last_seq, last_at)
  SELECT n + {MANY}, 'run', 'usr_' || n % 50, 'run_' || n, 'ses_' || n, 3, n FROM generate_series(1, {MANY}) n;
INSERT INTO sessions (pk, id, owner, name, mode, state, made_for_run, version, variables, config, created_at,
    updated_at,
  name_folded) SELECT n, 'ses_' || n, 'usr_' || n % 50, 'n', 'chat',
    CASE WHEN n % 5 = 0 THEN 'suspended' ELSE 'active' END,
  0, 1, '{{}}', '{{}}', n, n, 'n' FROM generate_series(1, {MANY}) n;
INSERT INTO lanes (place, backend, need) SELECT 'host:' || n, 'echo', '{{}}' FROM generate_series(1, 20) n;
INSERT INTO runs (pk, id, owner, state, session_pk, session_id, host_id, place, lane, due, gate, gate_key, limited,
  not_before, mode, backend, priority, shared, created_at, updated_at, ended_at, token, attempt, turn,
    fallback, stats,
  idle_turns, sandbox_effective, change)
  SELECT n + {MANY}, 'run_' || n, 'usr_' || n % 50,
    CASE WHEN n % 10 < 6 THEN 'completed' WHEN n % 100 = 7 THEN 'running'
    ELSE 'queued' END, n, 'ses_' || n, 'hst_' || n % 20, 'host:' || n % 20, 1 + n % 20, n,
    CASE WHEN n % 10 < 6 OR n % 100 = 7 THEN NULL WHEN n % 10 = 8 THEN 'session' WHEN n % 20 = 9 THEN 'workspace'
      WHEN n % 20 = 19 THEN 'time' END,
    CASE WHEN n % 20 = 9 THEN 'k' || n % 500 END, CASE WHEN n % 100 = 16 THEN 'echo' END,
    CASE WHEN n % 20 = 19 THEN n END,
    'oneshot', 'echo', n % 3, 0, n, n, CASE WHEN n % 10 < 6 THEN n END, 1, 1, 1, 0,
    '{{"turns":1,"usage":{{}},"files":{{}},"tests":null,"wall_ms":1}}',
    0, 'none', n + {MANY}
  FROM generate_series(1, {MANY}) n;
INSERT INTO run_specs SELECT n + {MANY}, '{{"goal":"g","backend":"echo"}}', 'goal',
    '{{}}' FROM generate_series(1, {MANY}) n;
INSERT INTO run_labels SELECT n + {MANY}, 'team', 'a' || n % 20 FROM generate_series(1, {MANY}) n;
INSERT INTO run_places SELECT n + {MANY}, d, d || ':' || n FROM generate_series(1, {MANY}) n, generate_series(0, 1) d;
INSERT INTO leases (run_pk, worker_pk, token, renewal) SELECT n + {MANY}, n % 50, 1, 0 FROM generate_series(1,
    {MANY}) n;
INSERT INTO workspace_locks SELECT n + {MANY}, 0, 'hst_' || n % 20, '1:' || n, 0 FROM generate_series(1, {MANY}) n;
INSERT INTO events SELECT s, q, 'output.recorded', 1, q, 1, 'x'::bytea
  FROM generate_series(1, {2 * MANY}) s, generate_series(1, 3) q;
INSERT INTO turns (run_pk, number, attempt, state, backend, token, folder, started_at, ended_at, first_seq,
    stdout, stderr,
  items, resume_before) SELECT n + {MANY}, 1, 1, 'completed', 'echo', 1, 'f', n, n, 1, 0, 0, 0, '{{}}'
  FROM generate_series(1, {MANY}) n;
INSERT INTO inputs SELECT n + {MANY}, 1, 1, 1, 'x'::bytea FROM generate_series(1, {MANY}) n;
INSERT INTO messages SELECT n, m, 'user', 't', 1 FROM generate_series(1, {MANY}) n, generate_series(1, 2) m;
INSERT INTO approvals (id, owner, run_pk, run_id, session_pk, session_id, turn, attempt, request, kind, title,
    context,
  digest, options, state, decision, default_option, expires_at, created_at, resolved_at)
  SELECT 'apr_' || n, 'usr_' || n % 50, n + {MANY}, 'run_' || n, n, 'ses_' || n, 1, 1, 'r' || n, 'question',
    't', '{{}}',
  'd', '[]', CASE WHEN n % 20 = 0 THEN 'pending' ELSE 'resolved' END, CASE WHEN n % 20 <> 0 THEN 'x' END, 'o', n, n,
  CASE WHEN n % 20 <> 0 THEN n END FROM generate_series(1, {MANY}) n;
INSERT INTO requests (run_pk, kind, body, owner, actor, created_at, settled_at, outcome)
  SELECT n + {MANY}, 'cancel', '{{}}', 'o', 'a', n, CASE WHEN n % 20 <> 0 THEN n END,
    CASE WHEN n % 20 <> 0 THEN 'x' END
  FROM generate_series(1, {MANY}) n;
INSERT INTO queue (id, session_pk, text, actor, state, created_at, settled_at)
  SELECT 'msg_' || n, n, 't', 'a', CASE WHEN n % 20 = 0 THEN 'queued' ELSE 'sent' END, n,
  CASE WHEN n % 20 <> 0 THEN n END FROM generate_series(1, {MANY}) n;
INSERT INTO shares (id, session_pk, kind, "user", role, actor, created_at)
  SELECT 'shr_' || n, n, 'user', 'usr_' || n % 500, 'viewer', 'a', n FROM generate_series(1, {MANY}) n;
INSERT INTO idempotency SELECT 'o', 'r', 'k' || n, 'h', n + {MANY} FROM generate_series(1, {MANY}) n;
SET session_replication_role = origin;
ANALYZE
"""


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
        (gates._NEXT_OF_SESSION, "ix_runs_gate_session"),
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
