"""The schema on Postgres: made once, walked up and down, and used by programs of more than one version."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.clock import SystemClock
from overnight.errors import NotFound, SchemaOutdated, UnsafeDatabase
from overnight.ports.tables import RunFilter
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import migrate, postgres_admin, postgres_schema
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.testing.services.postgres import PostgresServer

CLOCK = SystemClock()
LATER = '''
"""A revision of the future."""
from alembic import op
revision = "9999"
down_revision = "{head}"
{usable}

def upgrade() -> None:
    op.execute("ALTER TABLE installation ADD COLUMN note TEXT")
    op.execute("CREATE TABLE later (pk BIGINT PRIMARY KEY)")
    {fault}

def downgrade() -> None:
    op.execute("ALTER TABLE installation DROP COLUMN note")
    op.execute("DROP TABLE later")
'''
SHAPE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
       coalesce(l.collname, ''), coalesce(regexp_replace(pg_get_expr(d.adbin, d.adrelid), '\\w+_seq', ''), '')
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  LEFT JOIN pg_collation l ON l.oid = a.attcollation AND l.collname <> 'default'
 WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
ORDER BY 1, 2, 3
"""


def shape(server: PostgresServer, name: str) -> list[tuple[object, ...]]:
    """Every column, index and constraint, in the server's own words."""
    return server.execute(SHAPE, name)


@pytest.fixture
def name(postgres_server: PostgresServer) -> Iterator[str]:
    found = postgres_server.fresh()
    yield found
    postgres_server.drop(found)


@pytest.fixture
def url(postgres_server: PostgresServer, name: str) -> str:
    return postgres_server.url(name)


@pytest.fixture
def made(url: str) -> str:
    """A database with today's schema and a fact in it."""

    async def make() -> None:
        store = PostgresStore(url, CLOCK, InprocNotifier())
        await store.start()
        await store.write(lambda tx: tx.installation.put("fact", "kept"))
        await store.close()

    asyncio.run(make())
    return url


def later(folder: Path, usable: str = "", fault: str = "") -> tuple[Path, ...]:
    folder.joinpath("9999_later.py").write_text(LATER.format(head=migrate.HEAD, usable=usable, fault=fault))
    return (folder,)


async def fact(url: str) -> str | None:
    store = PostgresStore(url, CLOCK, InprocNotifier())
    await store.start()
    try:
        await store.write(lambda tx: tx.installation.put("again", "x"))
        return await store.read(lambda tx: tx.installation.get("fact"))
    finally:
        await store.close()


def test_the_revisions_make_the_schema_of_the_code_there_and_back(
    postgres_server: PostgresServer, name: str, made: str
) -> None:
    fresh = shape(postgres_server, name)
    seen = {}
    for revision in ("0003", "0002", "0001", "base"):
        postgres_admin.downgrade(made, revision)
        seen[revision] = shape(postgres_server, name)
    for revision in ("0001", "0002", "0003", migrate.HEAD):
        postgres_admin.downgrade(made, revision)
        assert shape(postgres_server, name) == seen.get(revision, fresh), revision


