"""`overnight db copy`: everything arrives, is proven to be the same, and half a copy is taken for nothing else."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.clock import SystemClock
from overnight.domain.event import Draft
from overnight.domain.request import Principal
from overnight.domain.session import SessionMessage
from overnight.errors import Conflict, DataInUse, NotFound, UnsafeDatabase
from overnight.ports.tables import RunFilter
from overnight.ports.unit_of_work import Store
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql import copy_ends, copying, postgres_admin
from overnight.stores.sql.connections import Connections
from overnight.stores.sql.postgres import PostgresStore
from overnight.stores.sql.postgres_connections import PostgresConnections
from overnight.stores.sql.postgres_link import PostgresLink
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.clocks import ManualClock
from overnight.testing.conformance.stage import Stage
from overnight.testing.services.postgres import PostgresServer

CLOCK = SystemClock()
RUNS, EVENTS = 12, 120


def silent(table: str, done: int) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has closed a store is gone, however long this machine takes to see it."""
    monkeypatch.setattr(postgres_admin, "LEAVES_S", 60.0)


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.fresh()
    yield postgres_server.url(name)
    postgres_server.drop(name)


async def fill(store: Store) -> None:
    """A little of everything, with holes where rows were deleted."""
    stage = Stage(uow=store, notifier=InprocNotifier(), clock=ManualClock())
    for n in range(RUNS):
        run = await stage.run(
            spec={"goal": f"Straße {n} ✓", "labels": {"n": str(n)}},
            chain=(f"1:{n}", "1:0"),
            environment={"TOKEN": "geheim"},
        )
        drafts = [Draft(type="output.recorded", data={"n": m, "text": "ü" * 40}) for m in range(EVENTS)]
        await store.write(lambda tx, run=run, drafts=drafts: tx.events.append(run.pk, drafts, 5))  # type: ignore[misc]
        await store.write(
            lambda tx, run=run: tx.sessions.add_message(  # type: ignore[misc]
                run.session_pk, SessionMessage(role="user", text=f"a\u0000b {run.pk}", at=5)
            )
        )
    held, _, _ = await stage.held()
    await stage.finish(held)
    by = Principal(owner="usr_local", name="me")
    last = await store.write(lambda tx: tx.requests.add(held.pk, "cancel", {}, by, 5))
    await store.write(lambda tx: tx.runs.delete(held.pk))
    await store.write(lambda tx: tx.installation.put("fact", str(last.pk)))
    await store.write(lambda tx: tx.installation.put("host_id", "hst_old"))


def installation(path: Path) -> Path:
    async def make() -> None:
        store = SqliteStore(path, CLOCK, InprocNotifier())
        await store.start()
        await fill(store)
        await store.close()

    asyncio.run(make())
    return path


def test_there_and_back_again(tmp_path: Path, url: str) -> None:
    path = installation(tmp_path / "a" / "o.db")
    seen: list[tuple[str, int]] = []
    proof = copy_ends.to_postgres(path, url, CLOCK, lambda table, done: seen.append((table, done)))
    assert (proof.rows["runs"], proof.streams, proof.mended) == (RUNS, RUNS, RUNS)
    assert proof.events == RUNS * (EVENTS + 1) == proof.rows["events"]
    assert ("events", 500) in seen

    async def look() -> None:
        store = PostgresStore(url, CLOCK, InprocNotifier())
        await store.start()
        page = await store.read(lambda tx: tx.runs.page(RunFilter(text="STRASSE"), limit=100))
        assert len(page.runs) == RUNS
        run = page.runs[0]
        assert run.spec.goal == f"Straße {RUNS - 1} ✓"
        assert await store.read(lambda tx: tx.runs.secret_environment(run.pk)) == {"TOKEN": "geheim"}
        (message,) = await store.read(lambda tx: tx.sessions.messages(run.session_pk, 5))
        assert message.text == f"a\ufffdb {run.pk}"
        before = int(await store.read(lambda tx: tx.installation.get("fact")) or 0)
        assert await store.read(lambda tx: tx.installation.get("host_id")) is None
        by = Principal(owner="usr_local", name="me")
        added = await store.write(lambda tx: tx.requests.add(run.pk, "cancel", {}, by, 5))
        assert added.pk > before, "a key that was deleted is not given out again"
        await store.close()

    asyncio.run(look())
    back = tmp_path / "b" / "o.db"
    again = copy_ends.to_sqlite(url, back, silent)
    assert again.rows == {**proof.rows, "requests": 1}
    assert {k: v for k, v in again.digests.items() if k != "requests"} == {
        k: v for k, v in proof.digests.items() if k != "requests"
    }
    assert back.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in back.parent.iterdir()) == ["o.db"]

    async def go_on() -> None:
        store = SqliteStore(back, CLOCK, InprocNotifier())
        await store.start()
        await Stage(uow=store, notifier=InprocNotifier(), clock=ManualClock()).run()
        await store.close()

    asyncio.run(go_on())


