"""A whole server with the sandbox it makes by itself: what it tells of it, what its agents find, and kill -9."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import TOKEN, Server, gap_free
from tests.sandbox.estate import need_bubblewrap, surroundings

from overnight.workspaces.sandbox import Bubblewrap
from overnight.workspaces.sandbox_network import Network

SNOOP = """
for name in data/overnight.db data/keeper.key config/overnight.toml home/.netrc run data/runs; do
  path="$R/$name"
  [ -d "$path" ] && ls -R "$path" | grep -v -e : -e "^$" -e workspace -e run_
  [ -f "$path" ] && head -c 6 "$path"
done
grep -l ovn_tttt /proc/[0-9]*/environ
echo "sandbox $OVERNIGHT_SANDBOX" > mine.txt; cat mine.txt; touch "$R/elsewhere"
"""


def configured(**commands: str) -> str:
    return "\n".join(
        f'[backends.{name}]\nkind = "command"\ncommand = {json.dumps(["/bin/sh", "-c", line])}\n'
        for name, line in commands.items()
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    need_bubblewrap(Bubblewrap(surroundings(tmp_path), network=Network()))
    made = Server(
        root=tmp_path,
        environment={"OVERNIGHT_SANDBOX_MODE": "auto"},
        config=configured(
            snoop=f"R={tmp_path}\n{SNOOP}",
            waits="echo one; until [ -e gate ]; do sleep 0.02; done; echo two",
        ),
    )
    (tmp_path / "home/.netrc").write_text("password")
    yield made
    made.stop()


def test_the_run_says_what_holds_and_the_agent_finds_nothing(server: Server) -> None:
    server.start()
    run = server.submit("snoop", mode="oneshot", workspace=str(server.workspace()))
    assert run["sandbox_effective"] == "workspace_write"
    ended = server.until(run["id"], "completed", "failed")
    assert ended["sandbox_effective"] == "workspace_write"
    assert server.printed(run["id"]).splitlines() == ["sandbox workspace_write"]
    assert (server.workspace() / "mine.txt").read_text() == "sandbox workspace_write\n"
    assert not (server.root / "elsewhere").exists()
    assert [
        e for e in server.events(run["id"], "error.recorded") if e["data"]["code"] == "sandbox_unavailable"
    ] == []

    scratch = server.submit("snoop", mode="oneshot")
    server.until(scratch["id"], "completed", "failed")
    assert server.printed(scratch["id"]).splitlines() == ["sandbox workspace_write"]

    backends = server.http.get("/api/v1/backends").json()["items"]
    (snoop,) = [backend for backend in backends if backend["name"] == "snoop"]
    assert snoop["capabilities"]["sandbox"] == ["read_only", "workspace_write", "full_access"]
    (check,) = [
        found for found in server.http.get("/api/v1/doctor").json()["checks"] if found["name"] == "sandbox"
    ]
    assert check["status"] == "ok"
    assert "bubblewrap" in check["message"]


def test_a_confined_agent_lives_on_when_its_server_is_killed(server: Server) -> None:
    server.start()
    run = server.submit("waits", mode="oneshot", workspace=str(server.workspace()))
    server.seen(run["id"], "output.recorded")
    server.kill()
    server.start()
    (server.workspace() / "gate").touch()
    ended = server.until(run["id"], "completed")
    assert ended["attempt"] == 1
    assert server.printed(run["id"]) == "one\ntwo\n"
    assert gap_free(server.events(run["id"]))


def test_a_cancel_leaves_nothing_of_a_confined_agent(server: Server) -> None:
    server.start()
    run = server.submit("waits", mode="oneshot", workspace=str(server.workspace()))
    server.seen(run["id"], "output.recorded")
    server.control(run["id"], "cancel")
    server.until(run["id"], "cancelled")
    work = str(server.workspace()).encode()
    left = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"bwrap" in (told := read(path)) and work in told
    ]
    assert left == []


@pytest.mark.parametrize("required", [False, True])
def test_without_a_sandbox_that_is_said_or_refused(server: Server, tmp_path: Path, required: bool) -> None:
    server.environment = {
        "OVERNIGHT_SANDBOX_PROGRAM": "/nonexistent/bwrap",
        "OVERNIGHT_SANDBOX_MODE": "auto",
        "OVERNIGHT_REQUIRE_SANDBOX": str(required).lower(),
    }
    server.start()
    body = {"backend": "snoop", "goal": "look", "mode": "oneshot", "workspace": str(server.workspace())}
    answer = server.http.post("/api/v1/runs", json=body)
    if required:
        assert (answer.status_code, answer.json()["code"]) == (422, "sandbox_unavailable")
        return
    run = server.until(answer.json()["id"])
    assert run["sandbox_effective"] == "none"
    (warning,) = [
        e for e in server.events(run["id"], "error.recorded") if e["data"]["code"] == "sandbox_unavailable"
    ]
    assert "without" in warning["data"]["message"]
    assert TOKEN not in server.printed(run["id"])
    assert "sandbox none" in server.printed(run["id"])
    (check,) = [
        found for found in server.http.get("/api/v1/doctor").json()["checks"] if found["name"] == "sandbox"
    ]
    assert (check["status"], "apt install bubblewrap" in check["mend"]) == ("warn", True)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
