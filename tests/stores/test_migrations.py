"""Schemas and copies: what `overnight db` and an upgrade do to a database, and what they leave behind."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.clock import SystemClock
from overnight.errors import Conflict, DataInUse, NotFound, UnsafeDatabase
from overnight.ports.session_tables import SessionFilter
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import admin, migrate
from overnight.stores.sql.library import driver
from overnight.stores.sql.schema import ALL_TABLES
from overnight.stores.sql.sqlite import SqliteStore

CLOCK = SystemClock()
LATER = '''
"""A revision of the future."""
from alembic import op
revision = "9999"
down_revision = "0004"

def upgrade() -> None:
    op.execute("ALTER TABLE installation ADD COLUMN note TEXT")
    {fault}

def downgrade() -> None:
    op.execute("ALTER TABLE installation DROP COLUMN note")
'''


def made(path: Path, value: str = "kept") -> Path:
    async def make() -> None:
        store = SqliteStore(path, CLOCK, InprocNotifier())
        await store.start()
        await store.write(lambda tx: tx.installation.put("fact", value))
        await store.close()

    asyncio.run(make())
    return path


def fact(path: Path) -> str:
    connection = driver().connect(str(path))
    found = connection.execute("SELECT value FROM installation WHERE key = 'fact'").fetchone()[0]
    connection.close()
    return str(found)


def shape(path: Path) -> list[tuple[str, ...]]:
    """Every column, index, check and reference of the database, whatever the spelling of its SQL."""
    connection = driver().connect(str(path))
    found: list[tuple[str, ...]] = []
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name"):
        words = " ".join((sql or "").replace('"', "").split())
        if kind == "index":
            found.append((kind, name, words))
            continue
        columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
        found += [("column", name, *map(str, column)) for column in columns]
        references = connection.execute(f"PRAGMA foreign_key_list({name})").fetchall()
        found += sorted(("reference", name, *map(str, row[2:])) for row in references)
        found += sorted(
            ("check", name, check) for check in re.findall(r"CONSTRAINT ck_\w+ CHECK \(.*?\)(?=,| \))", words)
        )
        found.append(("table", name, words[words.rfind(")") :]))
    connection.close()
    return found


@pytest.fixture
def later(tmp_path: Path) -> tuple[Path, ...]:
    folder = tmp_path / "later"
    folder.mkdir()
    (folder / "9999_later.py").write_text(LATER.format(fault=""))
    return (folder,)


def test_the_first_revision_makes_the_schema_of_the_code(tmp_path: Path) -> None:
    fresh, walked = made(tmp_path / "a" / "o.db"), made(tmp_path / "b" / "o.db")
    assert admin.downgrade(walked, CLOCK, "base")
    assert migrate_from_base(walked)
    assert shape(walked) == shape(fresh)


def test_what_waited_for_a_budget_gets_an_approval_and_loses_it_again(tmp_path: Path) -> None:
    """From the first schema to the second with rows in it, and back."""
    path = made(tmp_path / "o.db")
    assert admin.downgrade(path, CLOCK, "0001")
    connection = driver().connect(str(path))
    connection.executescript(OLD_ROWS)
    connection.commit()
    connection.close()
    before = shape(path)
    assert admin.upgrade(path, CLOCK)

    async def look() -> None:
        store = SqliteStore(path, CLOCK, InprocNotifier())
        await store.start()
        run = await store.read(lambda tx: tx.runs.lock(2))
        (approval,) = await store.read(lambda tx: tx.approvals.pending(2))
        assert (approval.kind, approval.default_option, approval.expires_at) == ("budget", "finish", 900)
        assert [option.id for option in approval.options] == ["raise", "finish", "cancel"]
        assert run.waiting_for is not None
        assert (run.waiting_for.approval_id, run.waiting_for.detail) == (approval.id, "tokens: 5 of 4")
        assert run.waiting_since == 7
        (session,) = await store.read(
            lambda tx: tx.sessions.page(SessionFilter(owner="usr_local", text="STRASSE"), limit=5)
        )
        assert (session.name, session.phase, session.step, session.plan) == ("Straße", "init", None, None)
        await store.close()

    asyncio.run(look())
    assert admin.downgrade(path, CLOCK, "0001")
    assert shape(path) == before
    assert admin.upgrade(path, CLOCK)


OLD_ROWS = """
INSERT INTO streams (pk, kind, owner, run_id, session_id) VALUES (1, 'session', 'usr_local', NULL, 'ses_a');
INSERT INTO streams (pk, kind, owner, run_id, session_id) VALUES (2, 'run', 'usr_local', 'run_a', 'ses_a');
INSERT INTO sessions (pk, id, owner, name, mode, state, made_for_run, version, variables, config, created_at,
  updated_at) VALUES (1, 'ses_a', 'usr_local', 'Straße', 'continuous', 'active', 1, 1, '{}', '{}', 5, 5);
