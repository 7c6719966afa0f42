"""Promise 5: a cancelled run leaves no living child process behind."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Start
from tests.e2e.harness import gap_free, written

from overnight.testing.signals import wait_until

GRACE_S = 1
DEAF = [
    ["read_prompt"],
    ["ignore"],
    ["daemon", "one.pid"],
    ["daemon", "two.pid"],
    ["pid", "agent.pid"],
    ["forever"],
]


def test_cancel_reaches_what_ignores_it_and_hides_from_it(serve: Start) -> None:
    server = serve({"deaf": DEAF}, environment={"OVERNIGHT_GRACE_S": str(GRACE_S)})
    work = server.workspace()
    run = server.submit("deaf", mode="oneshot", workspace=str(work))
    pids = written(work, "agent.pid", "one.pid", "two.pid")
    server.until(run["id"], "running")
    answer = server.control(run["id"], " Cancel ")
    assert answer.status_code == 202
    assert answer.json()["state"] == "cancelling"
    ended = server.until(run["id"], "cancelled")
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert ended["cancellation"]["survivors"] == 0
    assert ended["cancellation"]["reason"] == "manual"
    steps = ended["cancellation"]["steps"]
    assert steps[0] in {"interrupt", "sigterm"}
    assert {"sigterm", "sigkill"} <= set(steps)
    last = server.events(run["id"])[-1]
    assert (last["type"], last["data"]["steps"], last["data"]["survivors"]) == ("run.cancelled", steps, 0)
    assert server.control(run["id"], "cancel").status_code == 409


def test_cancel_across_a_kill_is_carried_out_by_the_next_server(serve: Start) -> None:
    server = serve({"deaf": DEAF}, environment={"OVERNIGHT_GRACE_S": str(GRACE_S)})
    work = server.workspace()
    run = server.submit("deaf", mode="oneshot", workspace=str(work))
    (pid,) = written(work, "agent.pid")
    server.until(run["id"], "running")
    assert server.control(run["id"], "cancel").status_code == 202
    server.kill()
    server.start()
    ended = server.until(run["id"], "cancelled")
    assert ended["cancellation"]["survivors"] == 0
    assert not Path(f"/proc/{pid}").exists()


def test_pause_now_stops_the_turn_and_resume_goes_on(serve: Start) -> None:
    script = [
        [["read_prompt"], ["print", "before"], ["pid", "agent.pid"], ["forever"]],
        [["read_prompt"], ["print", "after"]],
    ]
    server = serve({"calm": script}, environment={"OVERNIGHT_GRACE_S": str(GRACE_S)})
    work = server.workspace()
    run = server.submit("calm", mode="oneshot", workspace=str(work))
    wait_until((work / "agent.pid").exists)
    server.seen(run["id"], "output.recorded")
    assert server.control(run["id"], "pause", when="now").status_code == 202
    paused = server.until(run["id"], "paused")
    assert paused["pid"] is None
    assert not Path(f"/proc/{(work / 'agent.pid').read_text(encoding='utf-8')}").exists()
    assert server.control(run["id"], "pause").status_code == 409
    assert server.control(run["id"], "resume").status_code == 202
    server.until(run["id"], "completed")
    assert server.printed(run["id"]) == "before\nafter\n"


def test_queued_and_paused_runs_are_cancelled_at_once(serve: Start) -> None:
    server = serve({"calm": [["read_prompt"]]})
    run = server.submit("calm", mode="oneshot", not_before="2099-01-01T00:00:00Z")
    assert server.run(run["id"])["waiting_for"]["kind"] == "time"
    assert server.control(run["id"], "pause").json()["state"] == "paused"
    cancelled = server.control(run["id"], "cancel").json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["cancellation"] == {"reason": "manual", "steps": [], "survivors": 0}


def test_a_flood_that_is_cancelled_is_not_read_to_its_end(serve: Start) -> None:
    server = serve(
        {"flood": [["read_prompt"], ["lines", 100_000_000], ["print", "never"]]},
        environment={"OVERNIGHT_GRACE_S": "1"},
    )
    run = server.submit("flood", mode="oneshot", workspace=str(server.workspace()))
    server.seen(run["id"], "turn.started")
    file = server.data / "runs" / run["id"] / "turns" / "1-1" / "stdout"
    wait_until(lambda: file.exists() and file.stat().st_size > 50_000_000, within=90, every=0.05)
    assert server.control(run["id"], "cancel").status_code == 202
    ended = server.until(run["id"], "cancelled")
    assert ended["cancellation"]["survivors"] == 0
    events = server.events(run["id"])
    assert gap_free(events)
    told = [event["data"] for event in events if event["type"] == "output.recorded"]
    counted = sum(data["bytes"] + data["truncated_bytes"] for data in told)
    assert counted == file.stat().st_size, "what was left out is counted"