def test_what_was_changed_on_the_way_is_found(
    tmp_path: Path, url: str, postgres_server: PostgresServer
) -> None:
    path = installation(tmp_path / "o.db")
    copy_ends.to_postgres(path, url, CLOCK, silent)
    left, right = Connections(path, "FULL").open(writing=False), PostgresConnections(url).open(writing=True)
    assert copying.prove(left, right).rows["runs"] == RUNS
    right.script("UPDATE events SET body = body || '\\x20' WHERE seq = 7 AND stream_pk = 8")
    with pytest.raises(UnsafeDatabase, match=r"copy of events differs: .* first stream that differs is 8"):
        copying.prove(left, right)
    right.script("UPDATE events SET body = substr(body, 1, length(body) - 1) WHERE seq = 7 AND stream_pk = 8")
    right.script("DELETE FROM run_labels WHERE value = '3'")
    with pytest.raises(UnsafeDatabase, match=r"run_labels differs: 12 rows .* 11 "):
        copying.prove(left, right)
    left.close()
    right.close()


def test_half_a_copy_is_no_database(tmp_path: Path, url: str) -> None:
    path = installation(tmp_path / "o.db")

    def stop(table: str, done: int) -> None:
        if table == "events":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_ends.to_postgres(path, url, CLOCK, stop)
    store = PostgresStore(url, CLOCK, InprocNotifier())
    with pytest.raises(UnsafeDatabase, match="never finished"):
        asyncio.run(store.start())
    with pytest.raises(UnsafeDatabase, match="never finished"):
        copy_ends.to_postgres(path, url, CLOCK, silent)


