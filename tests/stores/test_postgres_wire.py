"""What is said to Postgres past psycopg's cursors: values, refusals and losses are what they are with them."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import LargeBinary, bindparam, insert, literal_column, select, text
from sqlalchemy import cast as as_type
from sqlalchemy.types import BigInteger, Boolean, Text
from tests.stores.acts import CLOCK, get, put
from tests.stores.wire import Wire

from overnight.domain.worker import Offer
from overnight.errors import NotFound
from overnight.stores.sql import postgres_outcomes, postgres_schema
from overnight.stores.sql.changes import LAST
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.stores.sql.schema import installation, sessions
from overnight.stores.sql.statements import Statement, Unreached, key
from overnight.testing.conformance.stage import Stage
from overnight.testing.services.postgres import PostgresServer
from overnight.testing.signals import eventually

ADD = Statement(insert(installation))
VALUE = Statement(select(installation.c.value).where(installation.c.key == key("key")))
TOUCH = Statement(
    sessions.update().where(sessions.c.pk == key("pk")).values(updated_at=bindparam("at", type_=BigInteger()))
)
ECHO = Statement(
    select(
        as_type(bindparam("a"), Text()),
        as_type(bindparam("b"), BigInteger()),
        as_type(bindparam("c", type_=LargeBinary()), LargeBinary()),
        as_type(literal_column("true"), Boolean()),
        as_type(bindparam("d"), Text()),
    )
)
SLEEP = Statement(select(literal_column("1")).where(text("pg_sleep(:s) IS NOT NULL").bindparams(s=30)))


@pytest.fixture
def link(url: str) -> Iterator[PostgresLink]:
    found = PostgresConnections(url).open(writing=True)
    yield found
    found.close()


def begin(link: PostgresLink) -> None:
    link.begin(postgres_schema.BEGUN, LAST)
    link.defer()


@pytest.mark.parametrize("a", ["", "naïve 🌙", "x" * 3_000_000, None, "'\\"], ids=lambda a: repr(a)[:8])
@pytest.mark.parametrize(
    "c", [b"", b"\0\xff'\\", bytes(range(256)) * 20_000, None], ids=lambda c: repr(c)[:8]
)
def test_values_come_back_as_they_were(link: PostgresLink, a: str | None, c: bytes | None) -> None:
    for b in (-(1 << 63), (1 << 63) - 1, None, True):
        found = link.one(ECHO, a=a, b=b, c=c, d="end")
        assert found == (a, b, c, True, "end")


def test_a_result_is_given_up_once_it_was_read(link: PostgresLink) -> None:
    for _ in range(3):
        assert link.one(ECHO, a="x", b=1, c=None, d="end") == ("x", 1, None, True, "end")
    assert [loader.pgresult for loader in link._wire._loaders.values()] == [None]


def test_a_nul_is_shown_for_what_it_is(link: PostgresLink) -> None:
    found = link.one(ECHO, a="a\0b", b=0, c=b"a\0b", d=None)
    assert found == ("a\N{REPLACEMENT CHARACTER}b", 0, b"a\0b", True, None)


@pytest.mark.parametrize("value, error", [("\ud800", UnicodeEncodeError), (object(), TypeError)])
def test_what_cannot_be_sent_is_refused_before(
    link: PostgresLink, value: Any, error: type[Exception]
) -> None:
    begin(link)
    link.tell(ADD, key="a", value="1")
    with pytest.raises(error):
        link.tell(ADD, key="b", value=value)
    link.tell(ADD, key="c", value="3")
    link.commit()
    assert [link.one(VALUE, key_key=name) for name in ("a", "b", "c")] == [("1",), None, ("3",)]


def test_a_refusal_has_its_own_class_and_leaves_the_connection_usable(link: PostgresLink) -> None:
    link.run(ADD, key="a", value="1")
    with pytest.raises(psycopg.errors.UniqueViolation, match="pk_installation") as refused:
        link.run(ADD, key="a", value="2")
    assert refused.value.sqlstate == "23505"
    assert link.one(VALUE, key_key="a") == ("1",)


def test_of_what_went_together_the_first_error_is_told(link: PostgresLink) -> None:
    begin(link)
    link.tell(ADD, key="a", value="1")
    link.tell(ADD, key="a", value="2")
    link.change_one(TOUCH, NotFound("none"), key_pk=-1, at=1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        link.one(VALUE, key_key="a")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        link.one(VALUE, key_key="a")
    link.abandon()
    assert link.one(VALUE, key_key="a") is None


def test_a_commit_is_not_come_to_behind_an_error(link: PostgresLink) -> None:
    begin(link)
    link.tell(ADD, key="a", value="1")
    link.change_one(TOUCH, NotFound("none"), key_pk=-1, at=1)
    with pytest.raises(Unreached) as unreached:
        link.commit()
    assert isinstance(unreached.value.__cause__, psycopg.errors.DivisionByZero)
    link.abandon()
    assert link.one(VALUE, key_key="a") is None


def test_a_commit_that_became_a_rollback_is_no_commit(link: PostgresLink) -> None:
    link.script("BEGIN")
    with pytest.raises(psycopg.errors.UndefinedTable):
        link.rows("SELECT * FROM nothing")
    with pytest.raises(psycopg.OperationalError, match="ROLLBACK"):
        link.script("COMMIT")


def test_a_statement_that_could_not_be_prepared_is_prepared_later(
    link: PostgresLink, reused: str, postgres_server: PostgresServer
) -> None:
    asked = Statement(select(literal_column("n")).select_from(text("later")))
    for _ in range(2):
        with pytest.raises(psycopg.errors.UndefinedTable):
            link.all(asked)
    postgres_server.execute("CREATE TABLE later AS SELECT 7 AS n", reused)
    try:
        assert link.all(asked) == [(7,)]
        assert link.all(asked) == [(7,)]
    finally:
        postgres_server.execute("DROP TABLE later", reused)


def test_the_server_ends_what_takes_too_long(link: PostgresLink) -> None:
    link.script("SET statement_timeout = 50; SELECT 1")
    with pytest.raises(psycopg.errors.QueryCanceled) as refused:
        link.one(SLEEP)
    assert postgres_outcomes.is_storage_failure(refused.value)
    assert link.one(VALUE, key_key="a") is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "how, error, cut",
    [("pg_cancel_backend", "QueryCanceled", False), ("pg_terminate_backend", "AdminShutdown", True)],
)
async def test_others_end_a_statement_or_the_session(
    link: PostgresLink, postgres_server: PostgresServer, how: str, error: str, cut: bool
) -> None:
    caught: list[Exception] = []

    def asks() -> None:
        try:
            link.one(SLEEP)
        except psycopg.Error as found:
            caught.append(found)

    pid = link.raw.info.backend_pid
    asking = threading.Thread(target=asks)
    asking.start()
    sleeps = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
    await eventually(lambda: bool(postgres_server.execute(sleeps)), within=60)
    postgres_server.execute(f"SELECT {how}({pid})")
    await eventually(lambda: not asking.is_alive(), within=60)
    assert type(caught[0]).__name__ == error
    assert postgres_outcomes.is_cut(caught[0]) is cut
    if not cut:
        assert link.one(VALUE, key_key="a") is None


def test_a_way_that_is_lost_is_told_as_lost(reused: str, cuttable: Wire) -> None:
    address = f"postgresql://overnight@127.0.0.1:{cuttable.port}/{reused}"
    link = PostgresConnections(address).open(writing=True)
    begin(link)
    link.tell(ADD, key="a", value="1")
    cuttable.cut()
    with pytest.raises(psycopg.OperationalError) as lost:
        link.commit()
    assert postgres_outcomes.is_cut(lost.value)
    link.close()


def test_more_than_both_sides_can_hold_goes_through(link: PostgresLink) -> None:
    """Megabytes that are told, and megabytes that come back, without either side waiting for the other."""
    begin(link)
    big = "y" * 200_000
    for n in range(100):
        link.tell(ADD, key=f"big {n}", value=big)
    for n in range(3_000):
        link.tell(ADD, key=f"small {n}", value="1")
    assert link.one(VALUE, key_key="big 99") == (big,)
    assert len(link.all(Statement(select(installation.c.value)))) >= 3_100
    assert link.raw.pgconn.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    link.abandon()


def test_the_librarys_own_calls_stand_between(link: PostgresLink) -> None:
    begin(link)
    link.tell(ADD, key="a", value="1")
    wanted = select(installation.c.value).where(installation.c.key == "a")
    assert link.select(wanted) == [("1",)]
    link.tell(ADD, key="b", value="2")
    assert link.rows("SELECT value FROM installation WHERE key = $1", "b") == [("2",)]
    link.commit()
    assert link.select(wanted) == [("1",)]


@pytest.mark.anyio
async def test_what_changes_nothing_leaves_no_mark(postgres_stage: Stage) -> None:
    """So a worker that asks in vain has the database write nothing to its disk."""
    worker = await postgres_stage.worker()
    offer = Offer(worker_pk=worker.pk, host_id=worker.host_id, backends=("echo",), free=4)

    def marks() -> Any:
        return postgres_stage.uow.read(
            lambda tx: [tx.installation.get(name) for name in tx.installation.listed("writer.", 9)]
        )

    before = await marks()
    assert len(before) == 1
    for _ in range(3):
        assert await postgres_stage.uow.write(lambda tx: tx.leases.claim(offer, CLOCK.wall_ms())) == ()
    assert await marks() == before
    await postgres_stage.uow.write(lambda tx: tx.installation.put("a", "1"))
    assert await marks() != before


@pytest.mark.anyio
async def test_a_reader_that_was_cut_behind_its_last_query_asks_again(
    over_wire: PostgresStore, cuttable: Wire
) -> None:
    """Nobody waits for the end of a query's snapshot: that it was lost shows with the next."""
    await over_wire.write(lambda tx: put("a", tx))
    for _ in range(6):
        assert await get(over_wire, "a") == "1"
    cuttable.cut()
    for _ in range(6):
        assert await get(over_wire, "a") == "1"
