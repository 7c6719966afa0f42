"""A list of hosts: those are reached through the proxy, everything else is not there."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.keeper.harness import kill
from tests.sandbox.estate import Estate, Script, finish, no_input, surroundings
from tests.sandbox.test_lifecycle import inside, ready, stop

from overnight.keeper_protocol import read_identity, read_record
from overnight.testing.signals import eventually
from overnight.workspaces.sandbox import Bubblewrap
from overnight.workspaces.sandbox_gate import Refused, Rules, addresses, forwarded, target_of
from overnight.workspaces.sandbox_network import Network

pytestmark = pytest.mark.anyio

CLIENT = """
import json, socket, sys, urllib.request
port = int(sys.argv[1])
def tried(what):
    try: return what()
    except Exception as error: return f"{getattr(error, 'code', '')} {error}".strip()
def tunnel(target):
    sock = socket.create_connection(("127.0.0.1", 3128), 5)
    sock.sendall(f"CONNECT {target} HTTP/1.1\\r\\n\\r\\n".encode())
    head = sock.recv(1000).decode().split(" ")[1]
    if head != "200": return head
    sock.sendall(b"GET /through HTTP/1.0\\r\\n\\r\\n")
    return sock.makefile("rb").read().decode().rpartition("\\n")[2]
print(json.dumps({
    "by proxy": tried(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/b", timeout=60).read().decode()),
    "tunnel": tried(lambda: tunnel(f"127.0.0.1:{port}")),
    "other port": tried(lambda: tunnel("127.0.0.1:1")),
    "other host": tried(lambda: tunnel("example.com:443")),
    "direct": tried(lambda: socket.create_connection(("127.0.0.1", port), 2) and "reached"),
    "names": tried(lambda: socket.getaddrinfo("example.com", 443) and "resolved"),
    "descriptors": [n for n in range(3, 64) if tried(lambda: __import__("os").fstat(n) and "open") == "open"],
}))
"""


class Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.path} {self.headers.get('Host', '')}".strip().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def listed(place: Estate, *hosts: str) -> Bubblewrap:
    sandbox = Bubblewrap(surroundings(place.root), network=Network(allowed=hosts))
    assert sandbox.try_out().note == f"network to {', '.join(hosts)}"
    return sandbox


async def test_listed_hosts_are_reached_and_nothing_else(place: Estate, port: int) -> None:
    script = Script(argv=(sys.executable, "-I", "-S", "-c", CLIENT, str(port)))
    told = await place.tell(script, place.start_of("run_network"), listed(place, f"127.0.0.1:{port}"))
    found = json.loads(told.last or "{}")
    assert found["by proxy"] == f"/b 127.0.0.1:{port}", (found, told.errors)
    assert found["tunnel"] == "/through"
    assert (found["other port"], found["other host"]) == ("403", "403")
    assert "refused" in found["direct"]
    assert "resolved" not in found["names"]
    assert found["descriptors"] == []


async def test_the_gate_outlives_the_server_and_passes_the_end_on(place: Estate, port: int) -> None:
    """A confined turn like any other: adopted by another server, interrupted, with the agent's own exit code."""
    sandbox = listed(place, f"127.0.0.1:{port}")
    start = place.start_of("run_network")
    line = "echo ready; until [ -e gate ]; do sleep 0.02; done; echo later; exit 5"
    script = Script(argv=("/bin/sh", "-c", line))
    first = await place.begin(script, start, sandbox)
    await ready(first, start.folder)
    await first.leave()
    second = await place.backend(script, sandbox).adopt(replace(start, token=2), no_input)
    assert second is not None
    (start.workspace / "gate").touch()
    told = await finish(second)
    assert told.lines[-2:] == ["ready", "later"]
    record = read_record(str(start.folder))
    assert record is not None
    assert (record.exit_code, record.steps) == (5, ())


async def test_the_polite_end_reaches_the_agent_behind_the_gate(place: Estate, port: int) -> None:
    start = place.start_of("run_network")
    line = "trap 'echo tidied > tidied.txt; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    turn = await place.begin(Script(argv=("/bin/sh", "-c", line)), start, listed(place, "example.com"))
    await ready(turn, start.folder)
    stopped = await stop(turn, interrupt=False)
    assert (start.workspace / "tidied.txt").exists()
    assert (stopped.steps, stopped.survivors) == (("sigterm",), 0)


async def test_nothing_is_left_when_keeper_and_spawner_are_gone(place: Estate) -> None:
    start = place.start_of("run_network")
    script = Script(argv=("/bin/sh", "-c", "echo ready; sleep 300"))
    turn = await place.begin(script, start, listed(place, "example.com"))
    await ready(turn, start.folder)
    pids = await eventually(lambda: found if len(found := inside(turn)) >= 3 else [])
    identity = read_identity(str(start.folder))
    assert identity is not None
    kill(place.keepers.spawner_pid())
    kill(identity.pid)
    told = await finish(turn)
    assert told.ended.stopped is not None
    assert told.ended.stopped.survivors == 0
    assert pids


@pytest.mark.parametrize(
    "host, port, allowed",
    [
        ("api.example.com", 443, True), ("api.example.com", 80, True), ("api.example.com", 22, False),
        ("www.api.example.com", 443, False), ("a.wild.org", 443, True), ("b.a.wild.org", 443, True),
        ("wild.org", 443, False), ("evilwild.org", 443, False), ("any.org", 9999, True), ("::1", 8080, True),
        ("::1", 443, False),
    ],
)  # fmt: skip
def test_what_a_list_means(host: str, port: int, allowed: bool) -> None:
    rules = Rules(["API.example.com", "*.wild.org:443", "any.org:*", "[::1]:8080"])
    assert rules.allow(host, port) is allowed


def test_a_name_that_leads_to_this_machine_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = {"rebound.org": "127.0.0.1", "metadata.org": "169.254.169.254", "good.org": "192.0.2.7"}
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found.get(host, "::ffff:127.0.0.1"), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    rules = Rules(["rebound.org", "metadata.org", "good.org", "mapped.org"])
    assert addresses(rules, "good.org", 443) == [("192.0.2.7", 443)]
    for host in ("rebound.org", "metadata.org", "mapped.org"):
        with pytest.raises(Refused, match="403"):
            addresses(rules, host, 443)


def test_request_lines() -> None:
    assert target_of(b"CONNECT Example.com.:443 HTTP/1.1") == ("CONNECT", "example.com", 443, "")
    assert target_of(b"GET http://u:p@host:8080/a?b HTTP/1.1") == ("GET", "host", 8080, "/a?b")
    assert target_of(b"GET http://[::1]/ HTTP/1.1") == ("GET", "::1", 80, "/")
    for line in (b"GET / HTTP/1.1", b"CONNECT host HTTP/1.1", b"GET ftp://host/ HTTP/1.1", b"x", b"CONNECT a:b c",
                 "GET http://hö/ HTTP/1.1".encode()):  # fmt: skip
        with pytest.raises(Refused, match="400"):
            target_of(line)


def test_a_plain_request_goes_to_the_host_that_was_checked() -> None:
    head = b"GET http://good.org/a HTTP/1.1\r\nHost: evil.org\r\nProxy-Authorization: x\r\nAccept: */*"
    assert forwarded(head, "GET", "good.org", 80, "/a") == (
        b"GET /a HTTP/1.1\r\nHost: good.org\r\nConnection: close\r\nAccept: */*\r\n\r\n"
    )