def test_half_a_file_is_no_file(tmp_path: Path, url: str) -> None:
    copy_ends.to_postgres(installation(tmp_path / "o.db"), url, CLOCK, silent)

    def stop(table: str, done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_ends.to_sqlite(url, tmp_path / "back" / "o.db", stop)
    assert list((tmp_path / "back").iterdir()) == []


def test_whatever_is_in_use_or_in_the_way_is_left_alone(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = installation(tmp_path / "o.db")
    with pytest.raises(NotFound):
        copy_ends.to_postgres(tmp_path / "none.db", url, CLOCK, silent)

    async def beside(store: Store, error: type[Exception], call: object) -> None:
        await store.start()
        with pytest.raises(error):
            await asyncio.to_thread(call)  # type: ignore[arg-type]
        await store.close()

    asyncio.run(
        beside(
            SqliteStore(path, CLOCK, InprocNotifier()),
            DataInUse,
            lambda: copy_ends.to_postgres(path, url, CLOCK, silent),
        )
    )
    monkeypatch.setattr(postgres_admin, "LEAVES_S", 0.2)
    for call in (
        lambda: copy_ends.to_postgres(path, url, CLOCK, silent),
        lambda: copy_ends.to_sqlite(url, tmp_path / "x.db", silent),
    ):
        asyncio.run(beside(PostgresStore(url, CLOCK, InprocNotifier()), DataInUse, call))
    monkeypatch.setattr(postgres_admin, "LEAVES_S", 60.0)
    copy_ends.to_postgres(path, url, CLOCK, silent)
    with pytest.raises(Conflict, match="not empty"):
        copy_ends.to_postgres(path, url, CLOCK, silent)
    with pytest.raises(Conflict, match="there already"):
        copy_ends.to_sqlite(url, path, silent)


def test_a_backup_is_made_beside_servers_at_work(tmp_path: Path, url: str) -> None:
    copy_ends.to_postgres(installation(tmp_path / "o.db"), url, CLOCK, silent)

    async def play() -> None:
        store = PostgresStore(url, CLOCK, InprocNotifier())
        await store.start()
        over = asyncio.Event()

        async def write_on() -> int:
            n = 0
            while not over.is_set():
                n += 1
                await store.write(lambda tx, n=n: tx.installation.put("fact", str(n)))  # type: ignore[misc]
            return n

        writing = asyncio.ensure_future(write_on())
        await asyncio.to_thread(copy_ends.to_sqlite, url, tmp_path / "backup.db", silent, live=True)
        over.set()
        assert await writing > 1
        await store.close()

    asyncio.run(play())


def test_the_command(
    tmp_path: Path,
    url: str,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from overnight.cli import main

    installation(tmp_path / "overnight.db")
    (tmp_path / "host.json").unlink(missing_ok=True)
    monkeypatch.setenv("OVERNIGHT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("OVERNIGHT_DATABASE_URL", url)
    monkeypatch.setattr("sys.argv", ["overnight", "db", "copy", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert told["rows"]["runs"] == RUNS
    assert json.loads((tmp_path / "host.json").read_text()) == {"host_id": "hst_old"}
    for words in (["check"], ["upgrade"], ["backup", str(tmp_path / "x.db")]):
        monkeypatch.setattr("sys.argv", ["overnight", "db", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None), words
    fresh = postgres_server.url(postgres_server.fresh())
    monkeypatch.setenv("OVERNIGHT_DATABASE_URL", fresh)
    monkeypatch.setattr("sys.argv", ["overnight", "db", "restore", str(tmp_path / "x.db")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    left, right = (PostgresConnections(each).open(writing=False) for each in (url, fresh))
    assert copying.prove(left, right).rows["runs"] == RUNS
    left.close()
    right.close()


def test_two_copies_to_one_file_do_not_meet(tmp_path: Path, url: str) -> None:
    copy_ends.to_postgres(installation(tmp_path / "o.db"), url, CLOCK, silent)
    back, met = tmp_path / "back" / "o.db", list[str]()

    def another(table: str, done: int) -> None:
        if not met:
            with pytest.raises(Conflict, match="another copy is being written"):
                copy_ends.to_sqlite(url, back, silent)
            met.append(table)

    proof = copy_ends.to_sqlite(url, back, another)
    assert met
    assert sorted(file.name for file in back.parent.iterdir()) == ["o.db"]
    left, right = Connections(back, "FULL").open(writing=False), PostgresConnections(url).open(writing=False)
    assert copying.prove(left, right).rows == proof.rows
    left.close()
    right.close()


def test_what_a_killed_copy_has_left_is_not_in_the_way(tmp_path: Path, url: str) -> None:
    """Also where it had just given its file the name: then the other name is of a database in use by now."""
    path = installation(tmp_path / "o.db")
    copy_ends.to_postgres(path, url, CLOCK, silent)
    goal = tmp_path / "back" / "o.db"
    goal.parent.mkdir()
    goal.with_name("o.db.copying").hardlink_to(path)
    goal.with_name("o.db.copying-wal").write_text("rubbish")
    before = path.read_bytes()
    copy_ends.to_sqlite(url, goal, silent)
    assert [file.name for file in goal.parent.iterdir()] == ["o.db"]
    assert path.read_bytes() == before


def test_a_server_that_starts_meanwhile_waits_and_finds_half_a_copy(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at who is there and the mark nobody can slip in: that is all done under the writers' lock."""
    path, looks = installation(tmp_path / "o.db"), list[bool]()
    original = postgres_admin.expect_alone

    def look(link: PostgresLink, connections: PostgresConnections) -> None:
        original(link, connections)
        ((many,),) = link.rows(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        )
        looks.append(bool(many))

    monkeypatch.setattr(copy_ends, "expect_alone", look)
    copy_ends.to_postgres(path, url, CLOCK, silent)
    assert looks[-1]
