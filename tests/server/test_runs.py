"""Runs over HTTP: submit, look at, list, control, retry, delete; and what bad input gets."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from tests.server.stage import Stage, raw

from overnight.domain.states import Input
from overnight.domain.values import Failure
from overnight.engine import moves
from overnight.ports.unit_of_work import Transaction

pytestmark = pytest.mark.anyio
NOBODY = "run_00000000000000000000000000"


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert problem["status"] == status
    return problem


async def test_submit_answers_202_with_the_run_and_where_it_is(stage: Stage) -> None:
    async with stage.client() as http:
        body = {"goal": "Make it so", "mode": "oneshot", "labels": {"a": "b"}, "workspace": str(stage.work)}
        answer = await http.post("/api/v1/runs", json=body)
        assert answer.status_code == 202, answer.text
        run = answer.json()
        assert answer.headers["location"] == f"/api/v1/runs/{run['id']}"
        assert (run["state"], run["goal"], run["labels"]) == ("queued", "Make it so", {"a": "b"})
        assert (run["owner"], run["workspace"], run["last_seq"]) == ("usr_local", str(stage.work), 1)
        assert run["completion"] == {"detected": False, "by": None, "line": None}
        assert run["config"]["limits"]["turns"] == 50
        again = await http.get(answer.headers["location"])
        assert again.json() == run
        assert (await http.get(f"/api/v1/runs/{run['id']}/status")).json() == run


async def test_the_same_idempotency_key_gives_the_same_run_and_another_body_is_refused(stage: Stage) -> None:
    async with stage.client() as http:
        bodies = [{"goal": "once"}, {"goal": "once", "priority": 0}]  # the same thing, said in two ways
        answers = await asyncio.gather(
            *(
                http.post("/api/v1/runs", json=bodies[n % 2], headers={"Idempotency-Key": "k"})
                for n in range(6)
            )
        )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
        other = await http.post("/api/v1/runs", json={"goal": "other"}, headers={"Idempotency-Key": "k"})
        refused(other, 422, "idempotency_key_reused")
        assert (await http.get("/api/v1/runs/counts")).json()["total"] == 1
        bob = await stage.token(owner="usr_bob", name="bob")
    async with stage.client(bob) as http:
        theirs = await http.post("/api/v1/runs", json={"goal": "other"}, headers={"Idempotency-Key": "k"})
        assert theirs.status_code == 202, "keys belong to their owner"


async def test_environment_values_are_never_shown_again(stage: Stage) -> None:
    async with stage.client() as http:
        answer = await http.post(
            "/api/v1/runs", json={"goal": "g", "environment": {"OVERNIGHT_VAR_KEY": "sesame-sesame"}}
        )
        run_id = answer.json()["id"]
        assert answer.json()["config"]["environment"] == {"OVERNIGHT_VAR_KEY": "***"}
        for path in ("", "/events", "/status"):
            assert "sesame" not in (await http.get(f"/api/v1/runs/{run_id}{path}")).text


BAD: list[tuple[str, Any, str]] = [
    ("no goal", {}, "goal"),
    ("blank goal", {"goal": "  "}, "goal"),
    ("unknown field", {"goal": "g", "gaol": 1}, "gaol"),
    ("unknown nested field", {"goal": "g", "limits": {"turn": 1}}, "limits.turn"),
    ("a program", {"goal": "g", "program": "/bin/sh"}, "program"),
    ("wrong type", {"goal": "g", "priority": "high"}, "priority"),
    ("too large", {"goal": "g", "limits": {"turns": 10**12}}, "limits.turns"),
    ("a list", ["goal"], ""),
    ("null", None, ""),
    ("a lone surrogate", '{"goal": "\\ud800"}', "goal"),
    ("infinity", '{"goal": "g", "loop_delay_s": Infinity}', "loop_delay_s"),
    ("not a number", '{"goal": "g", "loop_delay_s": NaN}', "loop_delay_s"),
    ("no JSON", "{", ""),
    ("deep nesting", "[" * 100_000, ""),
    ("a long number", '{"goal": "g", "priority": ' + "9" * 10_000 + "}", ""),
    ("NUL in the goal", {"goal": "a\x00b"}, "goal"),
]


@pytest.mark.parametrize("body,path", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_a_bad_body_is_a_problem_that_names_the_field(shared: Stage, body: Any, path: str) -> None:
    async with shared.client() as http:
        text = body if isinstance(body, str) else json.dumps(body)
        answer = await http.post("/api/v1/runs", content=text, headers={"Content-Type": "application/json"})
        problem = refused(answer, 422, "invalid_request")
        if path:
            assert path in {error["path"] for error in problem["errors"]}
        assert (await http.get("/api/v1/runs/counts")).json()["total"] == 0


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""],
)
async def test_a_body_that_is_not_declared_as_json_is_refused(shared: Stage, kind: str) -> None:
    async with shared.client() as http:
        answer = await http.post("/api/v1/runs", content=b'{"goal": "g"}', headers={"Content-Type": kind})
        refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body,code,status",
    [
        ({"backend": "nobody"}, "unknown_backend", 422),
        ({"mode": "plan"}, "mode_unavailable", 422),
        ({"workspace": "/etc"}, "workspace_refused", 422),
        ({"workspace": "relative"}, "workspace_refused", 422),
        ({"environment": {"LD_PRELOAD": "x.so"}}, "environment_refused", 422),
        ({"completion": {"pattern": "(["}}, "invalid_pattern", 422),
        ({"session_id": "ses_00000000000000000000000000"}, "not_found", 404),
        ({"approval_policy": "ask_all"}, "policy_unsupported", 422),
    ],
)
async def test_what_cannot_be_carried_out_is_refused_with_its_code(
    shared: Stage, body: dict[str, Any], code: str, status: int
) -> None:
    async with shared.client() as http:
        refused(await http.post("/api/v1/runs", json={"goal": "g", **body}), status, code)


@pytest.mark.parametrize(
    "query",
    ["?limit=0", "?limit=201", "?limit=x", "?limit=1&limit=2", "?state=nope", "?since=yesterday", "?label=a", "?nope=1",
     "?cursor=abc", "?cursor=MToxOjE9", "?cursor=", "?state=queued&limit=1&nope", "?text="],
)  # fmt: skip
async def test_a_bad_query_is_refused(shared: Stage, query: str) -> None:
    async with shared.client() as http:
        answer = await http.get(f"/api/v1/runs{query}")
    assert answer.status_code == 422
    assert answer.json()["code"] in ("invalid_request", "invalid_cursor")


async def test_pages_are_newest_first_and_stable_while_runs_arrive(stage: Stage) -> None:
    ids = [(await stage.submitted(f"run {n}", labels={"n": str(n % 2)})).id for n in range(7)]
    async with stage.client() as http:
        first = (await http.get("/api/v1/runs?limit=3")).json()
        await stage.submitted("late")
        second = (await http.get("/api/v1/runs", params={"limit": 3, "cursor": first["next_cursor"]})).json()
        third = (await http.get("/api/v1/runs", params={"limit": 3, "cursor": second["next_cursor"]})).json()
        seen = [run["id"] for page in (first, second, third) for run in page["items"]]
        assert seen == ids[::-1]
        assert third["next_cursor"] is None
        assert "config" not in first["items"][0]
        odd = (await http.get("/api/v1/runs", params={"label": "n=1"})).json()["items"]
        assert [run["id"] for run in odd] == [ids[5], ids[3], ids[1]]
        found = (await http.get("/api/v1/runs", params={"text": "RUN 3"})).json()["items"]
        assert [run["id"] for run in found] == [ids[3]]
        assert (await http.get("/api/v1/runs?text=%25")).json()["items"] == [], (
            "a percent sign is a percent sign"
        )
        assert (await http.get("/api/v1/runs/counts?state=queued,paused")).json() == {
            "total": 8, "states": {"queued": 8},
        }  # fmt: skip


async def test_control_moves_a_run_and_refuses_what_its_state_does_not_take(stage: Stage) -> None:
    run = await stage.submitted()
    path = f"/api/v1/runs/{run.id}/control"
    async with stage.client() as http:
        refused(await http.post(path, json={"action": "resume"}), 409, "invalid_transition")
        paused = await http.post(path, json={"action": "  Pause ", "reason": "lunch"})
        assert (paused.status_code, paused.json()["state"], paused.json()["last_seq"]) == (202, "paused", 2)
        assert (await http.post(path, json={"action": "RESUME"})).json()["state"] == "queued"
        steered = await http.post(path, json={"action": "steer", "text": "left"})
        assert (steered.status_code, steered.json()["steer_how"]) == (202, "queue")
        refused(await http.post(path, json={"action": "steer"}), 422, "invalid_request")
        refused(await http.post(path, json={"action": "pause", "text": "x"}), 422, "invalid_request")
        refused(await http.post(path, json={"action": "explode"}), 422, "invalid_request")
        refused(await http.post(path, json={"action": ""}), 422, "invalid_request")
        cancelled = (await http.post(path, json={"action": "cancel"})).json()
        assert (cancelled["state"], cancelled["cancellation"]["survivors"]) == ("cancelled", 0)
        again = refused(await http.post(path, json={"action": "cancel"}), 409, "invalid_transition")
        assert (again["state"], again["input"]) == ("cancelled", "cancel")
        refused(
            await http.post(f"/api/v1/runs/{NOBODY}/control", json={"action": "cancel"}), 404, "not_found"
        )
        types = [event["type"] for event in (await http.get(f"/api/v1/runs/{run.id}/events")).json()["items"]]
    assert types == ["run.queued", "run.paused", "run.resumed", "run.steered", "run.cancelled"]


async def test_bulk_control_answers_for_each_run_and_guards_the_number(stage: Stage) -> None:
    first, second = await stage.submitted("a"), await stage.submitted("b")
    await stage.finish(second)
    async with stage.client() as http:
        path = "/api/v1/runs/control"
        both = {"ids": [first.id, second.id, NOBODY], "action": "pause"}
        results = {one["id"]: one for one in (await http.post(path, json=both)).json()["items"]}
        assert results[first.id]["run"]["state"] == "paused"
        assert results[second.id]["problem"]["code"] == "invalid_transition"
        assert results[NOBODY]["problem"]["code"] == "not_found"
        wrong = {"filter": {"state": "paused"}, "action": "cancel", "expect_count": 2}
        refused(await http.post(path, json=wrong), 422, "count_mismatch")
        refused(await http.post(path, json={"filter": {}, "action": "cancel"}), 422, "invalid_request")
        refused(await http.post(path, json={"action": "cancel"}), 422, "invalid_request")
        right = {**wrong, "expect_count": 1}
        assert [one["ok"] for one in (await http.post(path, json=right)).json()["items"]] == [True]


def fail(tx: Transaction, pk: int, now: int) -> None:
    claimed = tx.runs.save(tx.runs.lock(pk).moved(Input.CLAIM, now))
    moves.fail(tx, claimed, Failure(code="broken", message="it broke"), now)


async def test_retry_makes_a_new_run_and_delete_removes_an_ended_one(stage: Stage) -> None:
    run = await stage.submitted("try", labels={"x": "y"})
    async with stage.client() as http:
        refused(await http.post(f"/api/v1/runs/{run.id}/retry"), 409, "run_not_final")
        refused(await http.delete(f"/api/v1/runs/{run.id}"), 409, "run_not_final")
        await stage.store.write(lambda tx: fail(tx, run.pk, stage.clock.wall_ms()))
        again = await http.post(f"/api/v1/runs/{run.id}/retry")
        assert (again.status_code, again.json()["retry_of"], again.json()["labels"]) == (
            202,
            run.id,
            {"x": "y"},
        )
        assert again.headers["location"].endswith(again.json()["id"])
        assert (await http.delete(f"/api/v1/runs/{run.id}")).status_code == 204
        for path in ("", "/events", "/stream", "/turns", "/diff"):
            refused(await http.get(f"/api/v1/runs/{run.id}{path}"), 404, "not_found")
        refused(await http.delete(f"/api/v1/runs/{run.id}"), 404, "not_found")


async def test_a_draining_server_takes_no_work_but_answers(stage: Stage) -> None:
    run = await stage.submitted()
    stage.runs.drain()
    async with stage.client() as http:
        answer = await http.post("/api/v1/runs", json={"goal": "g"})
        refused(answer, 503, "draining")
        assert int(answer.headers["retry-after"]) >= 1
        refused(await http.get("/readyz"), 503, "draining")
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get(f"/api/v1/runs/{run.id}")).status_code == 200


async def test_preview_shows_the_prompt_and_stores_nothing(stage: Stage) -> None:
    async with stage.client() as http:
        shown = (await http.post("/api/v1/runs/preview", json={"goal": "Paint it black"})).json()
        assert "Paint it black" in shown["prompt"]
        assert shown["config"]["backend"] == "echo"
        assert (await http.get("/api/v1/runs/counts")).json()["total"] == 0


async def test_methods_that_a_path_does_not_take(shared: Stage) -> None:
    async with shared.client() as http:
        answer = await http.put("/api/v1/runs", json={})
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, POST"
        options = await http.options("/api/v1/runs")
        assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, POST")
        head = await http.head("/api/v1/runs")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 0


async def test_bytes_that_are_no_http_get_a_problem_too(shared: Stage) -> None:
    answer = await raw(shared.port, b"\x16\x03\x01 nonsense\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "malformed_request"
