"""An agent that asks, over kills and restarts: waiting in place, or stopped and told in its next turn."""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.harness import Server, gap_free, kill_quietly, written
from tests.e2e.test_approvals import let_expire, overnight, pending

from overnight.testing.agents import ACP_AGENT
from overnight.testing.signals import wait_until


def call(command: str) -> dict[str, Any]:
    return {"toolCallId": "c1", "title": command, "kind": "execute", "rawInput": {"command": command}}


def asker(root: Path, *moves: Any) -> str:
    """The configuration of an ACP agent that makes these moves in each turn, after it has told its pid."""
    script = {"turns": [[["publish", str(root / "work/w/agent.pid")], *moves]]}
    command = [sys.executable, str(ACP_AGENT), json.dumps(script)]
    return f'[backends.asker]\nkind = "acp"\ncommand = {json.dumps(command)}\n'


def asking(serve: Start, root: Path, *moves: Any, more: str = "", **body: Any) -> tuple[Server, str, int]:
    """A server with a run whose agent asks, the run's id, and the agent's pid."""
    root.mkdir()
    server = serve({}, root=root, config=f"{more}\n{asker(root, *moves)}")
    body = {"mode": "oneshot", "approval_policy": "ask_all", "workspace": str(server.workspace()), **body}
    run = server.submit("asker", **body)["id"]
    (pid,) = written(server.workspace(), "agent.pid")
    return server, str(run), int(pid)


def said(server: Server, run: str) -> str:
    return "".join(event["data"]["text"] for event in server.events(run, "message.completed"))


def test_the_agent_waits_in_place_over_a_kill_and_hears_the_command(serve: Start, tmp_path: Path) -> None:
    server, run, pid = asking(serve, tmp_path / "s", ["permission", call("make test")])
    server.until(run, "blocked")
    (approval,) = pending(server)
    server.kill()
    assert Path(f"/proc/{pid}").exists()
    server.start()
    server.seen(run, "run.recovered")
    assert server.run(run)["state"] == "blocked"
    assert pending(server) == [approval]
    shown = overnight(server, "approvals", "--run", run)
    assert "  $ make test" in shown.stdout.splitlines()
    assert overnight(server, "approve", approval["id"]).returncode == 0
    ended = server.until(run, "completed")
    assert (ended["attempt"], said(server, run)) == (1, "[allow_once]")
    events = server.events(run)
    assert gap_free(events)
    assert [event["data"]["adopted"] for event in events if event["type"] == "run.recovered"] == [True]
    assert [event["type"] for event in events].count("approval.requested") == 1


def test_with_the_agent_dead_the_decision_starts_the_turn_again(serve: Start, tmp_path: Path) -> None:
    server, run, pid = asking(serve, tmp_path / "s", ["say", "$PROMPT"], ["permission", call("make test")])
    server.until(run, "blocked")
    (approval,) = pending(server)
    server.kill()
    for left in server.descendants():
        kill_quietly(left)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the agent to be dead")
    server.start()
    server.until(run, "waiting")
    assert server.run(run)["waiting_for"]["approval_id"] == approval["id"]
    assert overnight(server, "approve", approval["id"], "--feedback", "mind the cache").returncode == 0
    server.until(run, "completed")
    again = said(server, run)
    assert "mind the cache" in again, "the prompt of the turn that is done again has the decision"
    assert again.endswith("[allow_once]"), "what was allowed once is not asked about again"
    assert len(server.http.get("/api/v1/approvals", params={"run_id": run}).json()["items"]) == 1


def test_an_agent_that_waits_too_long_is_stopped_and_the_question_stays(serve: Start, tmp_path: Path) -> None:
    more = "[approvals]\npark_after_s = 0.5\n"
    server, run, pid = asking(serve, tmp_path / "s", ["permission", call("make test")], more=more)
    server.until(run, "waiting")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the agent to be gone")
    (approval,) = pending(server)
    assert overnight(server, "deny", approval["id"], "--feedback", "not now").returncode == 0
    # The turn is done again and asks again: an action that was rejected once may be asked about another time.
    (second,) = pending(server)
    assert second["id"] != approval["id"]
    assert overnight(server, "deny", second["id"], "--always").returncode == 0
    server.until(run, "completed")
    assert said(server, run).endswith("[reject_once]")


