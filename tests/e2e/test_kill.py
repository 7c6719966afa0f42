"""Promise 6: kill -9 of the server at any instant loses nothing and repeats nothing."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Start
from tests.e2e.harness import Server, Subscriber, gap_free, kill_quietly, let_pass, written

from overnight.testing.signals import wait_until


def numbers(text: str) -> list[int]:
    """The numbers of the lines `line N`."""
    return [int(line.removeprefix("line ")) for line in text.splitlines() if line.startswith("line ")]


def recorded_once(events: Sequence[Mapping[str, Any]], lines: int) -> bool:
    """Whether every line is there once; above the rate for display, as bytes that are counted and stay in the file."""
    shown = [e["data"] for e in events if e["type"] == "output.recorded" and e["data"]["stream"] == "stdout"]
    found = numbers("".join(data["text"] for data in shown))
    whole = "".join(f"line {n}\n" for n in range(1, lines + 1)).encode()
    counted = sum(len(data["text"].encode()) + data["truncated_bytes"] for data in shown)
    assert found == sorted(set(found)), "a line was repeated"
    assert counted == len(whole), f"{len(whole) - counted} bytes are nowhere"
    return True


@pytest.mark.timeout(600)
def test_twenty_kills_in_one_run_lose_and_repeat_nothing(serve: Start) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    script = [["read_prompt"], ["pid", "agent.pid"], {"lines_until": {"path": "enough", "per_second": 200}}]
    server = serve({"steady": script})
    run = server.submit("steady", mode="oneshot", workspace=str(server.workspace()))
    subscriber = Subscriber(server, f"/api/v1/runs/{run['id']}/stream")
    (pid,) = written(server.workspace(), "agent.pid")
    for _ in range(20):
        before = server.events(run["id"])
        let_pass(chance.uniform(0, 0.15))  # the instant of the kill is the point of this test
        server.kill()
        assert Path(f"/proc/{pid}").exists(), "the agent died with its server"
        server.start()
        assert server.events(run["id"])[: len(before)] == before, "history has changed"
    (server.workspace() / "enough").touch()
    ended = server.until(run["id"], "completed", within=120)
    events = server.events(run["id"])
    lines = int((server.workspace() / "enough.count").read_text(encoding="utf-8"))
    assert recorded_once(events, lines)
    assert gap_free(events)
    assert ended["attempt"] == 1
    adopted = [event["data"]["adopted"] for event in events if event["type"] == "run.recovered"]
    assert adopted
    assert all(adopted)
    assert subscriber.events() == events


def test_with_keepers_and_agents_dead_the_turn_is_done_again(serve: Start) -> None:
    script = [
        [["read_prompt"], ["print", "first try"], ["pid", "agent.pid"], ["forever"]],
        [["read_prompt"], ["print", "second try"]],
    ]
    server = serve({"mortal": script})
    run = server.submit("mortal", mode="oneshot", workspace=str(server.workspace()))
    wait_until((server.workspace() / "agent.pid").exists)
    server.seen(run["id"], "output.recorded")
    server.kill()
    for pid in server.descendants():
        kill_quietly(pid)
    server.start()
    ended = server.until(run["id"], "completed")
    assert ended["attempt"] == 2
    events = server.events(run["id"])
    assert gap_free(events)
    assert [e["type"] for e in events if e["type"] in {"turn.abandoned", "run.recovered"}] == [
        "turn.abandoned",
        "run.recovered",
    ]
    assert [e["data"]["adopted"] for e in events if e["type"] == "run.recovered"] == [False]
    assert server.printed(run["id"]) == "first try\nsecond try\n"


def test_a_turn_that_always_dies_ends_the_run_with_attempts_exhausted(serve: Start) -> None:
    server = serve({"mortal": [["read_prompt"], ["pid", "agent.pid"], ["forever"]]})
    run = server.submit("mortal", mode="oneshot", workspace=str(server.workspace()), limits={"attempts": 2})
    for _ in range(2):
        wait_until((server.workspace() / "agent.pid").exists)
        server.until(run["id"], "running")
        server.kill()
        for pid in server.descendants():
            kill_quietly(pid)
        (server.workspace() / "agent.pid").unlink()
        server.start()
    ended = server.until(run["id"], "failed")
    assert ended["error"]["code"] == "attempts_exhausted"


def test_a_server_stopped_past_its_lease_goes_on_under_a_new_token(serve: Start) -> None:
    server = serve(
        {"steady": [["read_prompt"], {"lines": {"count": 800, "per_second": 100, "burst": 2}}]},
        environment={"OVERNIGHT_LEASE_S": "4", "OVERNIGHT_GRACE_S": "1"},
    )
    run = server.submit("steady", mode="oneshot", workspace=str(server.workspace()))
    subscriber = Subscriber(server, f"/api/v1/runs/{run['id']}/stream")
    server.seen(run["id"], "output.recorded", 2)
    server.send(signal.SIGSTOP)
    let_pass(5.5)  # past the lease, by the machine's own clock: that is what is tested
    server.send(signal.SIGCONT)
    server.until(run["id"], "completed")
    events = server.events(run["id"])
    assert numbers(server.printed(run["id"])) == list(range(1, 801))
    assert gap_free(events)
    assert subscriber.events() == events
    adopted = [e["data"]["adopted"] for e in events if e["type"] == "run.recovered"]
    assert adopted
    assert all(adopted)


def test_a_second_server_on_the_same_data_says_whose_it_is(serve: Start) -> None:
    server = serve({})
    second = Server(root=server.root)
    second.start(wait=False)
    assert second.wait() == 3
    assert server.process is not None
    assert str(server.process.pid) in second.words()
    assert server.ready()