def test_three_that_start_at_once_make_one_schema(url: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from overnight.clock import SystemClock\n"
        "from overnight.stores.inproc.notifier import InprocNotifier\n"
        "from overnight.stores.sql.postgres import PostgresStore\n"
        "async def main():\n"
        "    store = PostgresStore(sys.argv[1], SystemClock(), InprocNotifier())\n"
        "    sys.stdin.read(1)\n"
        "    await store.start()\n"
        "    print(await store.write(lambda tx: tx.runs.last_change()))\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    assert [process.communicate(timeout=100)[0].strip() for process in started] == ["0"] * 3
    assert postgres_admin.check(url).problems == ()


def test_an_older_schema_is_refused_and_left_alone(
    postgres_server: PostgresServer, name: str, made: str
) -> None:
    postgres_admin.downgrade(made, "0002")
    before = shape(postgres_server, name)
    with pytest.raises(SchemaOutdated) as caught:
        asyncio.run(fact(made))
    assert (caught.value.code, caught.value.mend) == ("schema_outdated", "overnight db upgrade")
    assert shape(postgres_server, name) == before
    assert postgres_admin.upgrade(made) == ("0002", migrate.HEAD)
    assert asyncio.run(fact(made)) == "kept"


def test_old_code_works_on_a_new_schema_that_allows_it(made: str, tmp_path: Path) -> None:
    further = later(tmp_path, usable=f'usable_from = "{migrate.HEAD}"')
    postgres_admin.upgrade(made, further=further)
    assert asyncio.run(fact(made)) == "kept"
    assert postgres_admin.check(made).problems == ()
    postgres_admin.downgrade(made, migrate.HEAD, further=further)
    assert asyncio.run(fact(made)) == "kept"


def test_old_code_is_kept_from_a_new_schema_that_does_not(made: str, tmp_path: Path) -> None:
    further = later(tmp_path)
    postgres_admin.upgrade(made, further=further)
    with pytest.raises(UnsafeDatabase, match="9999") as caught:
        asyncio.run(fact(made))
    assert "upgrade Overnight" in caught.value.mend
    with pytest.raises(UnsafeDatabase, match="9999"):
        postgres_admin.upgrade(made)
    postgres_admin.downgrade(made, migrate.HEAD, further=further)
    assert asyncio.run(fact(made)) == "kept"


def test_servers_go_on_while_the_schema_is_changed(
    postgres_server: PostgresServer, made: str, tmp_path: Path
) -> None:
    """Though readers take tables in another order than the revision changes them."""
    further = later(tmp_path, usable=f'usable_from = "{migrate.HEAD}"')
    file = next(tmp_path.glob("*.py"))
    text = file.read_text("utf-8")
    for table in ("run_specs", "streams", "runs"):
        text = text.replace(
            "upgrade() -> None:\n", f"upgrade() -> None:\n    {_alter(table, 'ADD COLUMN note TEXT')}"
        )
        text = text.replace(
            "downgrade() -> None:\n", f"downgrade() -> None:\n    {_alter(table, 'DROP COLUMN note')}"
        )
    file.write_text(text, "utf-8")

    async def play() -> None:
        store = PostgresStore(made, CLOCK, InprocNotifier())
        await store.start()
        over, rounds = asyncio.Event(), [0, 0]

        def look(tx: Any) -> None:
            tx._context.link.rows("SELECT count(*) FROM runs")
            tx._context.link.rows("SELECT pg_sleep(0.002)")
            tx.runs.page(RunFilter(), limit=5)

        async def read_on() -> None:
            while not over.is_set():
                await store.read(look)
                rounds[0] += 1

        async def write_on() -> None:
            while not over.is_set():
                await store.write(lambda tx: tx.installation.put("n", "x"))
                rounds[1] += 1

        going = [asyncio.ensure_future(each()) for each in (read_on, read_on, write_on)]
        for _ in range(2):
            await asyncio.to_thread(postgres_admin.upgrade, made, further=further)
            await asyncio.to_thread(postgres_admin.downgrade, made, migrate.HEAD, further=further)
        over.set()
        await asyncio.gather(*going)
        await store.close()
        assert min(rounds) > 5

    asyncio.run(play())
    name = made.split("/")[3].split("?", maxsplit=1)[0]
    found = postgres_server.execute(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'")
    assert found == [(0,)]


def _alter(table: str, how: str) -> str:
    return f'op.execute("ALTER TABLE {table} {how}")\n'


def test_a_revision_that_fails_changes_nothing(
    postgres_server: PostgresServer, name: str, made: str, tmp_path: Path
) -> None:
    before = shape(postgres_server, name)
    with pytest.raises(Exception, match="nowhere"):
        postgres_admin.upgrade(made, further=later(tmp_path, fault='op.execute("SELECT * FROM nowhere")'))
    assert shape(postgres_server, name) == before
    assert asyncio.run(fact(made)) == "kept"


def test_the_newest_revision_says_who_may_use_it_as_the_code_does(made: str, url: str) -> None:
    postgres_admin.downgrade(made, "0002")
    postgres_admin.upgrade(made)
    link = PostgresConnections(url).open(writing=False)
    assert postgres_schema.fact(link, migrate.USABLE_FROM) == migrate.OLDEST_PROGRAM
    link.close()


def test_what_is_none_of_ours_is_left_alone(postgres_server: PostgresServer, name: str, url: str) -> None:
    with pytest.raises(NotFound):
        postgres_admin.downgrade(url, "0002")
    postgres_server.execute("CREATE TABLE other (pk INT)", name)
    for call in (lambda: asyncio.run(fact(url)), lambda: postgres_admin.upgrade(url)):
        with pytest.raises(UnsafeDatabase, match="another program"):
            call()


def test_an_empty_database_gets_the_schema_by_upgrade(url: str) -> None:
    with pytest.raises(NotFound):
        postgres_admin.upgrade(url)
    assert postgres_admin.make_or_upgrade(url) == (None, migrate.HEAD)
    assert postgres_admin.make_or_upgrade(url) == (migrate.HEAD, migrate.HEAD)
    assert asyncio.run(fact(url)) is None


def test_a_schema_of_its_own_in_a_shared_database(
    postgres_server: PostgresServer, name: str, url: str
) -> None:
    postgres_server.execute("CREATE TABLE runs (other INT); CREATE SCHEMA mine", name)
    assert asyncio.run(fact(f"{url}&options=-csearch_path%3Dmine")) is None
    assert postgres_server.execute("SELECT count(*) FROM mine.counters", name) == [(1,)]
    with pytest.raises(UnsafeDatabase, match="search path"):
        asyncio.run(fact(f"{url}&options=-csearch_path%3Dyours"))
