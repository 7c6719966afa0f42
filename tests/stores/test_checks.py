"""The database itself refuses what the table of states does not know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from overnight.domain.states import FINAL, State, TurnState
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.library import driver
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock

pytestmark = pytest.mark.anyio
FINAL_TURNS = set(TurnState) - {TurnState.STARTED}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Any]:
    store = SqliteStore(tmp_path / "overnight.db", ManualClock(), InprocNotifier())
    await store.start()
    await store.close()
    connection = driver().connect(tmp_path / "overnight.db", isolation_level=None)
    yield connection
    connection.close()


def insert(database: Any, table: str, **values: object) -> None:
    """A row with harmless values wherever one must be."""
    for _, name, kind, needed, default, _ in database.execute(f"PRAGMA table_info({table})").fetchall():
        if needed and default is None:
            values.setdefault(name, 0 if kind == "INTEGER" else "{}")
    names = ", ".join(values)
    database.execute("BEGIN")
    try:
        database.execute("PRAGMA defer_foreign_keys = ON")
        marks = ", ".join("?" * len(values))
        database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
    finally:
        database.execute("ROLLBACK")


@pytest.mark.parametrize("ended_at", [None, 5])
async def test_runs_and_turns_carry_their_end_when_they_have_ended_and_only_then(
    database: Any, ended_at: int | None
) -> None:
    for table, states, final in (("runs", State, FINAL), ("turns", TurnState, FINAL_TURNS)):
        for state in states:
            if (state in final) is (ended_at is not None):
                insert(database, table, state=state.value, ended_at=ended_at)
            else:
                with pytest.raises(driver().IntegrityError, match="ended_at"):
                    insert(database, table, state=state.value, ended_at=ended_at)


@pytest.mark.parametrize("table", ["runs", "turns"])
async def test_other_states_are_refused(database: Any, table: str) -> None:
    with pytest.raises(driver().IntegrityError, match="CHECK"):
        insert(database, table, state="resting", ended_at=None)
