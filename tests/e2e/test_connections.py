"""Who is connected, told by the assembled program; and nobody who leaves stops any work."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
from tests.e2e.conftest import Start
from tests.e2e.harness import TOKEN, Server, Subscriber, written

from overnight.clock import SystemClock
from overnight.domain.connection import Connection
from overnight.ids import WorkerId, new_connection_id, new_worker_id
from overnight.ports.unit_of_work import Transaction
from overnight.stores.inproc.notifier import InprocNotifier
from overnight.stores.sql.sqlite import SqliteStore
from overnight.testing.signals import wait_until

T = TypeVar("T")
STEADY = [["read_prompt"], ["pid", "agent.pid"], {"lines_until": {"path": "enough", "per_second": 50}}]


def connections(server: Server) -> list[dict[str, Any]]:
    """GET /connections."""
    answer = server.http.get("/api/v1/connections")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def in_database(server: Server, unit: Callable[[Transaction], T]) -> T:
    """While no server holds the data."""

    async def use() -> T:
        store = SqliteStore(server.data / "overnight.db", SystemClock(), InprocNotifier())
        await store.start()
        try:
            return await store.write(unit)
        finally:
            await store.close()

    return anyio.run(use)


def rows(server: Server) -> tuple[Connection, ...]:
    return in_database(server, lambda tx: tx.connections.all(None))


def silent_since(seconds: float, worker: WorkerId) -> Connection:
    at = SystemClock().wall_ms() - round(seconds * 1000)
    return Connection(
        id=new_connection_id(at), server=worker, owner="usr_local", actor="ada", kind="sse", connected_at=at,
        heartbeat_at=at,
    )  # fmt: skip


def test_rows_of_a_killed_server_go_with_the_next_start_and_stale_ones_by_the_duty(serve: Start) -> None:
    server = serve({"steady": STEADY})
    Subscriber(server, "/api/v1/stream")
    wait_until(lambda: len(connections(server)) == 1, what="the stream to be there")
    (mine,) = connections(server)
    wait_until(lambda: _stored(server.data, mine["id"]), what="its row")
    server.kill()
    assert [row.id for row in rows(server)] == [mine["id"]], "nobody was left to remove it"
    stale, fresh = silent_since(301, new_worker_id(1)), silent_since(200, new_worker_id(2))
    for row in (stale, fresh):
        in_database(server, lambda tx: tx.connections.add(row))  # noqa: B023 - carried out at once
    server.start()
    wait_until(
        lambda: stale.id not in {one["id"] for one in connections(server)}, what="the stale row to be removed"
    )
    found = {one["id"]: one for one in connections(server)}
    assert mine["id"] not in found
    assert found[fresh.id]["fresh"] is False, "silent, but not long enough to be removed"
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert [row.id for row in rows(server)] == [fresh.id], "an orderly end leaves none of its own"


def _stored(data: Path, id: str) -> bool:
    """Whether the row is on the disk already, looked for in the files of the living server."""
    files = [data / "overnight.db", data / "overnight.db-wal"]
    return any(id.encode() in path.read_bytes() for path in files if path.exists())


def test_a_run_goes_on_when_the_only_one_who_watches_it_vanishes(serve: Start) -> None:
    server = serve({"steady": STEADY})
    work = server.workspace()
    run = server.submit("steady", mode="oneshot", workspace=str(work))
    written(work, "agent.pid")
    watcher = socket.create_connection(("127.0.0.1", server.port))
    head = f"GET /api/v1/runs/{run['id']}/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    watcher.sendall(f"{head}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert b"200 OK" in watcher.recv(4096)
    wait_until(lambda: len(connections(server)) == 1, what="the watcher to be there")
    # A reset instead of an orderly end, as when a laptop's lid closes.
    watcher.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    watcher.close()
    wait_until(lambda: not connections(server), what="the watcher to be gone")
    before = server.run(run["id"])["last_seq"]
    wait_until(lambda: server.run(run["id"])["last_seq"] > before, what="further events")
    (work / "enough").touch()
    server.until(run["id"], "completed")


def test_a_run_goes_on_when_the_command_that_started_it_is_killed(serve: Start) -> None:
    server = serve({"steady": STEADY})
    work = server.workspace()
    command = [
        sys.executable,
        "-m",
        "overnight",
        "run",
        "go",
        "-b",
        "steady",
        "-m",
        "oneshot",
        "-w",
        str(work),
    ]
    environment = server.env() | {"OVERNIGHT_URL": f"http://127.0.0.1:{server.port}"}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as attached:
        written(work, "agent.pid")
        wait_until(lambda: len(connections(server)) == 1, what="the command to watch")
        assert connections(server)[0]["client"] is not None, "it names itself"
        attached.kill()
        attached.wait()
    wait_until(lambda: not connections(server), what="the command to be gone")
    run = server.http.get("/api/v1/runs").json()["items"][0]
    assert run["state"] == "running"
    (work / "enough").touch()
    assert server.until(run["id"], "completed")["attempt"] == 1
