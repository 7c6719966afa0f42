"""Runs whose worker is killed, stopped or gone: another host goes on where it may, and no two agents live at once."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.harness import LEASE_S, Cluster, Life, Node, Start
from tests.e2e.harness import gap_free

from overnight.keeper_protocol import read_identity
from overnight.testing.signals import for_this_machine, wait_until

SLACK_S = 3.0
"""What the start of an agent, and a machine with a core for everybody, may add to a bound."""


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def printed(server: Node, run: str, attempt: int) -> list[str]:
    """The lines recorded of one attempt."""
    events = [e for e in server.events(run, "output.recorded") if e["attempt"] == attempt]
    return "".join(e["data"]["text"] for e in events if e["data"]["stream"] == "stdout").splitlines()


def numbered(count: int) -> list[str]:
    return [f"line {number}" for number in range(1, count + 1)]


def repository(at: Path) -> str:
    """A small git repository."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(at), "-c", "user.name=t", "-c", "user.email=t@localhost", *words],
            check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "HOME": str(at)},
        )  # fmt: skip

    at.mkdir()
    git("init", "-q", "-b", "main")
    (at / "file").write_text("one\n", encoding="utf-8")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    return str(at)


def holder(cluster: Cluster, server: Node, run: str) -> Node:
    """The node that carries the run out."""
    host = server.run(run)["host_id"]
    return next(node for node in cluster.nodes if node.command == "worker" and node.host == host)


def taken_over(server: Node, run: str) -> list[dict[str, Any]]:
    """Check what every take-over by another host says; the events."""
    events = server.events(run)
    assert gap_free(events)
    types = [event["type"] for event in events]
    order = [types.index(name) for name in ("turn.abandoned", "run.recovered", "run.requeued", "run.resumed")]
    assert order == sorted(order)
    assert [e["data"]["adopted"] for e in events if e["type"] == "run.recovered"] == [False]
    return events


@pytest.mark.parametrize("workspace", ["shared", "git"])
def test_another_host_goes_on_within_a_lease_of_the_end_of_a_worker(cluster: Start, workspace: str) -> None:
    made = cluster()
    server, _, _ = made.crew("s", "a", "b")
    place: object = str(made.folder("w"))
    if workspace == "git":
        place = {"git": repository(made.shared / "repository"), "ref": "main"}
    run = server.submit("busy", mode="oneshot", workspace=place)["id"]
    [first] = made.living(run)
    lost = holder(made, server, run)
    lost.kill()
    killed = boot()
    [first, second] = made.living(run, 2)
    made.enough(run)
    server.until(run, "completed")
    print(f"taken over after {second.began - killed:.2f} s, of a lease of {LEASE_S:g} s")
    assert second.began - killed <= LEASE_S + 1 + for_this_machine(SLACK_S)
    check_apart(first, second)
    taken_over(server, run)
    print(
        [(e["type"], e["attempt"], e["data"]) for e in server.events(run) if e["type"] != "output.recorded"]
    )
    assert server.run(run)["attempt"] == 2
    assert printed(server, run, 2) == numbered(made.lines(run, second))
    assert (first.cwd == second.cwd) == (workspace == "shared")
    if workspace == "git":
        assert (second.cwd / "file").read_text(encoding="utf-8") == "one\n"


def check_apart(first: Life, second: Life) -> None:
    """The earlier agent was gone before the later one began."""
    assert not first.alive
    assert first.last < second.began
    assert first.token < second.token


@pytest.mark.parametrize("keeper_too", [False, True])
def test_a_stopped_worker_loses_its_run_and_lets_go_of_it(cluster: Start, keeper_too: bool) -> None:
    made = cluster()
    server, _, _ = made.crew("s", "a", "b")
    run = server.submit("busy", mode="oneshot", workspace=str(made.folder("w")))["id"]
    [first] = made.living(run)
    server.seen(run, "turn.started")
    stopped = holder(made, server, run)
    if keeper_too:
        identity = read_identity(str(stopped.data / "runs" / run / "turns" / "1-1"))
        assert identity is not None
        import os

        os.kill(identity.pid, signal.SIGSTOP)
    stopped.send(signal.SIGSTOP)
    [first, second] = made.living(run, 2)
    check_apart(first, second)
    stopped.send(signal.SIGCONT)
    wait_until(lambda: stopped.log("run.lease_lost"), within=60, what="the loser to notice")
    made.enough(run)
    server.until(run, "completed")
    taken_over(server, run)
    assert printed(server, run, 2) == numbered(made.lines(run, second))
    assert len(made.lives(run)) == 2


def test_the_next_worker_of_the_same_host_adopts_the_agent(cluster: Start) -> None:
    made = cluster(OVERNIGHT_LEASE_S="30")
    server, worker, _ = made.server("s"), made.worker("a"), made.worker("b", "--backend", "echo")
    run = server.submit("busy", mode="oneshot", workspace=str(made.folder("w")))["id"]
    [first] = made.living(run)
    for number in (1, 2):
        worker.kill()
        worker.start()
        server.seen(run, "run.recovered", count=number)
    made.enough(run)
    ended = server.until(run, "completed")
    assert (ended["attempt"], len(made.lives(run))) == (1, 1)
    events = server.events(run)
    assert gap_free(events)
    assert [e["data"]["adopted"] for e in events if e["type"] == "run.recovered"] == [True, True]
    assert printed(server, run, 1) == numbered(made.lines(run, first))


@pytest.mark.parametrize("asked", ["nothing", "cancel"])
def test_a_run_that_lies_on_a_silent_host_waits_for_it(cluster: Start, asked: str) -> None:
    made = cluster()
    worker, _ = made.worker("a"), made.worker("b")
    server = made.server(
        "s", data_of=worker.root, environment={"OVERNIGHT_WORKSPACE_ROOTS": f"{made.shared}:{worker.root}"}
    )
    run = server.submit("busy", mode="oneshot", workspace=str(worker.workspace()))["id"]
    [first] = made.living(run)
    assert server.run(run)["host_id"] == worker.host
    worker.kill()
    if asked == "cancel":
        assert server.control(run, "cancel").status_code < 300
        assert server.run(run)["state"] == "cancelling"
        ended = server.until(run, "cancelled")
        assert ended["cancellation"]["survivors"] is None
        assert not first.alive
        return
    waiting = wait_until(lambda: server.run(run)["waiting_for"], within=60, what="it says what it waits for")
    assert (waiting["kind"], worker.host in waiting["detail"]) == ("workspace", True)
    assert not first.alive
    worker.start()
    [first, second] = made.living(run, 2)
    check_apart(first, second)
    made.enough(run)
    ended = server.until(run, "completed")
    assert gap_free(server.events(run))
    assert server.seen(run, "run.recovered")[0]["data"]["reason"] == "server_gone"


def test_a_worker_that_hands_over_leaves_its_agents_to_the_next(cluster: Start) -> None:
    made = cluster(OVERNIGHT_LEASE_S="30")
    server, worker = made.crew("s", "a")
    run = server.submit("busy", mode="oneshot", workspace=str(made.folder("w")))["id"]
    [agent] = made.living(run)
    server.seen(run, "turn.started")
    worker.send(signal.SIGUSR2)
    assert worker.wait() == 0
    server.seen(run, "run.handed_over")
    assert agent.alive
    worker.start()
    server.seen(run, "run.recovered")
    made.enough(run)
    assert server.until(run, "completed")["attempt"] == 1
    assert printed(server, run, 1) == numbered(made.lines(run, agent))
