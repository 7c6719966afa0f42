"""The lease routes over HTTP, to somebody with a worker's token and no good will: a clear refusal for everything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from tests.server.stage import HOST, Stage, staged

from overnight.ids import new_worker_id

pytestmark = pytest.mark.anyio
NOW: Final = 1_790_000_000_000
BIG: Final = 1 << 70


def deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


@dataclass
class Far:
    """A worker elsewhere that speaks for itself, and holds one run."""

    stage: Stage
    http: httpx2.AsyncClient
    id: str = field(default_factory=lambda: new_worker_id(NOW))
    run: str = ""
    token: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def me(self) -> dict[str, Any]:
        return {"id": self.id, "host": HOST, "backends": ["echo"]}

    async def raw(self, path: str, body: bytes) -> httpx2.Response:
        head = {"content-type": "application/json"}
        return await self.http.post(f"/api/v1/leases{path}", content=body, headers=head)

    async def call(self, path: str, **body: Any) -> httpx2.Response:
        return await self.raw(path, json.dumps({"protocol": 1, "worker": self.id, **body}).encode())

    async def lease(self) -> Far:
        await self.stage.submitted("say hello")
        grant = await self.call("", worker=self.me, request_id="r1", free=1)
        [lease] = grant.json()["runs"]
        self.run, self.token, self.facts = lease["run_id"], lease["token"], lease["facts"]
        return self

    async def of_run(self, route: str, **body: Any) -> httpx2.Response:
        return await self.call(f"/{self.run}/{route}", token=self.token, **body)

    def saved(self, **changes: Any) -> dict[str, Any]:
        run = {name: value for name, value in self.facts["run"].items() if name != "spec"}
        return {"op": "save_run", "run": {**run, **changes}}


@pytest.fixture(scope="module")
async def far(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Far]:
    root: Path = tmp_path_factory.mktemp("leases")
    async with staged(root) as stage:
        secret = await stage.token(kind="worker", name="far")
        yield await Far(stage, stage.client(secret)).lease()


def refused(answer: httpx2.Response) -> str:
    """The code of a refusal in good order."""
    assert 400 <= answer.status_code < 500, answer.text[:300]
    found = answer.json()
    assert found["status"] == answer.status_code
    code: str = found["code"]
    assert code != "internal"
    return code


def event(**data: Any) -> dict[str, Any]:
    return {"op": "append", "drafts": [{"type": "message.completed", "data": data}]}


UNKEPT: Final[dict[str, dict[str, Any]]] = {
    "beyond 64 bits": {"op": "touch", "step": BIG},
    "beyond 53 bits": {"op": "touch", "step": 1 << 60},
    "in words": {"op": "touch", "step": "9" * 40},
    "below zero": {"op": "touch", "step": -1},
    "half a character": event(text="\ud800"),
    "half a name": event(**{"\udfff": 1}),
    "a number in an event": event(n=-BIG),
    "deep": event(x=deep(300)),
    "deeper": event(x=deep(900)),
    "no number": event(x=float("nan")),
    "no end": event(x=float("-inf")),
    "no run": {"op": "save_run", "run": []},
    "a word for a run": {"op": "save_run", "run": "x"},
    "no step": {"op": ["append"]},
    "no drafts": {"op": "append", "drafts": None},
    "no base64": {"op": "add_input", "n": 1, "data": "!"},
}


@pytest.mark.parametrize("what", UNKEPT)
async def test_what_cannot_be_kept_is_refused(far: Far, what: str) -> None:
    base = far.facts["base"]
    assert refused(await far.of_run("ack", batch=1, base=base, ops=[UNKEPT[what]])) == "invalid_request"


@pytest.mark.parametrize(
    "name", ["pid", "waiting_since", "not_before", "idle_turns", "turn", "attempt", "stats", "now"]
)
async def test_no_number_of_a_run_is_too_large(far: Far, name: str) -> None:
    shapes: dict[str, Any] = {
        "stats": {"usage": {"input": BIG}},
        "now": {"item": "x", "text": "y", "since": BIG},
    }
    op = far.saved(**{name: shapes.get(name, BIG)})
    assert refused(await far.of_run("ack", batch=1, base=far.facts["base"], ops=[op])) == "invalid_request"


async def test_a_plain_report_is_weighed_the_same(far: Far) -> None:
    for data in ({"x": "\ud800"}, {"x": BIG}, {"x": deep(300)}):
        events = [{"type": "message.completed", "data": data}]
        assert refused(await far.of_run("events", batch=1, events=events)) == "invalid_request"
    events = [{"type": "message.delta", "data": {}}]
    assert refused(await far.of_run("events", batch=1, events=events)) == "forbidden"
    assert refused(await far.of_run("events", batch=1, events=events, ops=[event()])) == "invalid_request"
    assert refused(await far.of_run("ack", batch=1)) == "invalid_request"
    both = {"outcome": "completed", "ops": [{"op": "drop"}]}
    assert refused(await far.of_run("ack", batch=1, **both)) == "invalid_request"
    assert refused(await far.of_run("give-up", code="\x1b[2J")) == "invalid_request"


async def test_questions_are_weighed_too(far: Far) -> None:
    for ask in (
        {"what": "turn", "number": BIG},
        {"what": "messages", "limit": 5, "before": 1 << 60},
        {"what": "events", "limit": -1},
        {"what": "state", "id": "\ud800"},
        {"what": "secrets"},
    ):
        assert refused(await far.of_run("facts", asks=[ask])) == "invalid_request"
    assert refused(await far.of_run("facts", asks=[{"what": "rules"}] * 51)) == "invalid_request"


async def test_bodies_that_are_none(far: Far) -> None:
    for body in (
        b"",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"worker":' + b"9" * 5000 + b"}",
        b"\xff",
        b"[]",
        b"null",
    ):
        assert refused(await far.raw("/renew", body)) == "invalid_request"
    assert refused(await far.call("/renew", tokens={"\ud800": 1})) == "invalid_request"
    assert refused(await far.call("/renew", tokens={"x": 1 << 60})) == "invalid_request"
    check = {"name": "echo", "status": "ok", "capabilities": {}, "checked_at": BIG}
    offer = {"worker": far.me, "request_id": "r2", "free": 0, "checks": [check]}
    assert refused(await far.call("", **offer)) == "invalid_request"


async def test_ids_that_are_none(far: Far) -> None:
    query = {"worker": far.id, "token": "1"}
    for run in ("x" * 70, "x", "run_" + "z" * 26):
        answer = await far.http.get(f"/api/v1/leases/{run}/requests", params=query)
        assert refused(answer) == "invalid_id"
        assert refused(await far.call(f"/{run}/facts", token=1)) == "lease_lost"
        assert refused(await far.call(f"/{run}/ack", token=1, batch=1, outcome="completed")) == "lease_lost"
    for worker in ({"id": "x"}, {"host": "x"}, {"id": far.stage.clock.wall_ms()}):
        body = {"worker": {**far.me, **worker}, "request_id": "r3"}
        assert refused(await far.call("", **body)) in {"invalid_id", "invalid_request"}


async def test_what_people_read_is_as_it_was(far: Far) -> None:
    """After all of the above, which left nothing: the last test of the module."""
    async with far.stage.client() as http:
        for path in ("", "/turns", "/events", "/approvals"):
            answer = await http.get(
                f"/api/v1/runs/{far.run}{path}" if path != "/approvals" else "/api/v1/approvals"
            )
            assert answer.status_code == 200
        types = [one["type"] for one in (await http.get(f"/api/v1/runs/{far.run}/events")).json()["items"]]
        assert types == ["run.queued", "run.started"]
        assert (await http.get("/api/v1/runs")).json()["items"][0]["state"] == "running"
