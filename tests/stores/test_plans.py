"""Every statement that runs often goes by an index, whatever the tables hold."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stores.filling import fill_sqlite

from overnight.clock import SystemClock
from overnight.domain.states import State
from overnight.ports.session_tables import SessionFilter
from overnight.ports.tables import RunFilter
from overnight.stores.sql import (
    approvals,
    changes,
    claims,
    events,
    gates,
    holds,
    installation,
    lanes,
    leases,
    migrate,
    model_calls,
    places,
    queue,
    remote,
    requests,
    room,
    run_pages,
    runs,
    session_pages,
    session_removal,
    sessions,
    shares,
    streams,
    tokens,
    turns,
    workers,
)
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.sqlite_link import SqliteLink
from overnight.stores.sql.statements import Statement
from overnight.stores.sql.transaction import SqlTransaction

MODULES = (
    approvals, changes, claims, events, gates, holds, installation, lanes, leases, model_calls, places, queue, remote,
    requests, room, run_pages, runs, session_pages, session_removal, sessions, shares, streams, tokens, turns, workers,
)  # fmt: skip
WHOLE_TABLE_IS_RIGHT = {
    "tokens._ALL", "tokens._FIND",  # people make a handful of them
    "lanes._ALL", "lanes._SERVED_BY_LABELS",  # their own walk from lane to lane
    "workers._ALL", "workers._CHECKS", "workers._FORGET",  # those of the last weeks
    "workers._FORGET_WITH_THEM", "workers._FORGET_WITH_THEM1",
    "leases._ALL_HELD", "leases._STANDING",  # all that is held: as many as there are slots
    "room._BACKENDS", "room._LABELS",
    "events._PAGE",  # what it has found of one page
    "installation._LISTED",  # single facts, and what hosts still have to remove
}  # fmt: skip
GIVEN_BY_THE_CALLER = "VIRTUAL TABLE"
NO_TABLE = "CONSTANT ROW"


def statements() -> Iterator[tuple[str, Statement]]:
    for module in MODULES:
        for name, value in vars(module).items():
            found = value if isinstance(value, tuple) else (value,)
            for n, statement in enumerate(found):
                if isinstance(statement, Statement) and not statement.sql.startswith("INSERT"):
                    yield f"{module.__name__.rpartition('.')[2]}.{name}{n or ''}", statement


@pytest.fixture(scope="module", params=["empty", "filled", "analyzed"])
def link(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLink]:
    """As a database is at first, as it is after weeks, and as it is where somebody has counted its rows."""
    path: Path = tmp_path_factory.mktemp("plans") / "o.db"
    connections = Connections(path, "NORMAL")
    migrate.prepare(path, connections, SystemClock())
    found = connections.open(writing=True)
    if request.param != "empty":
        fill_sqlite(found)
    if request.param == "analyzed":
        found.script("ANALYZE")
    yield found
    found.close()


def plan(link: SqliteLink, sql: str) -> list[str]:
    marks = sql.count("?")
    return [row[3] for row in link.raw.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * marks)]


@pytest.mark.parametrize("name, statement", [pytest.param(*found, id=found[0]) for found in statements()])
def test_no_fixed_statement_reads_a_whole_table(link: SqliteLink, name: str, statement: Statement) -> None:
    steps = plan(link, statement.sql)
    scans = [step for step in steps if step.startswith("SCAN") and not step.endswith(NO_TABLE)]
    scans = [step for step in scans if GIVEN_BY_THE_CALLER not in step]
    assert name in WHOLE_TABLE_IS_RIGHT or not scans, steps


@pytest.mark.parametrize(
    "statement, index",
    [
        (claims._DUE, "ix_runs_due"),
        (claims._DUE_LIMITED, "ix_runs_limited"),
        (claims._NEXT_LIMIT, "ix_runs_limited"),
        (gates._EARLIER, "ix_runs_session"),
        (gates._OPEN_TIME, "ix_runs_gate_time"),
        (gates._OPEN_NEXT, "ix_runs_gate_session"),
        (gates._WAITING, "ix_runs_due"),
        (gates._WAITING, "ix_runs_limited"),
        (places._WAITED_FOR, "ix_runs_gate_key"),
        (places._FIRST_OF_NEXT_LANE, "ix_runs_gate_key"),
        (lanes._FIND, "uq_lanes_lane"),
        (lanes._SERVED, "ix_runs_due"),
        (lanes._SERVED, "uq_lanes_lane"),
        (lanes._SERVED_BY_LABELS, "ix_runs_due"),
        (lanes._SERVED_BY_LABELS, "ix_runs_limited"),
        (gates._LAST_CHILD, "ix_runs_session"),
        (installation._EXPIRED, "ix_runs_ended"),
        (approvals._OVERDUE, "ix_approvals_overdue"),
        (approvals._PENDING, "ix_approvals_run"),
        (approvals._OF_REQUEST, "uq_approvals_request"),
        (approvals._UNUSED, "ix_approvals_run"),
        (approvals._RULES, "uq_rules_rule"),
        (run_pages._CHANGED, "ix_runs_change"),
        (run_pages._CHANGED_OF, "ix_runs_change"),
        (requests._PENDING, "ix_requests_pending"),
        (places._LOCKED_INSIDE, "ix_workspace_locks_node"),
        (session_removal._USED, "ix_runs_session"),
        (sessions._LIVE, "ix_runs_session"),
        (sessions._UNTOUCHED, "ix_sessions_untouched"),
        (queue._QUEUED, "ix_queue_waiting"),
        (shares._OF_USER, "uq_shares_user"),
        (shares._WITH_USER, "ix_shares_of_user"),
    ],
)
def test_the_index_made_for_it(link: SqliteLink, statement: Statement, index: str) -> None:
    steps = plan(link, statement.sql)
    assert any(index in step for step in steps), steps
    if "ORDER BY" in statement.sql:
        assert not any("TEMP B-TREE" in step for step in steps), steps


@pytest.mark.parametrize(
    "asked, index",
    [
        (RunFilter(), "ix_runs_newest"),
        (RunFilter(owner="a"), "ix_runs_owner_newest"),
        (RunFilter(owner="a", states=(State.RUNNING,)), "ix_runs_owner_state"),
    ],
)
def test_pages_come_from_an_index_in_order(
    link: SqliteLink, monkeypatch: pytest.MonkeyPatch, asked: RunFilter, index: str
) -> None:
    seen: list[str] = []
    link.raw.set_trace_callback(seen.append)
    transaction = SqlTransaction(link, SystemClock(), SystemClock())
    transaction.runs.page(asked, limit=50)
    transaction.runs.page(asked, limit=50, after=(5, 5))
    link.raw.set_trace_callback(None)
    pages = [sql for sql in seen if "run_specs" in sql]
    assert len(pages) == 2
    for sql in pages:
        steps = [row[3] for row in link.raw.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert any(index in step for step in steps), steps
        assert not any(step[4:] == "TEMP B-TREE FOR ORDER BY" for step in steps), steps


@pytest.mark.parametrize("owner, index", [(None, "ix_sessions_newest"), ("a", "ix_sessions_owner_newest")])
def test_sessions_come_from_an_index_in_order(link: SqliteLink, owner: str | None, index: str) -> None:
    seen: list[str] = []
    link.raw.set_trace_callback(seen.append)
    SqlTransaction(link, SystemClock(), SystemClock()).sessions.page(
        SessionFilter(owner=owner), limit=50, after=(5, 5)
    )
    link.raw.set_trace_callback(None)
    own, *shared = [[row[3] for row in link.raw.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in seen]
    assert any(index in step for step in own), own
    assert not any(step[4:] == "TEMP B-TREE FOR ORDER BY" for step in own), own
    for steps in shared:
        assert any("ix_shares_of_user" in step for step in steps), steps
        assert not any(step.startswith("SCAN") for step in steps), steps


def test_held_runs_are_found_without_reading_all(link: SqliteLink) -> None:
    seen: list[str] = []
    link.raw.set_trace_callback(seen.append)
    SqlTransaction(link, SystemClock(), SystemClock()).leases.held()
    link.raw.set_trace_callback(None)
    steps = [row[3] for row in link.raw.execute(f"EXPLAIN QUERY PLAN {seen[-1]}")]
    assert any("ix_runs_held" in step for step in steps), steps
    assert not any(step.startswith("SCAN runs") and "ix_runs_held" not in step for step in steps), steps
