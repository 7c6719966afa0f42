"""Sessions over REST: exact shapes, clear refusals, a stream that never ends by itself."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from tests.server.stage import Frame, Stage, frames

from overnight.ids import SessionId
from overnight.ports.unit_of_work import Transaction
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
API = "/api/v1/sessions"
FIELDS = {
    "id", "owner", "name", "mode", "state", "phase", "step", "version", "variables", "plan", "config", "created_at",
    "updated_at", "expires_at",
}  # fmt: skip


async def made(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await http.post(API, json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_session_from_its_making_to_its_end(stage: Stage) -> None:
    async with stage.client() as http:
        asked = {"name": "Parser", "variables": {"a": [1]}, "config": {"model": "m", "limits": {"turns": 3}}}
        answer = await http.post(API, json=asked)
        session = answer.json()
        at = f"{API}/{session['id']}"
        assert answer.headers["location"] == at
        assert set(session) == FIELDS
        assert {name: session[name] for name in ("name", "mode", "state", "phase", "step", "version", "plan")} == {
            "name": "Parser", "mode": "chat", "state": "active", "phase": "init", "step": None, "version": 1,
            "plan": None,
        }  # fmt: skip
        assert (session["variables"], session["config"]) == (asked["variables"], asked["config"])
        assert (await http.get(at)).json() == session
        assert (await http.get(API)).json() == {"items": [session], "next_cursor": None}
        suspended = (await http.post(f"{at}/suspend")).json()
        assert suspended["state"] == "suspended"
        assert suspended["expires_at"] > session["expires_at"]
        assert (await http.post(f"{at}/resume")).json()["state"] == "active"
        assert (await http.get(f"{at}/history")).json() == {"items": [], "total": 0, "next_cursor": None}
        assert (await http.delete(at)).status_code == 204
        for answer in (await http.get(at), await http.delete(at), await http.get(f"{at}/history")):
            assert code(answer) == (404, "not_found")


async def test_patches_and_versions(stage: Stage) -> None:
    async with stage.client() as http:
        session = await made(http)
        at = f"{API}/{session['id']}"
        changed = (await http.patch(at, json={"name": " Neu ", "version": 1})).json()
        assert (changed["name"], changed["version"]) == ("Neu", 2)
        stale = await http.patch(at, json={"name": "x", "version": 1})
        assert code(stale) == (409, "stale_version")
        assert stale.json()["version"] == 2
        for body in ({"state": "expired"}, {"name": ""}, {"config": {"goal": "x"}}, {"version": 0}):
            assert code(await http.patch(at, json=body)) == (422, "invalid_request")


async def test_modes_are_listed_and_checked(stage: Stage) -> None:
    async with stage.client() as http:
        modes = (await http.get(f"{API}/modes")).json()["items"]
        assert [mode["id"] for mode in modes] == ["oneshot", "continuous", "chat"]
        assert set(modes[0]) == {"id", "label", "description", "supports_resume", "supports_approvals"}
        for name in ("plan", "gossip"):
            for path, body in ((API, {"mode": name}), ("/api/v1/runs", {"goal": "g", "mode": name})):
                refused = await http.post(path, json=body)
                assert code(refused) == (422, "mode_unavailable")
                assert "chat" in refused.json()["mend"]


async def test_messages_wait_are_seen_and_taken_back(stage: Stage) -> None:
    async with stage.client() as http:
        session = await made(http)
        at = f"{API}/{session['id']}/messages"
        first = await http.post(at, json={"text": "one"})
        assert first.status_code == 202
        posted = first.json()
        assert set(posted) == {"message", "run", "steer_how"}
        assert set(posted["message"]) == {"id", "text", "by", "state", "run_id", "turn", "created_at"}
        assert (posted["run"]["mode"], posted["run"]["session_id"]) == ("chat", session["id"])
        second = (await http.post(at, json={"text": "two"})).json()
        assert second["run"]["id"] == posted["run"]["id"]
        assert [m["text"] for m in (await http.get(at)).json()["items"]] == ["one", "two"]
        for _ in range(2):
            assert (await http.delete(f"{at}/{second['message']['id']}")).status_code == 204
        assert [m["text"] for m in (await http.get(at)).json()["items"]] == ["one"]
        assert code(await http.delete(f"{at}/msg_none")) == (404, "not_found")
        runs = (await http.get(f"{API}/{session['id']}/runs")).json()["items"]
        assert [run["id"] for run in runs] == [posted["run"]["id"]]
        assert code(await http.post(f"{API}/{session['id']}/suspend")) == (409, "session_busy")
        assert code(await http.delete(f"{API}/{session['id']}")) == (409, "session_busy")
        for text in ("", "  ", "a\x00b", "x" * 200_001):
            assert code(await http.post(at, json={"text": text})) == (422, "invalid_request")
        assert code(await http.post(at, json={"text": "x" * 1_100_000})) == (413, "body_too_large")


async def test_the_same_key_makes_one_of_each(stage: Stage) -> None:
    async with stage.client() as http:
        key = {"Idempotency-Key": "k1"}
        one, two = [await http.post(API, json={"name": "n"}, headers=key) for _ in range(2)]
        assert one.json() == two.json()
        assert (one.status_code, two.headers["idempotent-replayed"]) == (201, "true")
        assert code(await http.post(API, json={"name": "m"}, headers=key)) == (422, "idempotency_key_reused")
        at = f"{API}/{one.json()['id']}/messages"
        said = [await http.post(at, json={"text": "hello"}, headers=key) for _ in range(3)]
        assert len({answer.json()["message"]["id"] for answer in said}) == 1
        assert len((await http.get(at)).json()["items"]) == 1
        assert code(await http.post(at, json={"text": "other"}, headers=key)) == (
            422,
            "idempotency_key_reused",
        )


async def test_bad_ids_and_foreign_sessions_are_not_found(stage: Stage) -> None:
    async with stage.client() as http, stage.client(await stage.token(owner="usr_bob")) as bob:
        session = await made(http)
        await http.post(f"{API}/{session['id']}/messages", json={"text": "one"})
        known = session["id"]
        for client, one in ((bob, known), (http, "ses_x"), (http, known.upper()), (http, "run_" + known[4:])):
            answers = [
                await client.get(f"{API}/{one}{rest}")
                for rest in ("", "/history", "/runs", "/messages", "/stream", "/share")
            ]
            answers += [await client.post(f"{API}/{one}/{rest}") for rest in ("suspend", "resume")]
            answers += [
                await client.post(f"{API}/{one}/messages", json={"text": "x"}),
                await client.post(f"{API}/{one}/share", json={"link": True}),
                await client.patch(f"{API}/{one}", json={"name": "x"}),
                await client.delete(f"{API}/{one}"),
            ]
            assert {code(answer) for answer in answers} == {(404, "not_found")}
        assert (await bob.get(API)).json()["items"] == []


async def test_lists_are_filtered_and_paged(stage: Stage) -> None:
    async with stage.client() as http:
        ids = [(await made(http, name=f"S{n}", mode="chat" if n else "oneshot"))["id"] for n in range(4)]
        await http.post(f"{API}/{ids[1]}/suspend")

        async def found(**query: Any) -> list[str]:
            return [one["id"] for one in (await http.get(API, params=query)).json()["items"]]

        assert await found() == ids[::-1]
        assert await found(state="suspended") == [ids[1]]
        assert await found(mode="oneshot") == [ids[0]]
        assert await found(text="s2") == [ids[2]]
        page = (await http.get(API, params={"limit": 3})).json()
        rest = (await http.get(API, params={"limit": 3, "cursor": page["next_cursor"]})).json()
        assert [one["id"] for one in page["items"] + rest["items"]] == ids[::-1]
        assert rest["next_cursor"] is None
        for query in ({"state": "gone"}, {"limit": "0"}, {"cursor": "x"}, {"phase": "init"}):
            assert (await http.get(API, params=query)).status_code == 422


async def test_a_run_takes_the_sessions_defaults(stage: Stage) -> None:
    async with stage.client() as http:
        config = {"model": "m9", "labels": {"a": "b"}}
        session = await made(http, mode="oneshot", config=config)
        answer = await http.post("/api/v1/runs", json={"goal": "g", "session_id": session["id"]})
        run = answer.json()
        assert (run["mode"], run["config"]["model"], run["labels"]) == ("oneshot", "m9", {"a": "b"})
        shown = (
            await http.post("/api/v1/runs/preview", json={"goal": "g", "session_id": session["id"]})
        ).json()
        assert shown["config"]["model"] == "m9"


@contextlib.asynccontextmanager
async def following(http: httpx2.AsyncClient, path: str) -> AsyncIterator[AsyncIterator[Frame]]:
    async with http.stream("GET", path) as answer:
        assert answer.status_code == 200

        async def items() -> AsyncIterator[Frame]:
            body = b""
            async for piece in answer.aiter_raw():
                body += piece
                while b"\n\n" in body:
                    block, body = body.split(b"\n\n", 1)
                    for frame in frames(block + b"\n\n"):
                        yield frame

        yield items()


async def test_a_sessions_stream_tells_its_own_facts_until_it_is_deleted(stage: Stage) -> None:
    async with stage.client() as http:
        session = await made(http)
        at = f"{API}/{session['id']}"
        async with asyncio.timeout(20), following(http, f"{at}/stream") as items:
            assert json.loads((await anext(items)).data[0])["type"] == "session.created"
            await http.post(f"{at}/suspend")
            event = json.loads((await anext(items)).data[0])
            assert (event["type"], event["session_id"], event["run_id"]) == (
                "session.suspended",
                session["id"],
                None,
            )
            await http.post(f"{at}/resume")
            await http.patch(at, json={"name": "x"})
            types = [json.loads((await anext(items)).data[0])["type"] for _ in range(2)]
            assert types == ["session.resumed", "session.updated"]
            await http.delete(at)
            assert [item async for item in items] == []
        assert code(await http.get(f"{at}/stream")) == (404, "not_found")


async def test_a_sessions_stream_goes_on_from_any_position(stage: Stage) -> None:
    async with stage.client() as http:
        session = await made(http)
        at = f"{API}/{session['id']}"
        await http.post(f"{at}/suspend")
        async with asyncio.timeout(20), following(http, f"{at}/stream?after=1&named=1") as items:
            frame = await anext(items)
            assert (frame.id, frame.event) == ("2", "session.suspended")
        assert code(await http.get(f"{at}/stream?after=3")) == (422, "invalid_cursor")


async def test_a_session_is_in_use_until_its_last_follower_has_gone(stage: Stage) -> None:
    async with stage.client() as http:
        session = await made(http)
        at = f"{API}/{session['id']}"
        await stage.store.write(lambda tx: _age(tx, session["id"]))
        old = (await http.get(at)).json()["updated_at"]
        assert old < session["updated_at"]
        async with asyncio.timeout(20), following(http, f"{at}/stream") as items:
            await anext(items)
            assert (await http.get(at)).json()["updated_at"] == old

        async def touched() -> bool:
            return bool((await http.get(at)).json()["updated_at"] > old)

        await eventually(touched)


def _age(tx: Transaction, session_id: str) -> None:
    session = tx.sessions.get(SessionId(session_id), None)
    tx.sessions.save(replace(session, updated_at=session.updated_at - 3_600_000))


async def test_a_message_that_is_too_long_is_refused_and_nothing_waits(stage: Stage) -> None:
    async with stage.client() as http:
        at = f"{API}/{(await made(http))['id']}"
        answer = await http.post(f"{at}/messages", json={"text": "x" * 200_001})
        assert code(answer) == (422, "invalid_request")
        assert answer.json()["errors"][0]["path"] == "text"
        assert (await http.get(f"{at}/messages")).json()["items"] == []
        assert (await http.get(f"{at}/runs")).json()["items"] == []
