"""What each agent of the protocol is given: its preflight, its arguments, its home."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.backends.stand_ins import NOBODY, settings

from overnight.backends.acp.agent import npm_platform
from overnight.backends.acp.catalogue import Name, acp_program
from overnight.backends.acp.program import AcpProgram
from overnight.domain.backend import BackendCheck
from overnight.errors import BackendFailure
from overnight.testing.bare_turn import turn_start
from overnight.testing.clocks import ManualClock
from overnight.testing.pytest_plugin import StartModel

pytestmark = pytest.mark.anyio

NAMES: tuple[Name, ...] = ("gemini", "qwen", "opencode", "copilot", "codex-acp", "claude-acp")


def program(name: Name, **changes: object) -> AcpProgram:
    return acp_program(name, settings(name, **changes), ManualClock())


def codes(check: BackendCheck) -> list[str]:
    return [problem.code for problem in check.problems]


@pytest.mark.parametrize("name", NAMES)
async def test_a_missing_program_is_found_out_and_said(name: Name, tmp_path: Path) -> None:
    missing = program(name, host=NOBODY)
    check = await missing.check()
    assert (check.status, codes(check)) == ("fail", ["program_missing"])
    assert f"[backends.{name}]" in check.problems[0].mend
    with pytest.raises(BackendFailure):
        missing.command(turn_start(tmp_path))


async def test_a_key_is_tried_and_another_version_is_told(
    stand_in: Callable[..., Path], start_model: StartModel
) -> None:
    url = start_model([], keys=["good"]).url
    for environment, version, wanted in (
        ({}, "0.61.3", ["login_missing"]),
        ({"GEMINI_API_KEY": "bad"}, "0.61.3", ["key_refused"]),
        ({"GEMINI_API_KEY": "good"}, "0.61.3", []),
        ({"GEMINI_API_KEY": "good"}, "0.99.0", ["version_untried"]),
    ):
        found = stand_in("gemini", version)
        check = await program(
            "gemini", program=found, environment={**environment, "GOOGLE_GEMINI_BASE_URL": url}
        ).check()
        assert (codes(check), check.version) == (wanted, version)


async def test_the_login_of_the_user_is_lent(stand_in: Callable[..., Path], tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / ".claude").mkdir(parents=True)
    (own / ".claude" / ".credentials.json").write_text("{}")
    ready = program(
        "claude-acp", program=stand_in("claude-agent-acp", "0.100.2"), login="user", user_home=own
    )
    assert (await ready.check()).status == "ok"
    start = turn_start(tmp_path / "t")
    command = ready.command(start)
    lent = start.home / ".claude" / ".credentials.json"
    assert lent.resolve() == own / ".claude" / ".credentials.json"
    assert command.writable == (own / ".claude" / ".credentials.json",)


async def test_codex_is_found_behind_its_launcher_and_told_by_its_package(tmp_path: Path) -> None:
    modules = tmp_path / "lib" / "node_modules" / "@zed-industries"
    native = modules / f"codex-acp-{npm_platform()}" / "bin" / "codex-acp"
    native.parent.mkdir(parents=True)
    native.write_text("#!/bin/sh\n")
    native.chmod(0o755)
    (native.parents[1] / "package.json").write_text('{"version": "0.16.4"}')
    launcher = modules / "codex-acp" / "bin" / "codex-acp.js"
    launcher.parent.mkdir(parents=True)
    launcher.write_text("#!/usr/bin/env node\n")
    launcher.chmod(0o755)
    found = program("codex-acp", program=launcher, args=("-c", "model_provider=local"))
    assert found.command(turn_start(tmp_path / "t")).argv[0] == str(native)
    check = await found.check()
    assert check.version == "0.16.4"
    assert check.status != "fail"


async def test_the_adapter_that_trusts_every_workspace_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "node_modules" / "@agentclientprotocol" / "codex-acp" / "dist" / "index.js"
    script.parent.mkdir(parents=True)
    script.write_text("#!/usr/bin/env node\n")
    script.chmod(0o755)
    refused = program("codex-acp", program=script)
    check = await refused.check()
    assert (check.status, "program_unfit" in codes(check)) == ("fail", True)
    with pytest.raises(BackendFailure, match="trusts every workspace"):
        refused.command(turn_start(tmp_path / "t"))


@pytest.mark.parametrize("name", NAMES)
async def test_an_agent_asks_unless_nobody_wants_to_be_asked(
    name: Name, stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    real = program(name, program=stand_in(name, "1.0.0"))
    said = {}
    for policy in ("ask_writes", "autonomous"):
        start = turn_start(tmp_path / policy, approval_policy=policy)
        command = real.command(start)
        codec: Any = real.codec(start)
        said[policy] = (command.argv, command.env.get("OPENCODE_CONFIG_CONTENT"), codec._script.mode)
    asking, free = repr(said["ask_writes"]), repr(said["autonomous"])
    loose = ("--allow-all", '"never"', "bypassPermissions", '"allow"', "yolo")
    assert not any(word in asking for word in loose)
    if name not in {"gemini", "qwen"}:  # those are answered by us
        assert any(word in free for word in loose)


@pytest.mark.parametrize("name", NAMES)
async def test_what_an_agent_leaves_in_its_home_does_not_configure_the_next_turn(
    name: Name, stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    real = program(name, program=stand_in(name, "1.0.0"))
    start = turn_start(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    real.command(start)
    written = [path for path in start.home.rglob("*") if path.is_file()]
    kept = {path: path.read_text() for path in written}
    for path in written:
        path.unlink()
        path.symlink_to(elsewhere / "victim")
        folder = path.parent
        if folder != start.home:
            folder.rename(elsewhere / folder.name)
            folder.symlink_to(elsewhere / folder.name)
            break
    real.command(start)
    assert {path: path.read_text() for path in written} == kept
    assert not any(path.is_symlink() or path.parent.is_symlink() for path in written)
    assert not (elsewhere / "victim").exists()


async def test_a_session_that_begins_and_goes_on_within_a_minute_is_kept(
    stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    session = "c1a3582e-9165-46cc-902d-2e2ec007c543"
    start = turn_start(tmp_path, resume={"session_id": session, "cwd": str(tmp_path / "workspace")})
    chats = start.home / ".gemini" / "tmp" / "workspace" / "chats"
    chats.mkdir(parents=True)
    (chats / "session-2026-11-21T18-12-c1a3582e.jsonl").write_text("the session")
    (chats / "session-2026-11-21T18-12-ffffffff.jsonl").write_text("another")
    program("gemini", program=stand_in("gemini", "0.61.0")).command(start)
    assert sorted(path.name[-14:] for path in chats.iterdir()) == ["c1a3582e.jsonl", "ffffffff.jsonl"]
    assert not (chats / "session-2026-11-21T18-12-c1a3582e.jsonl").exists()


async def test_the_operators_agent_is_started_as_it_is_written(tmp_path: Path) -> None:
    mine = acp_program("acp", settings("mine", command=("/bin/cat", "-u"), args=("-v",)), ManualClock())
    command = mine.command(turn_start(tmp_path, prompt="Hello"))
    assert command.argv == ("/bin/cat", "-u", "-v")
    assert not command.close_stdin
    hello = json.loads(command.stdin)
    assert (hello["method"], hello["params"]["protocolVersion"]) == ("initialize", 1)
    assert "Hello" not in " ".join(command.argv) + json.dumps(dict(command.env))
    assert (command.env["OVERNIGHT_RUN_ID"], command.env["OVERNIGHT_ATTEMPT"]) == (
        "run_00000000000000000000000000",
        "1",
    )
    check = await mine.check()
    assert (check.status, check.capabilities.approvals) == ("ok", True)


async def test_commands_of_the_agent_do_not_get_what_only_the_agent_may_know(tmp_path: Path) -> None:
    mine = program("gemini", environment={"GEMINI_API_KEY": "secret"})
    start = turn_start(tmp_path, environment={"OVERNIGHT_VAR_X": "x"})
    found = mine.tool_environment(start)
    assert "secret" not in found.values()
    assert (found["HOME"], found["OVERNIGHT_VAR_X"], found["GIT_TERMINAL_PROMPT"]) == (
        str(start.home),
        "x",
        "0",
    )
    assert not {"AWS_SECRET_ACCESS_KEY", "OVERNIGHT_TOKEN", "LD_PRELOAD"} & set(found)
