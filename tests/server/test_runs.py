"""Runs over HTTP: submit, look at, list, control, delete."""

import pytest
from tests.server.stage import Stage

pytestmark = pytest.mark.anyio


async def test_submit_answers_202_with_the_run_and_where_it_is(stage: Stage) -> None:
    async with stage.client() as http:
        answer = await http.post(
            "/api/v1/runs", json={"goal": "Make it so", "mode": "oneshot", "labels": {"a": "b"}}
        )
        assert answer.status_code == 202, answer.text
        run = answer.json()
        assert answer.headers["location"] == f"/api/v1/runs/{run['id']}"
        assert (run["state"], run["goal"], run["labels"], run["owner"]) == (
            "queued",
            "Make it so",
            {"a": "b"},
            "usr_local",
        )
        assert run["completion"] == {"detected": False, "by": None, "line": None}
        assert run["config"]["limits"]["turns"] == 50
        again = await http.get(answer.headers["location"])
        assert again.json() == run
        assert (await http.get(f"/api/v1/runs/{run['id']}/status")).json() == run