INSERT INTO runs (pk, id, owner, state, session_pk, session_id, host_id, mode, backend, priority, shared,
  created_at, updated_at, token, attempt, turn, fallback, stats, idle_turns, waiting_for, waiting_until,
  sandbox_effective, change) VALUES (2, 'run_a', 'usr_local', 'waiting', 1, 'ses_a', 'hst', 'continuous', 'echo',
  0, 0, 5, 7, 1, 1, 1, 0, '{"turns":1,"usage":{},"files":{},"tests":null,"wall_ms":1}', 0,
  '{"kind":"budget","approval_id":null,"detail":"tokens: 5 of 4"}', 900, 'none', 3);
INSERT INTO run_specs (run_pk, spec, goal_folded, environment) VALUES (2,
  '{"goal":"g","mode":"continuous","backend":"echo"}', 'g', '{}');
"""


def migrate_from_base(path: Path) -> bool:
    from overnight.stores.sql import migrations
    from overnight.stores.sql.connections import Connections

    return migrations.move(path, Connections(path, "FULL"), CLOCK, found="base").exists()


def test_the_head_of_the_revisions_is_the_one_the_code_names(tmp_path: Path) -> None:
    from alembic.script import ScriptDirectory

    from overnight.stores.sql.migrations import alembic_config

    assert ScriptDirectory.from_config(alembic_config(())).get_heads() == [migrate.HEAD]
    assert {table.name for table in ALL_TABLES} | {"alembic_version"} == set(
        admin.check(made(tmp_path / "o.db")).rows
    )


def test_up_and_down_again_with_copies(tmp_path: Path, later: tuple[Path, ...]) -> None:
    path = made(tmp_path / "o.db")
    before = shape(path)
    up = admin.upgrade(path, CLOCK, further=later)
    assert up is not None
    assert admin.check(path).revision == "9999"
    assert (fact(path), fact(up)) == ("kept", "kept")
    assert admin.check(up).revision == migrate.HEAD
    down = admin.downgrade(path, CLOCK, migrate.HEAD, further=later)
    assert down is not None
    assert admin.check(down).revision == "9999"
    assert shape(path) == before
    made(path, "again")
    assert fact(path) == "again"
    assert up.stat().st_mode & 0o777 == 0o600


def test_nothing_to_do_makes_no_copy(tmp_path: Path) -> None:
    path = made(tmp_path / "o.db")
    assert admin.upgrade(path, CLOCK) is None
    assert not list(tmp_path.glob("*backup*"))


def test_a_revision_that_fails_changes_nothing(tmp_path: Path, later: tuple[Path, ...]) -> None:
    path = made(tmp_path / "o.db")
    (later[0] / "9999_later.py").write_text(LATER.format(fault='op.execute("SELECT * FROM nowhere")'))
    before = shape(path)
    with pytest.raises(Exception, match="nowhere"):
        admin.upgrade(path, CLOCK, further=later)
    assert shape(path) == before
    assert admin.check(path).revision == migrate.HEAD
    made(path)


def test_unknown_revisions_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "o.db")
    with pytest.raises(UnsafeDatabase, match="0815"):
        admin.downgrade(path, CLOCK, "0815")
    assert not list(tmp_path.glob("*backup*"))


def test_a_copy_of_a_live_database(tmp_path: Path) -> None:
    async def play() -> None:
        store = SqliteStore(tmp_path / "o.db", CLOCK, InprocNotifier())
        await store.start()
        await store.write(lambda tx: tx.installation.put("fact", "live"))
        writing = asyncio.ensure_future(write_on(store))
        await asyncio.to_thread(admin.backup, tmp_path / "o.db", tmp_path / "copy.db")
        assert (await asyncio.to_thread(admin.check, tmp_path / "o.db")).problems == ()
        with pytest.raises(DataInUse):
            admin.restore(tmp_path / "o.db", tmp_path / "copy.db", CLOCK)
        await writing
        await store.close()

    async def write_on(store: SqliteStore) -> None:
        for n in range(50):
            await store.write(lambda tx: tx.installation.put(f"n{n}", "x" * 2000))  # noqa: B023 -- awaited at once

    asyncio.run(play())
    found = admin.check(tmp_path / "copy.db")
    assert (found.problems, found.revision) == ((), migrate.HEAD)
    assert fact(tmp_path / "copy.db") == "live"
    with pytest.raises(Conflict):
        admin.backup(tmp_path / "o.db", tmp_path / "copy.db")


def test_restoring_keeps_what_was_there(tmp_path: Path) -> None:
    path, copy = made(tmp_path / "o.db", "old"), tmp_path / "copy.db"
    admin.backup(path, copy)
    made(path, "new")
    kept = admin.restore(path, copy, CLOCK)
    assert kept is not None
    assert (fact(path), fact(kept)) == ("old", "new")
    made(path, "newest")
    assert fact(path) == "newest"


def test_what_is_damaged_is_not_restored(tmp_path: Path) -> None:
    path, copy = made(tmp_path / "o.db"), tmp_path / "copy.db"
    admin.backup(path, copy)
    with copy.open("r+b") as file:
        for page in range(2, 12):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    with pytest.raises(UnsafeDatabase):
        admin.restore(path, copy, CLOCK)
    assert fact(path) == "kept"


@pytest.mark.parametrize("content", [b"no database " * 1000, b""])
def test_a_copy_takes_the_place_even_of_what_is_no_database_any_more(tmp_path: Path, content: bytes) -> None:
    path, copy = made(tmp_path / "o.db"), tmp_path / "copy.db"
    admin.backup(path, copy)
    path.write_bytes(content)
    kept = admin.restore(path, copy, CLOCK)
    assert fact(path) == "kept"
    assert kept is not None
    assert kept.read_bytes().startswith(content)
    assert kept.stat().st_mode & 0o077 == 0


def test_what_is_no_database_is_told_with_its_mend(tmp_path: Path) -> None:
    path = made(tmp_path / "o.db")
    path.write_bytes(b"no database " * 1000)
    calls: tuple[Callable[[], object], ...] = (
        lambda: admin.backup(path, tmp_path / "copy.db"),
        lambda: admin.upgrade(path, CLOCK),
        lambda: admin.downgrade(path, CLOCK, "0001"),
    )
    for call in calls:
        with pytest.raises(UnsafeDatabase, match="not a database") as refused:
            call()
        assert "overnight db restore" in refused.value.mend
    assert not (tmp_path / "copy.db").exists()


def test_a_schema_that_never_was_is_not_said_to_be_that_of_the_file(tmp_path: Path) -> None:
    path = made(tmp_path / "o.db")
    with pytest.raises(UnsafeDatabase, match="there is no schema 0815"):
        admin.downgrade(path, CLOCK, "0815")
    assert fact(path) == "kept"


def test_there_must_be_a_database(tmp_path: Path) -> None:
    for call in (
        lambda: admin.check(tmp_path / "none.db"),
        lambda: admin.backup(tmp_path / "none.db", tmp_path / "copy.db"),
        lambda: admin.upgrade(tmp_path / "none.db", CLOCK),
    ):
        with pytest.raises(NotFound):
            call()
    assert list(tmp_path.iterdir()) == []


def test_the_schema_makes_sense_to_postgres_too() -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex, CreateTable

    dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
    for table in ALL_TABLES:
        text = str(CreateTable(table).compile(dialect=dialect))
        assert (
            "BIGINT" in text
            or "BIGSERIAL" in text
            or table.name in {"run_labels", "installation", "backend_states"}
        )
        for index in table.indexes:
            where = index.dialect_options["sqlite"]["where"]
            index.dialect_options["postgresql"]["where"] = where
            assert ("WHERE" in str(CreateIndex(index).compile(dialect=dialect))) == (where is not None)
