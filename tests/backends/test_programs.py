"""Command lines, environments and preflights of the programs, with small stand-ins for the real ones."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.backends.stand_ins import HOST, settings

from overnight.backends.claude.backend import ClaudeProgram
from overnight.backends.codex.backend import CodexProgram
from overnight.backends.codex.provider import provider_of
from overnight.backends.command.backend import CommandProgram
from overnight.backends.echo.backend import EchoBackend
from overnight.domain.update import Message
from overnight.errors import BackendFailure
from overnight.testing.agents import SCRIPTED_AGENT
from overnight.testing.bare_turn import run_bare, turn_start
from overnight.testing.clocks import ManualClock

pytestmark = pytest.mark.anyio


def pairs(argv: tuple[str, ...], flag: str) -> list[str]:
    return [argv[at + 1] for at, arg in enumerate(argv) if arg == flag]


@pytest.fixture
def codex(stand_in: Callable[..., Path]) -> CodexProgram:
    return CodexProgram(settings("codex", program=stand_in("codex", "codex-cli 0.169.0")), ManualClock())


@pytest.fixture
def claude(stand_in: Callable[..., Path]) -> ClaudeProgram:
    return ClaudeProgram(
        settings("claude", program=stand_in("claude", "2.1.197 (Claude Code)")), ManualClock()
    )


def test_codex_gets_the_prompt_on_stdin_and_never_in_argv(codex: CodexProgram, outside_tmp: Path) -> None:
    start = turn_start(outside_tmp, prompt="a secret goal", model="gpt-5.5", effort="high")
    command = codex.command(start)
    assert command.stdin == b"a secret goal"
    assert command.close_stdin
    assert not any("secret goal" in arg for arg in command.argv)
    assert command.argv[1] == "exec"
    assert command.argv[-1] == "-"
    assert command.cwd == start.workspace
    assert pairs(command.argv, "-m") == ["gpt-5.5"]
    assert 'model_reasoning_effort="high"' in pairs(command.argv, "-c")
    assert command.interrupt is not None
    assert command.interrupt.signal == 2


@pytest.mark.parametrize(
    "sandbox, mode", [("read_only", "read-only"), ("workspace_write", "workspace-write")]
)
def test_codex_sandboxes_a_first_and_a_resumed_turn_alike(
    codex: CodexProgram, outside_tmp: Path, sandbox: str, mode: str
) -> None:
    for resume in ({}, {"thread_id": "t-1"}):
        argv = codex.command(turn_start(outside_tmp, sandbox=sandbox, resume=resume)).argv
        assert f'sandbox_mode="{mode}"' in pairs(argv, "-c")
        assert "--dangerously-bypass-approvals-and-sandbox" not in argv
        assert (argv[1:4] == ("exec", "resume", "t-1")) is bool(resume)


def test_codex_with_full_access_says_so_and_works_in_the_temporary_folder(
    codex: CodexProgram, tmp_path: Path
) -> None:
    argv = codex.command(turn_start(tmp_path, sandbox="full_access")).argv
    assert "--dangerously-bypass-approvals-and-sandbox" in argv
    with pytest.raises(BackendFailure) as caught:
        codex.command(turn_start(tmp_path, sandbox="workspace_write"))
    assert (caught.value.failure_code, caught.value.retryable) == ("home_in_temporary_folder", False)


def test_the_operators_arguments_come_last_so_that_they_win(
    stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    own = settings("codex", program=stand_in("codex", "0.169.0"), args=("-c", "model_provider=mock"))
    argv = CodexProgram(own, ManualClock()).command(turn_start(tmp_path, sandbox="full_access")).argv
    assert argv[-3:] == ("-c", "model_provider=mock", "-")


def test_environments_contain_what_is_listed_and_nothing_else(
    codex: CodexProgram, claude: ClaudeProgram, tmp_path: Path
) -> None:
    start = turn_start(tmp_path, sandbox="full_access", environment={"OVERNIGHT_VAR_A": "1"})
    for program, home in ((codex, "CODEX_HOME"), (claude, "CLAUDE_CONFIG_DIR")):
        env = program.command(start).env
        assert not {"LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "OVERNIGHT_TOKEN"} & set(env)
        assert (env["HOME"], env["OVERNIGHT_VAR_A"]) == (str(start.home), "1")
        assert env["https_proxy"] == "http://proxy:1"
        assert env[home].startswith(str(start.home))
        assert Path(env[home]).is_dir()
        assert env["GIT_CONFIG_KEY_0"] == "core.fsmonitor"


def test_a_run_cannot_move_the_home_of_a_program(
    codex: CodexProgram, claude: ClaudeProgram, tmp_path: Path
) -> None:
    wanted = {"HOME": "/etc", "CODEX_HOME": "/etc", "CLAUDE_CONFIG_DIR": "/etc"}
    start = turn_start(tmp_path, sandbox="full_access", environment=wanted)
    for program, variable in ((codex, "CODEX_HOME"), (claude, "CLAUDE_CONFIG_DIR")):
        env = program.command(start).env
        assert "/etc" not in (env["HOME"], env[variable])


def test_codex_takes_the_key_that_people_have(stand_in: Callable[..., Path], tmp_path: Path) -> None:
    program = stand_in("codex", "0.169.0")
    start = turn_start(tmp_path, sandbox="full_access")
    for table, host, key in (
        ({}, {"OPENAI_API_KEY": "a"}, "a"),
        ({}, {"CODEX_API_KEY": "b", "OPENAI_API_KEY": "a"}, "b"),
        ({"CODEX_API_KEY": "c"}, {"CODEX_API_KEY": "b"}, "c"),
        ({}, {}, None),
    ):
        found = settings("codex", program=program, environment=table, host=HOST | host)
        assert CodexProgram(found, ManualClock()).command(start).env.get("CODEX_API_KEY") == key


def test_logins_are_lent_only_when_the_operator_says_so(
    stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    user = tmp_path / "user"
    for name in (".codex/auth.json", ".claude/.credentials.json"):
        (user / name).parent.mkdir(parents=True)
        (user / name).write_text("{}")
    start = turn_start(tmp_path, sandbox="full_access")
    for login, there in (("none", False), ("user", True)):
        shared = {"login": login, "user_home": user}
        CodexProgram(settings("codex", program=stand_in("codex", "0"), **shared), ManualClock()).command(
            start
        )
        ClaudeProgram(settings("claude", program=stand_in("claude", "0"), **shared), ManualClock()).command(
            start
        )
        assert (start.home / ".codex" / "auth.json").is_symlink() is there
        assert (start.home / ".claude" / ".credentials.json").is_symlink() is there


def test_codex_behind_its_npm_launcher_is_started_itself(tmp_path: Path) -> None:
    scope = tmp_path / "node_modules" / "@openai"
    launcher = scope / "codex" / "bin" / "codex.js"
    native = scope / "codex-linux-x64" / "vendor" / "x86_64-unknown-linux-musl" / "bin" / "codex"
    tools = native.parents[1] / "codex-path"
    tools.mkdir(parents=True)
    for path in (launcher, native):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    link = tmp_path / "codex"
    link.symlink_to(launcher)
    program = CodexProgram(settings("codex", program=link), ManualClock())
    command = program.command(turn_start(tmp_path, sandbox="full_access"))
    assert command.argv[0] == str(native)
    assert command.env["PATH"].startswith(f"{tools}:")


def test_claude_reads_no_settings_of_the_workspace(claude: ClaudeProgram, tmp_path: Path) -> None:
    start = turn_start(tmp_path, model="opus", effort="low")
    argv = claude.command(start).argv
    assert pairs(argv, "--setting-sources") == ["user"]
    assert "--strict-mcp-config" in argv
    assert (pairs(argv, "--model"), pairs(argv, "--effort")) == (["opus"], ["low"])
    assert pairs(argv, "--permission-mode") == ["bypassPermissions"]


def test_claude_is_told_the_words_of_claude_md_and_no_more(claude: ClaudeProgram, tmp_path: Path) -> None:
    start = turn_start(tmp_path)
    memory = start.workspace / "CLAUDE.md"
    flag = "--append-system-prompt-file"
    assert pairs(claude.command(start).argv, flag) == []
    memory.write_text("Use tabs.\n")
    (copy,) = pairs(claude.command(start).argv, flag)
    assert copy.startswith(str(start.folder))
    assert Path(copy).read_text() == "Use tabs.\n"
    memory.write_text("x" * 100_000)
    assert Path(pairs(claude.command(start).argv, flag)[0]).stat().st_size == 65_536
    memory.unlink()
    memory.symlink_to("/etc/hostname")
    assert pairs(claude.command(start).argv, flag) == []
    memory.unlink()
    os.mkfifo(memory)
    assert pairs(claude.command(start).argv, flag) == []


def test_claude_that_may_only_read_gets_only_reading_tools(claude: ClaudeProgram, tmp_path: Path) -> None:
    argv = claude.command(turn_start(tmp_path, sandbox="read_only")).argv
    assert pairs(argv, "--tools") == ["Read,Glob,Grep,TodoWrite"]
    assert "bypassPermissions" not in argv


def test_claude_resumes_only_where_its_session_began(claude: ClaudeProgram, tmp_path: Path) -> None:
    start = turn_start(tmp_path)
    for cwd, resumed in ((str(start.workspace), ["s-1"]), ("/elsewhere", [])):
        again = turn_start(tmp_path, resume={"session_id": "s-1", "cwd": cwd})
        assert pairs(claude.command(again).argv, "--resume") == resumed


PROVIDERS: list[tuple[tuple[str, ...], str, str | None]] = [
    ((), "https://api.openai.com/v1", "CODEX_API_KEY"),
    (("-c", "openai_base_url=http://h/v1"), "http://h/v1", "CODEX_API_KEY"),
    (("-c", 'openai_base_url="http://h/v1"'), "http://h/v1", "CODEX_API_KEY"),
    (
        ("-c", "model_provider=m", "-c", 'model_providers.m={base_url="http://m", env_key="K"}'),
        "http://m",
        "K",
    ),
    (("--config=model_provider=m", "-c", "model_providers.m.base_url=http://m"), "http://m", None),
    (("-c", "nonsense", "-c", "= 3"), "https://api.openai.com/v1", "CODEX_API_KEY"),
]


@pytest.mark.parametrize("args, url, key", PROVIDERS)
def test_the_provider_is_read_from_the_arguments(args: tuple[str, ...], url: str, key: str | None) -> None:
    provider = provider_of(args, None)
    assert (provider.base_url, provider.key_variable) == (url, key)


def test_the_provider_is_read_from_the_operators_home(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('model_provider = "m"\n[model_providers.m]\nbase_url = "http://m"\nenv_key = "K"\n')
    assert provider_of((), config).base_url == "http://m"
    assert provider_of(("-c", "model_providers.m.base_url=http://n"), config).base_url == "http://n"
    config.write_text("not toml")
    assert provider_of((), config).id == "openai"


async def test_a_command_reads_the_prompt_and_answers(tmp_path: Path) -> None:
    moves = [["read_prompt"], ["echo_prompt"], {"environment": str(tmp_path / "env.json")}]
    own = settings("mine", command=("python3", str(SCRIPTED_AGENT)), args=(json.dumps(moves),))
    program = CommandProgram(own, ManualClock())
    start = turn_start(tmp_path, prompt="say this", model="m", turn=4)
    turn = await run_bare(program, start)
    assert turn.outcome.stop_reason == "end_turn"
    assert turn.updates[-1] == Message(item_id="answer", text="say this")
    env = json.loads((tmp_path / "env.json").read_text())
    assert (env["OVERNIGHT_TURN"], env["OVERNIGHT_MODEL"], env["PYTHONUNBUFFERED"]) == ("4", "m", "1")
    assert (await program.check()).status == "ok"


async def test_a_command_that_is_not_there_is_found_out() -> None:
    program = CommandProgram(settings("mine", command=("/nowhere/agent",)), ManualClock())
    check = await program.check()
    assert (check.status, [problem.code for problem in check.problems]) == ("fail", ["program_missing"])
    assert "/nowhere/agent" in check.problems[0].message
    assert program.stamp() == program.stamp()


async def never(number: int, data: bytes) -> None:
    await asyncio.sleep(0)


async def test_echo_says_the_prompt_back(tmp_path: Path) -> None:
    backend = EchoBackend(ManualClock())
    start = turn_start(tmp_path, prompt="hello")
    turn = await backend.start(start, never)
    batches = [batch async for batch in turn.batches()]
    assert [batch.updates for batch in batches] == [(Message(item_id="echo", text="hello"),)]
    assert turn.ended().outcome.done
    assert await backend.adopt(start, never) is None  # type: ignore[func-returns-value]
    assert ((await backend.check()).status, backend.capabilities.workspace) == ("ok", False)


async def test_a_stopped_echo_says_nothing(tmp_path: Path) -> None:
    turn = await EchoBackend(ManualClock()).start(turn_start(tmp_path), never)
    await turn.stop(reason="manual", interrupt=True)
    assert [batch async for batch in turn.batches()] == []
    assert turn.ended().cause == "stopped"
    assert turn.ended().outcome.failure is not None