def test_a_server_that_is_told_to_stop_leaves_the_question_open(serve: Start, tmp_path: Path) -> None:
    server, run, pid = asking(serve, tmp_path / "s", ["permission", call("make test")])
    server.until(run, "blocked")
    (approval,) = pending(server)
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert not Path(f"/proc/{pid}").exists(), "an orderly end leaves no agent"
    server.start()
    assert server.run(run)["state"] == "waiting"
    assert pending(server) == [approval]
    assert overnight(server, "approve", approval["id"]).returncode == 0
    server.until(run, "completed")
    assert said(server, run).endswith("[allow_once]")


def test_the_default_reaches_an_agent_whose_question_expired_without_a_server(
    serve: Start, tmp_path: Path
) -> None:
    more = "[approvals.expires]\ncommand = 4\n"
    server, run, pid = asking(serve, tmp_path / "s", ["permission", call("make test")], more=more)
    server.until(run, "blocked")
    (approval,) = pending(server)
    server.kill()
    let_expire(approval)
    assert Path(f"/proc/{pid}").exists()
    server.start()
    server.until(run, "completed")
    assert said(server, run) == "[reject_once]"
    (expired,) = server.events(run, "approval.expired")
    assert expired["data"]["by"] == "system"


def test_a_file_that_became_a_link_is_not_written(serve: Start, tmp_path: Path) -> None:
    """What the agent asks Overnight itself to do is bound to the places that were shown."""
    path = tmp_path / "s" / "work" / "w" / "notes"
    server, run, _ = asking(
        serve, tmp_path / "s", ["request", "fs/write_text_file", {"path": str(path), "content": "new"}]
    )
    server.until(run, "blocked")
    (approval,) = pending(server)
    outside = server.root / "outside"
    outside.write_text("precious", encoding="utf-8")
    path.symlink_to(outside)
    refused = overnight(server, "approve", approval["id"])
    assert (refused.returncode, "nothing was decided" in refused.stderr) == (1, True)
    assert "OUTSIDE the workspace" in refused.stderr
    assert server.run(run)["state"] == "blocked"
    assert overnight(server, "deny", approval["id"]).returncode == 0
    server.until(run, "completed")
    assert outside.read_text(encoding="utf-8") == "precious"


def test_a_command_that_nobody_sits_at_shows_the_question_and_ends_with_5(
    serve: Start, tmp_path: Path
) -> None:
    root = tmp_path / "s"
    root.mkdir()
    server = serve({}, root=root, config=asker(root, ["permission", call("make test")]))
    work = str(server.workspace())
    asked = overnight(server, "run", "go", "-b", "asker", "-m", "oneshot", "-w", work, "--policy", "ask_all")
    (approval,) = pending(server)
    assert asked.returncode == 5
    assert f"overnight approve {approval['id']}" in asked.stderr
    assert overnight(server, "approve", "last").returncode == 0
    watched = overnight(server, "watch", approval["run_id"])
    assert (watched.returncode, "[allow_once]" in watched.stdout) == (0, True)
    assert "→ allow_once by usr_local" in watched.stdout


def test_two_deciders_at_once_and_the_agent_hears_one(serve: Start, tmp_path: Path) -> None:
    server, run, _ = asking(serve, tmp_path / "s", ["permission", call("make test")])
    (approval,) = pending(server)
    with ThreadPoolExecutor(2) as both:
        yes = both.submit(overnight, server, "approve", approval["id"])
        no = both.submit(overnight, server, "deny", approval["id"])
    outcomes = {"allow_once": yes.result(), "reject_once": no.result()}
    winner = server.http.get(f"/api/v1/approvals/{approval['id']}").json()["decision"]["option"]
    assert {option: done.returncode for option, done in outcomes.items()} == {
        option: 0 if option == winner else 1 for option in outcomes
    }
    server.until(run, "completed")
    assert said(server, run) == f"[{winner}]"
