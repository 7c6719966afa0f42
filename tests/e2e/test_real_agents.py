"""The real Codex and Claude Code programs, driven by a real server, against the scripted model server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import Server, gap_free

from overnight.testing.demo_script import SCRIPT
from overnight.testing.model_server import ModelServer
from overnight.testing.sample_workspace import GOAL, copy_to

Name = Literal["codex", "claude"]
MODELS = {"codex": "scripted-model", "claude": "claude-sonnet-4-5"}
Drive = Callable[..., Server]

pytestmark = pytest.mark.real_agents


@pytest.fixture
def drive(serve: Start, folder: Path, agent_program: Callable[[str], Path]) -> Drive:
    def start(name: Name, url: str) -> Server:
        binary = agent_program(name)
        if name == "claude":
            keys = 'ANTHROPIC_API_KEY = "no-real-key", CLAUDE_CODE_MAX_RETRIES = "1"'
            table = f'environment = {{ ANTHROPIC_BASE_URL = "{url}", {keys} }}'
        else:
            provider = f'name="scripted",base_url="{url}/v1",env_key="MODEL_KEY",wire_api="responses"'
            provider += ",request_max_retries=1,stream_max_retries=1,stream_idle_timeout_ms=3000"
            args = ["-c", 'model_provider="scripted"', "-c", f"model_providers.scripted={{{provider}}}"]
            table = f'environment = {{ MODEL_KEY = "no-real-key" }}\nargs = {json.dumps(args)}'
        return serve(
            {},
            root=folder,
            config=f'[backends.{name}]\nprogram = "{binary}"\n{table}\n',
            environment={"OVERNIGHT_GRACE_S": "1", "OVERNIGHT_SANDBOX_MODE": "auto"},
        )

    return start


@pytest.mark.parametrize("name", ["codex", "claude"])
def test_a_continuous_run_to_its_completion(drive: Drive, name: Name) -> None:
    with ModelServer(SCRIPT) as model:
        server = drive(name, model.url)
        work = copy_to(server.workspace())
        run = server.submit(name, goal=GOAL, workspace=str(work), model=MODELS[name])
        ended = server.until(run["id"], "completed", within=200)
    assert (ended["turn"], ended["completion"]["by"]) == (3, "stop_file")
    assert (work / "textkit/slugs.py").is_file()
    events = server.events(run["id"])
    assert gap_free(events)
    types = {event["type"] for event in events}
    assert {
        "message.completed",
        "command.started",
        "command.completed",
        "log.updated",
        "file.written",
    } <= types
    assert {"tests.completed", "usage.recorded"} <= types
    usage = [event["data"] for event in events if event["type"] == "usage.recorded"]
    calls = [len(turn["moves"]) for turn in SCRIPT["turns"]]
    assert [found["input"] for found in usage] == [1000 * count for count in calls], "usage is this turn's"
    assert ended["stats"]["tokens"]["input"] == sum(1000 * count for count in calls)
    assert ended["stats"]["tests"]["failed"] == 0


# Every other fault is tried on the backends alone: tests/backends. Here it is about the state of the run.
FAULTS: dict[str, tuple[dict[str, Any], bool]] = {
    "500": ({"fault": "500"}, True),
    "400": ({"fault": "400"}, False),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["codex", "claude"])
def test_a_model_fault_ends_the_turn_with_a_code(drive: Drive, name: Name, fault: str) -> None:
    move, retryable = FAULTS[fault]
    with ModelServer([move] * 50) as model:
        server = drive(name, model.url)
        run = server.submit(name, mode="oneshot", model=MODELS[name], limits={"attempts": 1})
        ended = server.until(run["id"], "paused" if retryable else "failed", within=150)
    failed = server.events(run["id"], "turn.failed")[-1]["data"]
    assert failed["retryable"] is retryable
    assert failed["code"]
    assert failed["message"]
    assert "turn.completed" not in {event["type"] for event in server.events(run["id"])}
    assert ended["stats"]["turns"] == 0


@pytest.mark.parametrize("name", ["codex", "claude"])
def test_a_model_that_hangs_ends_by_the_deadline_of_the_turn(drive: Drive, name: Name) -> None:
    with ModelServer([{"fault": "hang"}] * 50) as model:
        server = drive(name, model.url)
        limits = {"attempts": 1, "turn_timeout_s": 4}
        run = server.submit(name, mode="oneshot", model=MODELS[name], limits=limits)
        server.until(run["id"], "paused", "failed", within=150)
    failed = server.events(run["id"], "turn.failed")[-1]["data"]
    assert failed["code"]
