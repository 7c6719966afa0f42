"""The pinned agent programs: where they are kept, and what is said when they cannot be had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from overnight.testing.agents import AgentsUnavailable, agents_folder, install, program

LOCKS = Path(__file__).parents[2] / "dev" / "agents"


def test_the_folder_is_the_users_cache_and_never_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERNIGHT_AGENTS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/srv/cache")
    assert agents_folder() == Path("/srv/cache/overnight/agents")
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/empty-home/.cache")
    assert agents_folder().is_relative_to("/var/tmp")
    monkeypatch.setenv("OVERNIGHT_AGENTS_DIR", "/srv/agents")
    assert agents_folder() == Path("/srv/agents")


def test_without_npm_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_AGENTS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    assert program("codex") is None
    with pytest.raises(AgentsUnavailable, match=r"npm is not on PATH.*install Node"):
        install(("codex",))


def test_an_npm_that_fails_is_quoted_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network down' >&2\nexit 7\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    folder = tmp_path / "agents"
    monkeypatch.setenv("OVERNIGHT_AGENTS_DIR", str(folder))
    with pytest.raises(AgentsUnavailable, match=r"(?s)exit status 7.*network down"):
        install(("claude",))
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("name", ["codex", "claude"])
def test_the_locks_pin_versions_by_hash_and_name_no_host(name: str) -> None:
    lock = json.loads((LOCKS / name / "package-lock.json").read_text())
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert packages
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())
    assert "://" not in json.dumps(lock)


@pytest.mark.real_agents
def test_they_start_and_have_the_pinned_version(codex_program: Path, claude_program: Path) -> None:
    for path, version in ((codex_program, "0.169.0"), (claude_program, "2.1.197")):
        said = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=True).stdout
        assert version in said
    where = [sys.executable, "-m", "overnight.testing.agents", "where"]
    listed = subprocess.run(where, capture_output=True, text=True, check=True).stdout
    assert f"codex {codex_program}\n" in listed
