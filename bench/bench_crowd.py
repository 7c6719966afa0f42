"""Two hundred agents at once: how long, and what they weigh."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.harness import Server

from bench import stage
from bench.asking import Asker
from bench.figure import Figure
from overnight.testing.signals import wait_until

RUNS, WORKS_S, CLIENTS = 200, 2, 20
AGENT = ["/bin/sh", "-c", f"echo begun; sleep {WORKS_S}; echo ended"]


def figures(*, long: bool) -> Iterator[Figure]:
    del long
    config = f'[backends.two]\nkind = "command"\ncommand = ["{AGENT[0]}", "{AGENT[1]}", "{AGENT[2]}"]\n'
    least = _bare()
    with stage.server(config=config, environment={"OVERNIGHT_SLOTS": str(RUNS)}) as server:
        assert server.process is not None
        server.until(server.submit("two", mode="oneshot")["id"], "completed")
        seconds = _carried_out(server)
        # Weighed in a round of its own, which takes no time from the one that counts.
        watch = Watch(server)
        _carried_out(server)
        watch.stop()
    yield Figure(
        name=f"{RUNS} runs of an agent that takes {WORKS_S} s",
        value=seconds,
        unit="s",
        limit=least,
        limit_name="the same programs alone",
        aim="≤ 3.5",
    )
    yield Figure(name="memory of the server meanwhile, at most", value=watch.server, unit="MiB", aim="≤ 160")
    yield Figure(
        name=f"memory of one of {watch.keepers} keepers (PSS)", value=watch.keeper, unit="MiB", aim="≤ 1.5"
    )


def _carried_out(server: Server) -> float:
    """From the first submission, to the end of the last run."""
    body = {"goal": "work", "backend": "two", "mode": "oneshot"}

    def submit(number: int) -> None:
        client = Asker(server.port, stage.headers())
        for _ in range(number):
            client.post("/api/v1/runs", body)
        client.close()

    goal = _completed(server) + RUNS
    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(submit, [RUNS // CLIENTS] * CLIENTS))
    time.sleep(WORKS_S)  # the last one cannot be over before; asking would only take the server's time
    wait_until(lambda: _completed(server) >= goal, within=60, every=0.02, what=f"{RUNS} runs are completed")
    return time.perf_counter() - begun


def _completed(server: Server) -> int:
    return int(server.http.get("/api/v1/stats").json()["runs"]["completed"])


def _bare() -> float:
    begun = time.perf_counter()
    agents = [subprocess.Popen(AGENT, stdout=subprocess.DEVNULL) for _ in range(RUNS)]
    for agent in agents:
        agent.wait()
    return time.perf_counter() - begun


class Watch:
    """Weighs the server, and its keepers while there are most of them."""

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        self.server = self.keeper = 0.0
        self.keepers = 0
        self._pid = server.process.pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Weigh no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.25):
            self.server = max(self.server, stage.memory(self._pid))
            found = _keepers()
            if len(found) > self.keepers:
                weights = [weight for pid in found[:: max(1, len(found) // 20)] if (weight := _pss(pid))]
                self.keepers, self.keeper = len(found), statistics.fmean(weights or [0.0])


def _keepers() -> list[int]:
    """Of any server on this machine: a benchmark wants it for itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text(encoding="utf-8") == "ovn-keeper\n":
                    found.append(int(entry.name))
    return found


def _pss(pid: int) -> float:
    with contextlib.suppress(OSError):
        return stage.memory(pid, "Pss")
    return 0.0
