"""What waits for a person, over kills and restarts, and however many decide at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.harness import Server, gap_free, let_pass

from overnight.testing.signals import wait_until

SPENDER = [["read_prompt"], {"sentinel": {"type": "usage.recorded", "input": 600, "output": 400}}]
DECIDER = Path(__file__).with_name("decider.py")


def overnight(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, as somebody at the server's machine gives it."""
    return subprocess.run(
        [sys.executable, "-m", "overnight", *arguments],
        env=server.env() | {"OVERNIGHT_URL": f"http://127.0.0.1:{server.port}"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def pending(server: Server, count: int = 1, **query: str) -> list[dict[str, Any]]:
    """The open approvals, once there are that many."""

    def look() -> list[dict[str, Any]]:
        answer = server.http.get("/api/v1/approvals", params={"state": "pending", "limit": 200, **query})
        found: list[dict[str, Any]] = answer.json()["items"]
        return found if len(found) >= count else []

    return wait_until(look, within=60, every=0.02, what=f"{count} open approvals")


def let_expire(approval: dict[str, Any]) -> None:
    """Wait until its time has passed: the wall clock is what is tested."""
    left = datetime.fromisoformat(approval["expires_at"]) - datetime.now(UTC)
    assert left.total_seconds() > 0, "it has expired before the server was gone"
    let_pass(left.total_seconds() + 0.1)


def spend(server: Server, **body: Any) -> str:
    """A run whose budget one turn spends."""
    return str(server.submit("spender", completion={"stop_file": None}, limits={"tokens": 900}, **body)["id"])


def test_a_budget_is_asked_about_over_a_kill_and_raised_by_the_command(serve: Start) -> None:
    server = serve({"spender": SPENDER})
    run = spend(server)
    (before,) = pending(server)
    server.kill()
    server.start()
    assert pending(server) == [before], "the question is what it was"
    shown = overnight(server, "approvals")
    assert "used: 1000 of 900 tokens" in shown.stdout
    raised = overnight(server, "approve", before["id"], "--limits", "tokens=1500")
    assert (raised.returncode, raised.stdout) == (0, f"{before['id']} raise\n")
    (again,) = pending(server)
    assert again["id"] != before["id"]
    assert overnight(server, "deny", "last").returncode == 0
    ended = server.until(run, "completed")
    assert (ended["turn"], ended["completion"]["by"]) == (2, "decision")
    assert gap_free(server.events(run))


def test_what_expired_while_no_server_was_there_takes_its_default_at_the_start(serve: Start) -> None:
    server = serve({"spender": SPENDER}, config="[approvals.expires]\nbudget = 4\n")
    run = spend(server)
    (approval,) = pending(server)
    server.kill()
    let_expire(approval)
    begun = time.time()
    server.start()
    ended = server.until(run, "completed")
    assert ended["completion"]["by"] == "decision"
    (expired,) = server.events(run, "approval.expired")
    assert (expired["data"]["option"], expired["data"]["by"]) == ("finish", "system")
    after = server.http.get(f"/api/v1/approvals/{approval['id']}").json()
    assert after["state"] == "expired"
    assert after["resolved_at"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun))
    late = overnight(server, "approve", approval["id"], "--limits", "tokens=5000")
    assert (late.returncode, "has expired" in late.stderr) == (1, True)


def test_twenty_approvals_ten_threads_three_processes_one_decision_each(serve: Start) -> None:
    server = serve({"spender": SPENDER})
    for _ in range(20):
        spend(server)
    ids = [approval["id"] for approval in pending(server, 20)]
    url = f"http://127.0.0.1:{server.port}"

    def process(option: str) -> str:
        command = [sys.executable, str(DECIDER), url, option]
        done = subprocess.run(
            command,
            env=server.env(),
            input="\n".join(ids),
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        return done.stdout

    counts: dict[str, set[str]] = defaultdict(set)
    statuses: dict[int, int] = defaultdict(int)
    with ThreadPoolExecutor(3) as processes:
        for answers in processes.map(process, ("finish", "cancel", "finish")):
            for line in answers.splitlines():
                id, status, option = json.loads(line)
                counts[id].add(option)
                statuses[status] += 1
    assert sum(statuses.values()) == 3 * 10 * 20
    assert set(statuses) <= {200, 409}
    assert {id: len(options) for id, options in counts.items()} == dict.fromkeys(ids, 1), (
        "one decision counts"
    )
    for id in ids:
        approval = server.http.get(f"/api/v1/approvals/{id}").json()
        assert {approval["decision"]["option"]} == counts[id]
        final = server.run(approval["run_id"])["state"]
        assert final == {"finish": "completed", "cancel": "cancelled"}[approval["decision"]["option"]]
        assert len(server.events(approval["run_id"], "approval.resolved")) == 1
