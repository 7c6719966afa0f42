"""Preflights: what is missing is found out, and how to mend it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backends.stand_ins import NOBODY, settings

from overnight.backends.claude.backend import ClaudeProgram
from overnight.backends.codex.backend import CodexProgram
from overnight.backends.process.findings import Findings, look_at_program
from overnight.backends.process.settings import ProgramSettings
from overnight.domain.backend import BackendCheck
from overnight.errors import BackendFailure
from overnight.testing.bare_turn import turn_start
from overnight.testing.clocks import ManualClock
from overnight.testing.pytest_plugin import StartModel

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("make", [CodexProgram, ClaudeProgram])
async def test_a_missing_program_is_found_out_and_said(
    make: type[CodexProgram | ClaudeProgram], tmp_path: Path
) -> None:
    program = make(settings("codex", host=NOBODY), ManualClock())
    check = await program.check()
    assert check.status == "fail"
    assert [problem.code for problem in check.problems] == ["program_missing"]
    assert "[backends.codex]" in check.problems[0].mend
    with pytest.raises(BackendFailure):
        program.command(turn_start(tmp_path))


def codes(check: BackendCheck) -> list[str]:
    return [problem.code for problem in check.problems]


async def test_codex_is_asked_for_its_key(stand_in: Callable[..., Path], start_model: StartModel) -> None:
    url = start_model([], keys=["good"]).url
    table = f'model_providers.mock={{name="mock", base_url="{url}/v1", env_key="MOCK_KEY"}}'
    args = ("-c", "model_provider=mock", "-c", table)
    program = stand_in("codex", "codex-cli 0.169.3")
    for environment, wanted in (
        ({}, ["key_missing"]),
        ({"MOCK_KEY": "bad"}, ["key_refused"]),
        ({"MOCK_KEY": "good"}, []),
    ):
        found = settings("codex", program=program, args=args, environment=environment)
        check = await CodexProgram(found, ManualClock(wall_ms=7)).check()
        assert codes(check) == wanted
        assert (check.status, check.version, check.checked_at) == ("fail" if wanted else "ok", "0.169.3", 7)


async def test_codex_without_key_or_login_is_not_ready(stand_in: Callable[..., Path]) -> None:
    check = await CodexProgram(settings("codex", program=stand_in("codex", "0.169.0")), ManualClock()).check()
    assert codes(check) == ["login_missing"]


async def test_codex_with_the_users_login_is_ready(stand_in: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    found = settings("codex", program=stand_in("codex", "0.169.0"), login="user", user_home=tmp_path)
    assert (await CodexProgram(found, ManualClock()).check()).status == "ok"


async def test_a_host_without_sandbox_is_a_warning(stand_in: Callable[..., Path], outside_tmp: Path) -> None:
    args = ("-c", 'model_provider="local"', "-c", 'model_providers.local.base_url="http://127.0.0.1:9"')
    broken = settings(
        "codex", program=stand_in("codex", "0.169.0", 1), args=args, homes=outside_tmp / "homes"
    )
    program = CodexProgram(broken, ManualClock())
    start = turn_start(outside_tmp, sandbox="workspace_write")
    assert "--dangerously-bypass-approvals-and-sandbox" not in program.command(start).argv
    check = await program.check()
    assert (check.status, codes(check)) == ("warn", ["sandbox_unavailable"])
    assert check.capabilities.sandbox == program.capabilities.sandbox == ("full_access",)
    assert "--dangerously-bypass-approvals-and-sandbox" in program.command(start).argv
    assert list((outside_tmp / "homes").iterdir()) == []


async def test_homes_in_the_temporary_folder_are_a_warning(
    stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / ".codex").mkdir()
    found = settings(
        "codex", program=stand_in("codex", "0.169.0"), login="user", user_home=tmp_path, homes=tmp_path
    )
    program = CodexProgram(found, ManualClock())
    assert codes(await program.check()) == ["home_in_temporary_folder"]
    argv = program.command(turn_start(tmp_path, sandbox="workspace_write")).argv
    assert "--dangerously-bypass-approvals-and-sandbox" in argv


async def test_an_untried_version_is_a_warning(stand_in: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    shared = {"login": "user", "user_home": tmp_path}
    check = await CodexProgram(
        settings("codex", program=stand_in("codex", "0.42.0"), **shared), ManualClock()
    ).check()
    assert (check.status, check.version, codes(check)) == ("warn", "0.42.0", ["version_untried"])


async def test_a_program_without_a_version_is_broken(stand_in: Callable[..., Path]) -> None:
    check = await CodexProgram(settings("codex", program=stand_in("codex", "what?")), ManualClock()).check()
    assert codes(check) == ["program_broken"]


async def test_claude_is_asked_for_its_key(stand_in: Callable[..., Path], start_model: StartModel) -> None:
    url = start_model([], keys=["good"]).url
    program = stand_in("claude", "2.1.197 (Claude Code)")
    address = {"ANTHROPIC_BASE_URL": url}
    for environment, wanted in (
        ({}, ["login_missing"]),
        ({"ANTHROPIC_API_KEY": "bad"}, ["key_refused"]),
        ({"ANTHROPIC_API_KEY": "good"}, []),
        ({"ANTHROPIC_AUTH_TOKEN": "good"}, []),
        ({"ANTHROPIC_API_KEY": "good", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, ["service_unverified"]),
    ):
        found = settings("claude", program=program, environment=address | environment)
        assert codes(await ClaudeProgram(found, ManualClock()).check()) == wanted


def test_the_stamp_changes_with_program_and_table(stand_in: Callable[..., Path]) -> None:
    program = stand_in("codex", "0.169.0")
    plain = CodexProgram(settings("codex", program=program), ManualClock())
    before = plain.stamp()
    assert before == plain.stamp()
    assert before != CodexProgram(settings("codex", program=program, args=("-x",)), ManualClock()).stamp()
    program.write_text("#!/bin/sh\necho other\n")
    assert before != plain.stamp()


async def test_a_program_that_unpacks_itself_does_so_in_a_folder_of_ours(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "unpacks"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nmkdir -p "$HOME/unpacked" && echo 1.2.3\n')
    program.chmod(0o755)
    settings = ProgramSettings(
        name="x", program=program, host={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    )
    findings = Findings()
    assert await look_at_program(findings, settings, "x", oldest=(1, 0, 0), newest=(2, 0, 0)) == program
    kept = replace(settings, homes=tmp_path / "data" / "homes")
    assert await look_at_program(Findings(), kept, "x", oldest=(1, 0, 0), newest=(2, 0, 0)) == program
    assert findings.version == "1.2.3"
    assert (tmp_path / "data" / "preflight" / "unpacked").is_dir()
    assert not (tmp_path / "data" / "homes").exists()
