"""The witness: an agent that writes down its own life, so that others can judge whether two ever lived at once.

`python witness_agent.py RECORD` as a `command` backend. The goal in its prompt holds a line `witness {…}`, an object
with `lines` (how many numbered lines it prints), `pace` (seconds after each), `child` (it leaves a process in a session
of its own), `tokens` (usage that it reports), `stubborn` (it ignores SIGTERM) and `exit` (its status).

RECORD is a file that all agents of a machine append to, one JSON line at a time and synced: `began` with the run, turn,
attempt, fencing token and process; `clash` when another agent of the same run is alive at that moment; `beat`; `ended`
with the number of lines printed. Times are of the boot clock. That another is alive is known by a lock on a file of the
run's own, which the kernel lets go when its process dies, however it dies. Standard library only.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BEAT_S = 0.25
PLAN = re.compile(r"witness (\{.*?\})")
CHILD = "import os, signal\nos.setsid()\nwhile True: signal.pause()\n"


class Witness:
    """One process: one attempt at one turn."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self.run = os.environ["OVERNIGHT_RUN_ID"]
        self.me = {
            "run": self.run,
            "turn": int(os.environ["OVERNIGHT_TURN"]),
            "attempt": int(os.environ["OVERNIGHT_ATTEMPT"]),
            "token": int(os.environ.get("OVERNIGHT_FENCE", "0")),
            "pid": os.getpid(),
        }
        self.name = f"{self.me['turn']}.{self.me['attempt']}.{os.getpid()}"
        self.beaten = 0.0

    def tell(self, what: str, *, synced: bool = True, **more: object) -> None:
        """Append one line to the record."""
        line = json.dumps({"what": what, "at": boot(), **self.me, **more}) + "\n"
        descriptor = os.open(self.record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
            if synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def alone(self) -> bool:
        """Whether no other agent of the run is alive; from here on none may be. Kept until the process ends."""
        folder = self.record.parent / "alive"
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / self.run, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def live(self, plan: dict[str, Any]) -> int:
        """Do what the plan says; the exit status."""
        alone = self.alone()
        self.tell("began", cwd=str(Path.cwd()))
        if not alone:
            self.tell("clash")
        if plan.get("stubborn"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if plan.get("child"):
            subprocess.Popen([sys.executable, "-I", "-S", "-c", CHILD], stdin=subprocess.DEVNULL)
        lines = self.work(int(plan.get("lines", 5)), float(plan.get("pace", 0.05)))
        if "tokens" in plan:
            usage = {"type": "usage.recorded", "input": int(plan["tokens"]), "output": 0}
            say(json.dumps({"__overnight__": usage}))
        self.tell("ended", lines=lines)
        return int(plan.get("exit", 0))

    def work(self, lines: int, pace: float) -> int:
        """Print the lines and grow a file, as somebody would who works."""
        for number in range(1, lines + 1):
            say(f"witness {self.name} {number}")
            until = boot() + pace
            while (left := until - boot()) > 0:
                self.beat()
                time.sleep(min(left, BEAT_S))
        with Path("witnessed.txt").open("a", encoding="utf-8") as file:
            file.write(f"{self.name}\n")
        return lines

    def beat(self) -> None:
        """Say now and then that this process is alive."""
        if boot() - self.beaten >= BEAT_S:
            self.beaten = boot()
            self.tell("beat", synced=False)


def boot() -> float:
    """Seconds since the machine booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(line: str) -> None:
    """A whole line on standard output."""
    view = memoryview(f"{line}\n".encode())
    while view:
        view = view[os.write(1, view) :]


def main() -> int:
    """Read the prompt and live."""
    prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    found = PLAN.search(prompt)
    return Witness(Path(sys.argv[1])).live(json.loads(found[1]) if found else {})


if __name__ == "__main__":
    raise SystemExit(main())
