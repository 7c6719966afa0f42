"""Workers over REST: shown to everybody, asked of by the operator alone."""

from __future__ import annotations

import pytest
from tests.server.stage import HOST, Stage

from overnight.domain.worker import Worker
from overnight.ids import new_worker_id

pytestmark = pytest.mark.anyio


async def worker(stage: Stage, **changes: object) -> Worker:
    now = stage.clock.wall_ms()
    values: dict[str, object] = {
        "pk": 0, "id": new_worker_id(now), "host_id": HOST, "host_name": "here", "pid": 1, "version": "0", "slots": 2,
        "backends": ("other",), "started_at": now, "seen_at": now,
    }  # fmt: skip
    row = Worker(**(values | changes))  # type: ignore[arg-type]
    return await stage.store.write(lambda tx: tx.workers.add(row))


async def test_a_worker_tells_all_of_itself(stage: Stage) -> None:
    made = await worker(stage, labels={"gpu": "a100"}, places=("root:/srv",))
    async with stage.client() as http:
        (shown,) = (await http.get("/api/v1/workers")).json()["items"]
    assert (shown["id"], shown["labels"], shown["shared_roots"], shown["busy"], shown["slots"]) == (
        made.id, {"gpu": "a100"}, ["/srv"], 0, 2,
    )  # fmt: skip
    assert (shown["state"], shown["reason"], shown["changed_by"], shown["changed_at"]) == (
        "active",
        None,
        None,
        None,
    )


async def test_draining_resuming_and_releasing(stage: Stage) -> None:
    made = await worker(stage)
    path = f"/api/v1/workers/{made.id}"
    async with stage.client() as http:
        drained = (await http.post(f"{path}/drain", json={"reason": "new disk"})).json()
        assert (drained["state"], drained["reason"], drained["changed_by"]) == (
            "draining",
            "new disk",
            "usr_local",
        )
        assert drained["changed_at"] is not None
        refused = await http.post(f"{path}/release")
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert (await http.post(f"{path}/resume")).json()["state"] == "active"
        for _ in range(3):
            await stage.store.write(lambda tx: tx.workers.fault(made.pk, "no agent", 5, quarantine_after=3))
        (shown,) = (await http.get("/api/v1/workers")).json()["items"]
        assert (shown["state"], shown["reason"]) == ("quarantined", "3 failures in a row, the last: no agent")
        assert (await http.post(f"{path}/release")).json()["state"] == "active"
        assert (await http.post("/api/v1/workers/wrk_none/drain")).status_code == 404
        assert (await http.post(f"{path}/drain", json={"until": 5})).status_code == 422


async def test_only_the_operator_may_ask(stage: Stage) -> None:
    made = await worker(stage)
    for secret in (
        await stage.token(owner="usr_bob", name="bob"),
        await stage.token(kind="agent", name="agent"),
        await stage.token(kind="worker", name="worker"),
    ):
        async with stage.client(secret) as http:
            for action in ("drain", "resume", "release"):
                answer = await http.post(f"/api/v1/workers/{made.id}/{action}")
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_stats_tell_the_operator_what_nobody_serves(stage: Stage) -> None:
    await stage.submitted()
    async with stage.client() as http:
        (lane,) = (await http.get("/api/v1/stats")).json()["queue"]["unserved"]
        assert (lane["place"], lane["backend"], lane["labels"], lane["runs"]) == (
            f"host:{HOST}",
            "echo",
            {},
            1,
        )
        assert lane["why"] == f"host {HOST}: no worker is there"
        await worker(stage)
        (lane,) = (await http.get("/api/v1/stats")).json()["queue"]["unserved"]
        assert lane["why"] == f"backend echo: offered by nobody on host {HOST}"
        await worker(stage, backends=("echo",))
        assert (await http.get("/api/v1/stats")).json()["queue"]["unserved"] == []
    async with stage.client(await stage.token(owner="usr_bob", name="bob")) as http:
        assert (await http.get("/api/v1/stats")).json()["queue"]["unserved"] == []
