"""Sharing: a walk over every route for everybody who might come, and what ends when a share ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.server.asking import asks
from tests.server.stage import Stage, staged

from overnight.ids import RunId
from overnight.server.app import OPERATIONS
from overnight.server.routing import Operation

pytestmark = pytest.mark.anyio
API = "/api/v1/sessions"
ROLES = ("viewer", "operator", "decider")
STREAMS = "/stream"
READABLE = {
    "/api/v1/runs/{run_id}", "/api/v1/runs/{run_id}/status", "/api/v1/runs/{run_id}/stream",
    "/api/v1/runs/{run_id}/events", "/api/v1/runs/{run_id}/turns", "/api/v1/runs/{run_id}/diff",
    "/api/v1/runs/{run_id}/turns/{number}/prompt", "/api/v1/runs/{run_id}/turns/{number}/output",
    "/api/v1/runs/{run_id}/files", "/api/v1/runs/{run_id}/model-calls",
    "/api/v1/openai/responses/{run_id}", "/api/v1/sessions/{session_id}", "/api/v1/sessions/{session_id}/history",
    "/api/v1/sessions/{session_id}/messages", "/api/v1/sessions/{session_id}/runs",
    "/api/v1/sessions/{session_id}/stream",
}  # fmt: skip
"""What everybody may read with whom a session is shared, a link included."""
VIEWING = {("GET", path) for path in READABLE | {"/api/v1/approvals/{approval_id}"}}
OPERATING = {
    ("POST", "/api/v1/runs/{run_id}/control"),
    ("POST", "/api/v1/sessions/{session_id}/messages"),
    ("DELETE", "/api/v1/sessions/{session_id}/messages/{message_id}"),
    ("POST", "/api/v1/sessions/{session_id}/suspend"),
    ("POST", "/api/v1/sessions/{session_id}/resume"),
}
DECIDING = {("POST", "/api/v1/approvals/{approval_id}/resolve")}
NAMED = [
    one
    for one in OPERATIONS
    if any(name in one.path for name in ("{run_id}", "{session_id}", "{approval_id}"))
    and not one.open
    and one.tag != "leases"  # these are for workers alone, whoever shares what: see `test_gate`
]
UNNAMED = [one for one in OPERATIONS if one not in NAMED and not one.open]


@dataclass
class Scene:
    """One shared session with a run and an approval, and everybody who comes."""

    stage: Stage
    owner: httpx2.AsyncClient
    people: dict[str, httpx2.AsyncClient]
    ids: dict[str, str]
    link: str

    def path(self, operation: Operation) -> str:
        found = operation.path
        for name, value in self.ids.items():
            found = found.replace("{" + name + "}", value)
        return found

    async def knock(self, who: str, operation: Operation) -> int:
        """Ask with a body that no route takes, so that nothing comes of it: 422 is as good as let in."""
        client = self.people[who]
        if operation.path.endswith(STREAMS):
            async with client.stream(operation.method, self.path(operation)) as answer:
                return answer.status_code
        body: dict[str, Any] = {"json": {"nonsense": 1}} if operation.method in {"POST", "PATCH"} else {}
        if operation.path.endswith(("/suspend", "/resume", "/retry")) or operation.method == "DELETE":
            body = {}
        return (await client.request(operation.method, self.path(operation), **body)).status_code


async def entered(stage: Stage, code: str) -> httpx2.AsyncClient:
    """A browser that came in by a link."""
    client = stage.client(None)
    answer = await client.post("/login", json={"share": code})
    assert answer.status_code == 204, answer.text
    assert "HttpOnly" in answer.headers["set-cookie"]
    client.headers["Cookie"] = answer.headers["set-cookie"].split(";")[0]
    return client


async def shared_session(http: httpx2.AsyncClient) -> tuple[str, str]:
    session = (await http.post(API, json={"name": "shared"})).json()["id"]
    link = (await http.post(f"{API}/{session}/share", json={"link": True})).json()
    assert link["path"] == f"/#share={link['code']}&session={session}"
    return session, link["code"]


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Scene]:
    root: Path = tmp_path_factory.mktemp("sharing")
    async with staged(root) as stage:
        owner = stage.client()
        session, code = await shared_session(owner)
        _, other_code = await shared_session(owner)
        posted = (await owner.post(f"{API}/{session}/messages", json={"text": "one"})).json()
        run = await stage.store.read(lambda tx: tx.runs.get(RunId(posted["run"]["id"]), None))
        approval = await asks(stage, run)
        people = {"link": await entered(stage, code), "other link": await entered(stage, other_code)}
        for role in ROLES:
            people[role] = stage.client(await stage.token(owner=f"usr_{role}", name=role))
            answer = await owner.post(f"{API}/{session}/share", json={"user": f"usr_{role}", "role": role})
            assert answer.status_code == 201, answer.text
        people["stranger"] = stage.client(await stage.token(owner="usr_stranger", name="stranger"))
        people["agent"] = stage.client(await stage.token(owner="usr_viewer", name="agent", kind="agent"))
        ids = {
            "run_id": run.id, "session_id": session, "approval_id": approval.id, "number": "1",
            "message_id": posted["message"]["id"], "share_id": "shr_none",
        }  # fmt: skip
        yield Scene(stage=stage, owner=owner, people=people, ids=ids, link=code)


@pytest.mark.parametrize("operation", NAMED, ids=lambda one: f"{one.method} {one.path}")
@pytest.mark.parametrize("who", [*ROLES, "link", "other link", "stranger"])
async def test_what_names_a_shared_thing(scene: Scene, who: str, operation: Operation) -> None:
    asked = (operation.method, operation.path)
    allowed = {
        "viewer": VIEWING,
        "operator": VIEWING | OPERATING,
        "decider": VIEWING | OPERATING | DECIDING,
        "link": {("GET", path) for path in READABLE},
    }.get(who, set())
    if asked in allowed and operation.method == "DELETE":
        return  # it would do something; tested beneath
    if asked in allowed and operation.path.endswith(("/suspend", "/resume")):
        assert await scene.knock(who, operation) in {200, 409}
        return
    status = await scene.knock(who, operation)
    if asked in allowed:
        assert status in {200, 204, 404, 422}, status
        if operation.path in {"/api/v1/runs/{run_id}", "/api/v1/sessions/{session_id}"}:
            assert status == 200
        if operation.method != "GET":
            assert status == 422
    elif who == "stranger":
        assert status in ({404} if operation.method == "GET" else {404, 422})
    else:
        assert status in {403, 404}, status


@pytest.mark.parametrize("operation", UNNAMED, ids=lambda one: f"{one.method} {one.path}")
async def test_a_link_opens_no_list_and_nothing_else(scene: Scene, operation: Operation) -> None:
    for who in ("link", "other link"):
        path = scene.path(operation).replace("{name}", "echo")
        if operation.path == "/api/v1/stream":
            async with scene.people[who].stream("GET", path) as answer:
                assert answer.status_code == 403
            continue
        body: dict[str, Any] = {"json": {"goal": "x"}} if operation.method == "POST" else {}
        answer = await scene.people[who].request(operation.method, path, **body)
        assert answer.status_code == 403, (who, answer.text)


async def test_a_stranger_learns_nothing_not_even_that_it_is_there(scene: Scene) -> None:
    for name, kind in (("run_id", "runs"), ("session_id", "sessions"), ("approval_id", "approvals")):
        there = await scene.people["stranger"].get(f"/api/v1/{kind}/{scene.ids[name]}")
        nowhere = await scene.people["stranger"].get(f"/api/v1/{kind}/{scene.ids[name][:-1]}z")
        assert (there.status_code, nowhere.status_code) == (404, 404)


async def test_lists_show_what_is_shared_only_where_they_are_asked_for_it(scene: Scene) -> None:
    viewer, session = scene.people["viewer"], scene.ids["session_id"]
    assert [one["id"] for one in (await viewer.get(API)).json()["items"]] == [session]
    assert (await viewer.get("/api/v1/runs")).json()["items"] == []
    narrowed = (await viewer.get("/api/v1/runs", params={"session": session})).json()["items"]
    assert [run["id"] for run in narrowed] == [scene.ids["run_id"]]
    assert (await viewer.get("/api/v1/runs/counts", params={"session": session})).json()["total"] == 1
    assert (await viewer.get("/api/v1/approvals")).json()["items"] == []
    approvals = (await viewer.get("/api/v1/approvals", params={"session_id": session})).json()["items"]
    assert [one["id"] for one in approvals] == [scene.ids["approval_id"]]
    stranger = scene.people["stranger"]
    assert (await stranger.get("/api/v1/runs", params={"session": session})).json()["items"] == []
    twice = f"/api/v1/runs?session={session}&session={session}"
    assert (await viewer.get(twice)).status_code == 422
    for elsewhere in ("/api/v1/stats", "/metrics"):
        assert session not in (await viewer.get(elsewhere)).text


async def test_an_agent_of_somebody_it_is_shared_with_sees_nothing(scene: Scene) -> None:
    for path in (f"/api/v1/runs/{scene.ids['run_id']}", f"{API}/{scene.ids['session_id']}"):
        assert (await scene.people["agent"].get(path)).status_code in {403, 404}


async def test_a_guest_gets_no_more_than_reading_whatever_it_tries(scene: Scene) -> None:
    guest, session = scene.people["link"], scene.ids["session_id"]
    for path in (
        f"{API}//{session}",
        f"{API}/{session}%2fshare",
        "/api/v1/config",
    ):
        assert (await guest.get(path)).status_code in {403, 404}
    answer = await guest.post("/login", json={"code": guest.headers["Cookie"].partition("=")[2]})
    assert answer.status_code == 403, "a link's cookie cannot be turned into a login"


async def test_what_others_do_is_done_under_their_own_name(stage: Stage) -> None:
    owner = stage.client()
    session, _ = await shared_session(owner)
    bob = stage.client(await stage.token(owner="usr_bob", name="laptop"))
    assert (await bob.post(f"{API}/{session}/messages", json={"text": "x"})).status_code == 404
    await owner.post(f"{API}/{session}/share", json={"user": "usr_bob", "role": "operator"})
    posted = (await bob.post(f"{API}/{session}/messages", json={"text": "hello"})).json()
    assert posted["message"]["by"] == "usr_bob"
    assert posted["run"]["owner"] == "usr_local"
    control = await bob.post(f"/api/v1/runs/{posted['run']['id']}/control", json={"action": "cancel"})
    assert control.json()["state"] == "cancelled"
    messages = f"{API}/{session}/messages/{posted['message']['id']}"
    assert (await bob.delete(messages)).status_code == 204
    for method, path, body in (
        ("PATCH", f"{API}/{session}", {"name": "mine"}),
        ("DELETE", f"{API}/{session}", None),
        ("POST", f"{API}/{session}/share", {"link": True}),
        ("GET", f"{API}/{session}/share", None),
        ("POST", f"/api/v1/runs/{posted['run']['id']}/retry", None),
    ):
        answer = await bob.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
    tokens = await bob.get("/api/v1/tokens", params={})
    assert tokens.status_code == 403, "acting for the operator does not make an operator"
    events = (await owner.get(f"/api/v1/runs/{posted['run']['id']}/events")).json()["items"]
    assert {event["data"]["by"] for event in events if "by" in event["data"]} == {"usr_bob"}


async def test_a_share_that_ends_ends_logins_and_streams_at_once(stage: Stage) -> None:
    owner = stage.client()
    session, code = await shared_session(owner)
    bob = stage.client(await stage.token(owner="usr_bob", name="bob"))
    user_share = (await owner.post(f"{API}/{session}/share", json={"user": "usr_bob"})).json()
    guest = await entered(stage, code)
    shares = (await owner.get(f"{API}/{session}/share")).json()["items"]
    assert [one["kind"] for one in shares] == ["link", "user"]
    assert "code" not in shares[0]

    async def follow(client: httpx2.AsyncClient, begun: asyncio.Event) -> bytes:
        found = b""
        async with client.stream("GET", f"{API}/{session}/stream") as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_raw():
                found += piece
                if b"session.created" in found:
                    begun.set()
        return found

    for client, share in ((guest, shares[0]["id"]), (bob, user_share["id"])):
        begun = asyncio.Event()
        task = asyncio.create_task(follow(client, begun))
        async with asyncio.timeout(5):
            await begun.wait()
            assert (await owner.delete(f"{API}/{session}/share/{share}")).status_code == 204
            assert b"session.created" in await task
    assert (await guest.get(f"{API}/{session}")).status_code == 401
    assert (await bob.get(f"{API}/{session}")).status_code == 404
    assert (await stage.client(None).post("/login", json={"share": code})).status_code == 401


async def test_a_deleted_session_lets_nobody_in_any_more(stage: Stage) -> None:
    owner = stage.client()
    session, code = await shared_session(owner)
    guest = await entered(stage, code)
    assert (await guest.get(f"{API}/{session}")).status_code == 200
    assert (await owner.delete(f"{API}/{session}")).status_code == 204
    assert (await guest.get(f"{API}/{session}")).status_code == 401
    assert (await stage.client(None).post("/login", json={"share": code})).status_code == 401


async def test_logins_by_link_are_counted_like_all_others(stage: Stage) -> None:
    client = stage.client(None)
    answers = [(await client.post("/login", json={"share": f"guess{n}"})).status_code for n in range(7)]
    assert answers[:5] == [401] * 5
    assert 429 in answers[5:]
    for body in ({}, {"code": "a", "share": "b"}):
        assert (await client.post("/login", json=body)).status_code in {422, 429}


async def test_shares_that_make_no_sense_are_refused(stage: Stage) -> None:
    owner = stage.client()
    session, _ = await shared_session(owner)
    bodies: list[dict[str, Any]] = [
        {}, {"user": "usr_a", "link": True}, {"link": True, "role": "operator"}, {"user": "usr_local"},
        {"user": "bob"}, {"user": "usr_a", "role": "owner"}, {"link": False}, {"link": True, "expires_s": 0},
    ]  # fmt: skip
    for body in bodies:
        assert (await owner.post(f"{API}/{session}/share", json=body)).status_code == 422, body


async def test_a_decider_decides_under_their_own_name(stage: Stage) -> None:
    owner = stage.client()
    session, code = await shared_session(owner)
    posted = (await owner.post(f"{API}/{session}/messages", json={"text": "one"})).json()
    run = await stage.store.read(lambda tx: tx.runs.get(RunId(posted["run"]["id"]), None))
    approval = await asks(stage, run)
    people = {"link": await entered(stage, code)}
    for role in ROLES:
        people[role] = stage.client(await stage.token(owner=f"usr_{role}", name="laptop"))
        await owner.post(f"{API}/{session}/share", json={"user": f"usr_{role}", "role": role})
    body = {"option": "allow_once", "digest": approval.digest}
    for who in ("link", "viewer", "operator"):
        refused = await people[who].post(f"/api/v1/approvals/{approval.id}/resolve", json=body)
        assert refused.status_code == 403, who
    decided = await people["decider"].post(f"/api/v1/approvals/{approval.id}/resolve", json=body)
    assert (decided.status_code, decided.json()["decision"]["by"]) == (200, "usr_decider")


async def test_keys_of_two_people_are_not_mixed_up(stage: Stage) -> None:
    owner = stage.client()
    session, _ = await shared_session(owner)
    bob = stage.client(await stage.token(owner="usr_bob", name="laptop"))
    await owner.post(f"{API}/{session}/share", json={"user": "usr_bob", "role": "operator"})
    key = {"Idempotency-Key": "k1"}
    said = [
        (await client.post(f"{API}/{session}/messages", json={"text": "hello"}, headers=key)).json()[
            "message"
        ]
        for client in (owner, bob, bob, owner)
    ]
    assert [message["by"] for message in said] == ["usr_local", "usr_bob", "usr_bob", "usr_local"]
    assert len({message["id"] for message in said}) == 2
