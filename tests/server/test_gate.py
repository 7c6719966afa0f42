"""No door is open without the token: every route, verb, host, origin and path trick, over http and socket."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.stage import Stage, raw, staged

from overnight.errors import DiskFull
from overnight.server.app import OPERATIONS
from overnight.server.gate import OPEN
from overnight.server.routing import Operation

pytestmark = pytest.mark.anyio
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY")
RUN = "run_00000000000000000000000000"
APPROVAL = "apr_00000000000000000000000000"
SESSION = "ses_00000000000000000000000000"
CLOSED = [one for one in OPERATIONS if not one.open]


def concrete(path: str) -> str:
    return (
        path.replace("{run_id}", RUN)
        .replace("{number}", "1")
        .replace("{name}", "echo")
        .replace("{approval_id}", APPROVAL)
        .replace("{session_id}", SESSION)
        .replace("{message_id}", "msg_00000000000000000000000000")
        .replace("{share_id}", "shr_00000000000000000000000000")
    )


def request(method: str, path: str, *headers: str, body: str = "", host: str = "127.0.0.1") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "Connection: close"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def status(answer: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert match, answer[:200]
    return int(match[1])


def code(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    return str(json.loads(body)["code"])


def test_what_is_open_is_exactly_this() -> None:
    routes = {(one.method.encode(), one.path.encode()) for one in OPERATIONS if one.open}
    assert routes == {(b"GET", b"/"), (b"GET", b"/livez"), (b"GET", b"/readyz"), (b"POST", b"/login")}
    assert OPEN - routes == {(b"HEAD", b"/"), (b"HEAD", b"/livez"), (b"HEAD", b"/readyz")}


@pytest.mark.parametrize("operation", CLOSED, ids=lambda one: f"{one.method} {one.path}")
async def test_every_other_route_wants_a_token_that_counts(shared: Stage, operation: Operation) -> None:
    path = concrete(operation.path)
    now = shared.clock.wall_ms()
    revoked = await shared.token(name=f"revoked {operation.path} {operation.method}", revoked_at=now)
    expired = await shared.token(name=f"expired {operation.path} {operation.method}", expires_at=now - 1)
    bad = [
        "", "Authorization: Bearer wrong", f"Authorization: Bearer {shared.secret}x", "Authorization: Bearer ",
        f"Authorization: Basic {shared.secret}", f"Authorization: {shared.secret}", f"X-Token: {shared.secret}",
        f"Authorization: Bearer {revoked}", f"Authorization: Bearer {expired}", "Cookie: overnight_session=wrong",
        f"Authorization: Bearer wrong\r\nCookie: overnight_session={shared.secret}",
        f"Authorization: Bearer {shared.secret}\r\nAuthorization: Bearer {shared.secret}",
    ]  # fmt: skip
    for header in bad:
        answer = await raw(shared.port, request(operation.method, path, *filter(None, header.split("\r\n"))))
        assert (status(answer), code(answer)) == (401, "unauthorized"), (header, answer)
        assert b"www-authenticate: Bearer" in answer
    query = await raw(
        shared.port, request(operation.method, f"{path}?token={shared.secret}&access_token={shared.secret}")
    )
    assert status(query) == 401, "a token in a URL is no token"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
async def test_every_route_wants_our_own_host_and_origin(shared: Stage, operation: Operation) -> None:
    path, token = concrete(operation.path), f"Authorization: Bearer {shared.secret}"
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.",
        "127.0.0.1@evil",
        "",
        "0x7f.1",
        "[::1",
    ):
        answer = await raw(shared.port, request(operation.method, path, token, host=host))
        assert status(answer) in (400, 403), (host, answer)
    double = await raw(shared.port, request(operation.method, path, token, "Host: 127.0.0.1"))
    assert status(double) in (400, 403)
    origins = (
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://localhost",
        "http://127.0.0.1.evil",
    )
    for origin in origins:
        answer = await raw(shared.port, request(operation.method, path, token, f"Origin: {origin}"))
        assert (status(answer), code(answer)) == (403, "origin_refused"), origin
    if operation.path != "/":
        cross = await raw(shared.port, request(operation.method, path, token, "Sec-Fetch-Site: cross-site"))
        assert (status(cross), code(cross)) == (403, "origin_refused")


async def test_our_own_page_may_ask(shared: Stage) -> None:
    answer = await raw(
        shared.port,
        request(
            "GET", "/api/v1/runs", f"Cookie: a=b; overnight_session={shared.secret}; c=d",
            "Sec-Fetch-Site: same-origin",
            f"Origin: http://localhost:{shared.port}", host=f"LOCALHOST:{shared.port}",
        ),
    )  # fmt: skip
    assert status(answer) == 200


TRICKS = [
    "//livez", "/livez/", "/livez/.", "/./livez", "/livez/..", "/livez%2f", "/%2e/livez", "/LIVEZ", "/livez;x",
    "/livez%00",
    "/livez/../api/v1/runs", "/livez/%2e%2e/api/v1/runs", "/livez%2f..%2fapi%2fv1%2fruns", "/livez?/../api/v1/runs/x#",
    "//api/v1/runs", "/api//v1/runs", "/api/v1/runs/", "/api/v1/./runs", "/API/v1/runs", "/api/v1/runs%20",
    "/api/v1/runs.", "/api/v1/runs;/livez", "/api/v1/runs/%2e%2e/%2e%2e/%2e%2e/livez", "/%61pi/v1/runs",
    "/api/v1/runs\\..\\",
    "/login/../api/v1/runs", "/docs", "/docs/", "/openapi.json", "/metrics", "/metrics/livez", "/static/x",
    "/favicon.ico",
    "http://127.0.0.1/api/v1/runs", "http://evil.example/api/v1/runs", "*", "/api/v1/socket", "/?x=/livez&/api/v1/runs",
]  # fmt: skip


@pytest.mark.parametrize("path", TRICKS)
async def test_path_tricks_open_nothing(shared: Stage, path: str) -> None:
    for verb in VERBS:
        answer = await raw(shared.port, request(verb, path))
        found = status(answer)
        if found == 200:
            assert verb in ("GET", "HEAD"), answer
            assert path.partition("?")[0] in ("/", "/livez"), answer
        else:
            assert found in (400, 401, 403, 404), (verb, answer)
        assert b'"items"' not in answer


async def test_with_a_token_path_tricks_reach_nothing_but_404(shared: Stage) -> None:
    token = f"Authorization: Bearer {shared.secret}"
    for path in (
        "//api/v1/runs",
        "/api/v1/runs/",
        "/api/v1/runs%2fcounts",
        "/api/v1/./runs",
        "/api/v1/%2e%2e/v1/runs",
        "/api/v1/runs%0a",
        "/api/v1/runs%7F",
        "/api/v1/runs%1f",
        "/x",
    ):
        answer = await raw(shared.port, request("GET", path, token))
        assert (status(answer), code(answer)) == (404, "not_found"), path


@pytest.mark.parametrize(
    "path", ["/api/v1/sockets", "/", "/livez", f"/api/v1/runs/{RUN}/stream", "/api/v1/stream"]
)
async def test_sockets_are_refused_before_the_handshake(shared: Stage, path: str) -> None:
    upgrade = (
        "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip

    async def tried(*headers: str, host: str = "127.0.0.1") -> int:
        head = "\r\n".join(
            [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: Upgrade", *upgrade, *headers]
        )
        return status(await raw(shared.port, (head + "\r\n\r\n").encode()))

    assert await tried() == 401
    assert await tried("Authorization: Bearer wrong") == 401
    assert await tried(f"Authorization: Bearer {shared.secret}", host="evil.example") == 403
    assert await tried(f"Authorization: Bearer {shared.secret}", "Origin: https://evil.example") == 403
    assert await tried(f"Authorization: Bearer {shared.secret}") == 404


@pytest.mark.parametrize(
    "operation",
    [one for one in CLOSED if "{run_id}" in one.path and one.tag != "leases"],
    ids=lambda one: one.path,
)
async def test_another_users_run_is_not_there(shared: Stage, operation: Operation) -> None:
    run = await shared.submitted("secret plans")
    bob = await shared.token(owner="usr_bob", name=f"bob {operation.path} {operation.method}")
    path = operation.path.replace("{run_id}", run.id).replace("{number}", "1")
    async with shared.client(bob) as http:
        body = {"action": "cancel"} if operation.path.endswith("/control") else None
        answer = await http.request(operation.method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        listed = (await http.get("/api/v1/runs")).json()
        assert listed["items"] == []
        assert (await http.get("/api/v1/runs/counts")).json()["total"] == 0
        bulk = (await http.post("/api/v1/runs/control", json={"ids": [run.id], "action": "cancel"})).json()
        assert bulk["items"][0]["problem"]["code"] == "not_found"
    assert (await shared.submitted("still here")).owner == "usr_local"
    assert len(await shared.log(run)) == 1


async def test_kinds_of_tokens_may_do_what_their_record_says(stage: Stage) -> None:
    run = await stage.submitted()
    agent = await stage.token(kind="agent", name="an-agent")
    worker = await stage.token(kind="worker", name="a-worker")
    bob = await stage.token(owner="usr_bob", name="bob")
    allowed = {
        agent: {("GET", f"/api/v1/runs/{run.id}"), ("GET", "/api/v1/runs"), ("GET", "/api/v1/backends")},
        worker: {("GET", "/livez"), ("GET", "/readyz")},
        bob: {("GET", "/api/v1/runs"), ("GET", "/api/v1/backends"), ("GET", "/metrics"), ("GET", "/docs")},
    }
    refused = {
        agent: {
            ("POST", "/api/v1/runs"), ("POST", f"/api/v1/runs/{run.id}/control"), ("DELETE", f"/api/v1/runs/{run.id}"),
            ("GET", "/api/v1/tokens"), ("GET", "/api/v1/config"), ("GET", "/docs"),
            ("POST", "/api/v1/backends/echo/check"), ("GET", "/api/v1/connections"), ("GET", "/api/v1/approvals"),
        },
        worker: {("GET", "/api/v1/runs"), ("POST", "/api/v1/runs"), ("GET", "/metrics"), ("GET", "/api/v1/stream"),
                 ("GET", "/api/v1/approvals"), ("GET", "/api/v1/workers"), ("GET", "/api/v1/backends"),
                 ("GET", "/api/v1/stats"), ("POST", "/api/v1/workers/x/drain")},
        bob: {
            ("GET", "/api/v1/tokens"), ("POST", "/api/v1/tokens"), ("DELETE", "/api/v1/tokens/operator"),
            ("POST", "/api/v1/admin/handover"), ("GET", "/api/v1/config"), ("GET", "/api/v1/doctor"),
        },
    }  # fmt: skip
    for secret, calls in allowed.items():
        async with stage.client(secret) as http:
            for method, path in calls:
                assert (await http.request(method, path)).status_code == 200, path
    for secret, calls in refused.items():
        async with stage.client(secret) as http:
            for method, path in calls:
                answer = await http.request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    assert stage.handovers == []


@pytest.mark.parametrize(
    "operation", [one for one in CLOSED if one.tag == "leases"], ids=lambda one: one.path
)
async def test_leases_are_for_workers_and_the_operator(shared: Stage, operation: Operation) -> None:
    run = await shared.submitted("secret plans")
    path = operation.path.replace("{run_id}", run.id)
    name = f"{operation.path} {operation.method}"
    for secret in (
        await shared.token(owner="usr_bob", name=f"bob {name}"),
        await shared.token(kind="agent", name=f"agent {name}"),
    ):
        async with shared.client(secret) as http:
            answer = await http.request(operation.method, path, json={})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    async with shared.client(await shared.token(kind="worker", name=f"worker {name}")) as http:
        answer = await http.request(operation.method, path, json={})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "ending", ["%0A", "%0a", "%0D", "%0B", "%85", "%E2%80%A8", "/%0A", "%0A/", ";x", "?%0A"]
)
async def test_no_ending_of_a_path_makes_another_user_the_operator(shared: Stage, ending: str) -> None:
    """Patterns of routes match in front of a line end: what only the operator may reach, nobody else reaches so."""
    token = f"Authorization: Bearer {await shared.token(owner='usr_bob', name=f'bob {ending}')}"
    evil = json.dumps({"name": f"evil{ending.encode().hex()}", "kind": "user", "owner": "usr_local"})
    for method, path, body in (
        ("POST", "/api/v1/tokens", evil),
        ("DELETE", "/api/v1/tokens/operator", ""),
        ("GET", "/api/v1/tokens", ""),
        ("GET", "/api/v1/config", ""),
        ("GET", "/api/v1/doctor", ""),
        ("POST", "/api/v1/admin/handover", ""),
    ):
        answer = await raw(shared.port, request(method, path + ending, token, body=body))
        assert status(answer) in (403, 404), (method, path, answer)
    assert shared.handovers == []


async def test_a_login_code_works_once_and_makes_a_cookie_no_page_can_read(stage: Stage) -> None:
    from overnight.server.login import issue_code

    stale = await issue_code(stage.store, stage.clock)
    code = await issue_code(stage.store, stage.clock)
    async with stage.client(None) as http:
        assert (await http.post("/login", json={"code": stale})).status_code == 401
        answer = await http.post("/login", json={"code": code})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert (await http.get("/api/v1/runs")).status_code == 200, "the cookie is sent back"
        assert (await http.post("/login", json={"code": code})).status_code == 401
    async with stage.client(None) as http:
        assert (await http.get("/api/v1/runs")).status_code == 401


async def test_a_user_token_logs_in_and_a_machines_does_not(stage: Stage) -> None:
    agent = await stage.token(kind="agent", name="an-agent")
    async with stage.client(None) as http:
        assert (await http.post("/login", json={"code": agent})).status_code == 403
        assert (await http.post("/login", json={"code": stage.secret})).status_code == 204
        assert (await http.get("/api/v1/tokens")).status_code == 200


async def test_a_server_without_web_has_neither_pages_nor_cookies(tmp_path: Path) -> None:
    from overnight.server.login import issue_code

    async with staged(tmp_path, web=False) as stage:
        code = await issue_code(stage.store, stage.clock)
        async with stage.client(None) as http:
            assert (await http.get("/")).status_code == 404
            answer = await http.post("/login", json={"code": code})
            assert answer.status_code == 404
            assert "set-cookie" not in answer.headers
            assert (await http.get("/livez")).status_code == 200
        async with stage.client() as http:
            assert (await http.get("/docs")).status_code == 404
            assert (await http.get("/api/v1/runs")).status_code == 200


async def test_guessing_codes_is_slowed_down(stage: Stage) -> None:
    async with stage.client(None) as http:
        answers = [await http.post("/login", json={"code": f"guess-{n}"}) for n in range(8)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_bodies_are_bounded_also_while_they_stream(stage: Stage) -> None:
    token = f"Authorization: Bearer {stage.secret}"
    json_type = "Content-Type: application/json"
    declared = await raw(
        stage.port, request("POST", "/api/v1/runs", token, json_type, "Content-Length: 1048577")
    )
    assert (status(declared), code(declared)) == (413, "body_too_large")

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"goal": "'
        for _ in range(40):
            yield b"x" * 65536

    async with stage.client() as http:
        answer = await http.post(
            "/api/v1/runs", content=pieces(), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        assert (await http.get("/api/v1/runs")).json()["items"] == []
    nobody = request("POST", "/login", json_type, "Content-Length: 5000")
    assert status(await raw(stage.port, nobody)) == 413
    stranger = request("POST", "/api/v1/runs", json_type, "Content-Length: 99999999999")
    assert status(await raw(stage.port, stranger)) == 401, "who has no token is refused first"


async def test_request_heads_are_bounded(shared: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
    try:
        for _ in range(64):
            writer.write(b"x" * 65536)
            await writer.drain()
        cut = await reader.read() == b""
    except ConnectionError:
        cut = True
    assert cut
    writer.close()


async def test_every_answer_carries_the_security_headers(shared: Stage) -> None:
    async with shared.client(None) as http:
        for answer in [await http.get("/"), await http.get("/livez"), await http.get("/api/v1/runs")]:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "access-control-allow-origin" not in answer.headers
        shell = await http.get("/")
        assert "default-src 'none'" in shell.headers["content-security-policy"]
        assert b"http" not in shell.content.replace(b"http-equiv", b""), "nothing comes from elsewhere"


async def test_a_full_disk_does_not_keep_anybody_from_reading(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise DiskFull("no space left")

    fresh = await stage.token(name="fresh")
    monkeypatch.setattr(type(stage.store), "write", full)
    async with stage.client(fresh) as http:
        assert (await http.get("/api/v1/runs")).status_code == 200
        refused = await http.post("/api/v1/runs", json={"goal": "g"})
    assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
