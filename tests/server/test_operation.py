"""Backends, workers, stats, metrics, tokens, configuration, doctor, handover."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.server.stage import HOST, Stage
from tests.server.tails import tail, url

from overnight.domain.values import Usage
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
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {sample.labels["state"]: sample.value for sample in families["overnight_runs"].samples}[
        "queued"
    ] == 1
    assert families["overnight_queue_depth"].samples[0].value == 1
    answered = families["overnight_http_requests"].samples
    assert {(one.labels["method"], one.labels["status"]): one.value for one in answered}["GET", "200"] >= 1


async def test_metrics_tell_of_turns_tokens_cost_and_writes(stage: Stage) -> None:
    meters = stage.meters
    meters.turn_settled("codex", "completed", 2.5, Usage(input=7, cached=3, output=2, cost_usd=0.5))
    meters.turn_settled("codex", "abandoned", 0.5, None)
    meters.written(0.002)
    async with stage.client() as http:
        text = (await http.get("/metrics")).text
    for line in (
        'overnight_tokens_total{backend="codex",kind="input"} 7.0',
        'overnight_tokens_total{backend="codex",kind="cached"} 3.0',
        'overnight_cost_usd_total{backend="codex"} 0.5',
        'overnight_turn_seconds_count{backend="codex",outcome="completed"} 1.0',
        'overnight_turn_seconds_count{backend="codex",outcome="abandoned"} 1.0',
        'overnight_write_seconds_bucket{le="0.0025"} 1.0',
        "overnight_lease_age_seconds 0.0",
    ):
        assert line in text.splitlines()


async def test_a_stream_counts_as_answered_when_it_begins(stage: Stage) -> None:
    run = await stage.submitted()
    async with tail(stage, url(run.id)) as reader, stage.client() as http:
        await reader.has(1)
        lines = (await http.get("/metrics")).text.splitlines()
    assert 'overnight_http_requests_total{method="GET",status="200"} 1.0' in lines
    assert "overnight_streams_open 1.0" in lines


async def test_metrics_tell_how_late_readers_are_sent_events(stage: Stage) -> None:
    run = await stage.submitted()
    async with tail(stage, url(run.id)) as reader:
        await stage.append(run, "a message")
        await reader.has(2)
    async with stage.client() as http:
        families = text_string_to_metric_families((await http.get("/metrics")).text)
    (delivery,) = [family for family in families if family.name == "overnight_delivery_seconds"]
    assert next(one.value for one in delivery.samples if one.name.endswith("_count")) >= 1


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
