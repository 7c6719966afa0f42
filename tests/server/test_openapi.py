"""The description of the API, and a third party's judgement of whether the server keeps to it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from tests.server.stage import Stage

from overnight.errors import tree
from overnight.server.app import OPERATIONS, create_api
from overnight.server.pages import docs

EXAMPLES = os.environ.get("OVERNIGHT_SCHEMATHESIS_EXAMPLES", "2")
"""Cases per operation that schemathesis makes up besides its systematic ones; more for a long night."""


def test_it_is_openapi_31_and_says_how_everything_may_be_refused() -> None:
    described = create_api("1.2.3").openapi()
    assert described["openapi"].startswith("3.1")
    assert described["info"]["version"] == "1.2.3"
    for operation in OPERATIONS:
        found = described["paths"][operation.path][operation.method.lower()]
        assert found["summary"]
        assert found["description"]
        if not operation.open:
            assert "401" in found["responses"]
        for status, answer in found["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (operation.path, status)
    assert "HTTPValidationError" not in described["components"]["schemas"]
    statuses = {kind.status for kind in tree()}
    assert {"507", "503", "410", "429"} <= {
        s for p in described["paths"].values() for o in p.values() for s in o["responses"]
    }
    assert statuses <= {400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504, 507}


def test_the_page_for_people_needs_nothing_from_elsewhere() -> None:
    page = docs(create_api("1.2.3").openapi()).decode()
    assert "/api/v1/runs/{run_id}/control" in page
    for word in ("<script", "src=", "@import", "url(", "<link", "cdn"):
        assert word not in page.lower()


@pytest.mark.anyio
@pytest.mark.timeout(900)
async def test_schemathesis_finds_nothing(stage: Stage, tmp_path: Path) -> None:
    run = await stage.submitted("seed")
    await stage.append(run, "a message")
    # Left out: the endless streams and the login have tests of their own, as has the route that takes tokens away.
    # One worker: CPython 3.11 counts the depth of parsing for all threads together ("AST constructor recursion depth").
    # A schema cannot say which backends, workspaces or cursors there are, so refusing such a value (422) is no finding.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{stage.base}/openapi.json",
        "-H", f"Authorization: Bearer {stage.secret}",
        "--workers", "1", "--max-examples", EXAMPLES, "--generation-deterministic", "--request-timeout", "60",
        "--suppress-health-check", "too_slow",
        "--no-color",
        "--exclude-path", "/api/v1/stream", "--exclude-path", "/api/v1/runs/{run_id}/stream",
        "--exclude-path", "/api/v1/sessions/{session_id}/stream",
        "--exclude-path", "/api/v1/openai/responses/{run_id}",
        "--exclude-path", "/api/v1/tokens/{name}", "--exclude-path", "/login",
        "--exclude-checks", "positive_data_acceptance",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")[-8000:]
