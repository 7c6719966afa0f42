"""Backends, workers, stats, metrics, tokens, configuration, doctor, handover."""

import json

import pytest
from tests.server.stage import HOST, Stage

from overnight.domain.worker import Worker
from overnight.ids import WorkerId, new_worker_id

pytestmark = pytest.mark.anyio


async def test_backends_show_their_preflight(stage: Stage) -> None:
    async with stage.client() as http:
        listed = (await http.get("/api/v1/backends")).json()["items"]
        assert [(one["name"], one["status"]) for one in listed] == [("echo", "ok")]
        assert {"name", "status", "version", "capabilities", "problems", "checked_at"} == set(listed[0])
        assert (await http.get("/api/v1/backends/echo")).json() == listed[0]
        checked = (await http.post("/api/v1/backends/echo/check")).json()
        assert checked["checked_at"] >= listed[0]["checked_at"]
        for method, path in (("GET", "/api/v1/backends/none"), ("POST", "/api/v1/backends/none/check")):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def worker(stage: Stage, *, seen_ago_ms: int, backends: tuple[str, ...] = ("echo",)) -> Worker:
    now = stage.clock.wall_ms()
    return Worker(
        pk=0, id=WorkerId(new_worker_id(now)), host_id=HOST, host_name="here", pid=1, version="0", slots=2,
        backends=backends, started_at=now - seen_ago_ms, seen_at=now - seen_ago_ms,
    )  # fmt: skip


async def test_workers_are_fresh_or_not_when_they_are_looked_at(stage: Stage) -> None:
    await stage.store.write(lambda tx: tx.workers.add(worker(stage, seen_ago_ms=0)))
    await stage.store.write(lambda tx: tx.workers.add(worker(stage, seen_ago_ms=60_000)))
    async with stage.client() as http:
        found = (await http.get("/api/v1/workers")).json()["items"]
    assert sorted(one["fresh"] for one in found) == [False, True]


async def test_stats_say_what_nobody_offers(stage: Stage) -> None:
    await stage.submitted()
    async with stage.client() as http:
        stats = (await http.get("/api/v1/stats")).json()
        assert (stats["queue"]["depth"], stats["queue"]["nobody_offers"]) == (1, ["echo"])
        await stage.store.write(lambda tx: tx.workers.add(worker(stage, seen_ago_ms=0)))
        stats = (await http.get("/api/v1/stats")).json()
        assert (stats["queue"]["nobody_offers"], stats["workers"]["slots"]) == ([], 2)


async def test_metrics_are_well_formed(stage: Stage) -> None:
    await stage.submitted()
    async with stage.client() as http:
        await http.get("/api/v1/runs")
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values: dict[str, float] = {}
    announced = ""
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            announced = line.split()[2]
        elif not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name.startswith(announced)
            assert name not in values
            values[name] = float(value)
    assert values['overnight_runs{state="queued"}'] == 1
    assert values["overnight_queue_depth"] == 1
    buckets = [
        value for name, value in values.items() if name.startswith("overnight_http_request_seconds_bucket")
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == values["overnight_http_request_seconds_count"]


async def test_tokens_are_shown_once_listed_without_secrets_and_revoked_for_good(stage: Stage) -> None:
    async with stage.client() as http:
        made = await http.post("/api/v1/tokens", json={"name": "ci", "expires_in_s": 3600})
        assert made.status_code == 201
        secret = made.json()["secret"]
        listed = (await http.get("/api/v1/tokens")).text
        assert secret not in listed
        assert "digest" not in listed
        assert (await http.post("/api/v1/tokens", json={"name": "ci"})).status_code == 409
        async with stage.client(secret) as other:
            assert (await other.get("/api/v1/runs")).status_code == 200
            assert (await http.delete("/api/v1/tokens/ci")).status_code == 204
            assert (await other.get("/api/v1/runs")).status_code == 401, "at once, whatever was remembered"
        assert (await http.delete("/api/v1/tokens/ci")).status_code == 204, "again does no harm"
        assert (await http.delete("/api/v1/tokens/none")).status_code == 404
        refused = await http.post("/api/v1/tokens", json={"name": "x", "kind": "admin"})
        assert refused.status_code == 422
        entries = json.loads(listed)["items"]
        assert {entry["name"] for entry in entries} == {"operator", "ci"}


async def test_the_operators_routes(stage: Stage) -> None:
    async with stage.client() as http:
        assert (await http.get("/api/v1/config")).json()["items"][0]["name"] == "listen"
        assert (await http.get("/api/v1/doctor")).json()["status"] == "ok"
        assert (await http.get("/api/v1/connections")).json()["items"] == []
        assert (await http.post("/api/v1/admin/handover")).status_code == 202
        assert (await http.get("/docs")).headers["content-type"].startswith("text/html")
        assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.1")
    assert stage.handovers == ["now"]


async def test_not_ready_says_why(stage: Stage) -> None:
    async with stage.client(None) as http:
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        stage.unready.append("the disk is full")
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "disk" in answer.json()["detail"]


async def test_a_failure_inside_is_a_problem_that_tells_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the secret is sesame")

    secret = await stage.token(name="t")
    async with stage.client(secret) as http:
        await http.get("/api/v1/runs")
        monkeypatch.setattr(type(stage.store), "read", broken)
        answer = await http.get("/api/v1/runs")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "sesame" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
