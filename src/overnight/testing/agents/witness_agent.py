"""The witness: an agent that writes down its own life, so that others can judge whether two ever lived at once.

`python witness_agent.py RECORD` as a `command` backend, with `--acp` as an `acp` one. The last `witness {…}` of its
prompt is an object with `job` (what it is working on), `lines` (how many numbered lines it prints), `pace` (seconds
after each), `asks` (how often it asks leave on the way, by ACP), `child` (it leaves a process in a session of its own),
`tokens` (usage that it reports), `stubborn` (it ignores SIGTERM) and `exit` (its status).

RECORD is a file that all agents of a machine append to, one JSON line at a time and synced: `began` with the run, turn,
attempt, fencing token and process; `clash` when another agent of the same run is alive at that moment; `beat`; `asked`
and `told` with the tool call and what it was told; `ended` with the number of lines printed. Times are of the boot
clock. That another is alive is known by a lock on a file of the run's own, which the kernel lets go when its process
dies, however it dies. Standard library only.
"""

import fcntl
import json
import os
import re
import select
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

    def __init__(self, record: Path, talk: "Talk | None" = None) -> None:
        self.record = record
        self.talk = talk
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
        self.tell("began", cwd=str(Path.cwd()), job=str(plan.get("job", "")))
        if not alone:
            self.tell("clash")
        if plan.get("stubborn"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if plan.get("child"):
            subprocess.Popen([sys.executable, "-I", "-S", "-c", CHILD], stdin=subprocess.DEVNULL)
        lines = self.work(int(plan.get("lines", 5)), float(plan.get("pace", 0.05)), int(plan.get("asks", 0)))
        if "tokens" in plan:
            usage = {"type": "usage.recorded", "input": int(plan["tokens"]), "output": 0}
            say(json.dumps({"__overnight__": usage}))
        self.tell("ended", lines=lines)
        return int(plan.get("exit", 0))

    def work(self, lines: int, pace: float, asks: int) -> int:
        """Print the lines and grow a file, as somebody would who works; ask leave after the first lines."""
        for number in range(1, lines + 1):
            line = f"witness {self.name} {number}"
            if self.talk is None:
                say(line)
            else:
                self.talk.update(f"{line}\n")
            if self.talk is not None and number <= asks:
                self.talk.ask(self, number)
            until = boot() + pace
            while (left := until - boot()) > 0:
                self.wait(min(left, BEAT_S))
        with Path("witnessed.txt").open("a", encoding="utf-8") as file:
            file.write(f"{self.name}\n")
        return lines

    def wait(self, seconds: float) -> None:
        """Live on for a moment, and listen where there is somebody to listen to."""
        self.beat()
        if self.talk is None:
            time.sleep(seconds)
        else:
            self.talk.listen(self, seconds)

    def beat(self) -> None:
        """Say now and then that this process is alive."""
        if boot() - self.beaten >= BEAT_S:
            self.beaten = boot()
            self.tell("beat", synced=False)


class Talk:
    """The same by the Agent Client Protocol: a prompt, lines as pieces of a message, and questions on the way."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self.unread = b""
        self.items: dict[int, str] = {}
        """What was asked, by the number of the request."""
        self.answered: set[int] = set()

    def serve(self) -> int:
        """Until standard input ends."""
        while (message := self.read(None)) is not None:
            match message.get("method"):
                case "initialize":
                    self.answer(message, {"protocolVersion": 1, "agentCapabilities": {}})
                case "session/new":
                    self.answer(message, {"sessionId": "witness"})
                case "session/prompt":
                    self.prompted(message)
                case "session/cancel" | None:
                    pass
                case _:
                    self.answer(message, {})
        return 0

    def prompted(self, message: dict[str, Any]) -> None:
        """Live, and say that the turn is over."""
        text = "".join(part.get("text", "") for part in message["params"]["prompt"])
        try:
            Witness(self.record, self).live(plan_in(text))
        except Cancelled:
            self.answer(message, {"stopReason": "cancelled"})
        else:
            self.answer(message, {"stopReason": "end_turn"})

    def ask(self, witness: Witness, number: int) -> None:
        """Ask leave for the same action in every attempt, and wait for the answer."""
        item, id = f"{witness.name}-{number}", len(self.items) + 1
        call = {"toolCallId": item, "title": f"work {number}", "kind": "execute",
                "rawInput": {"command": f"work {number}"}}  # fmt: skip
        options = [{"optionId": kind, "name": kind, "kind": kind} for kind in ("allow_once", "reject_once")]
        self.items[id] = item
        witness.tell("asked", item=item)
        self.send({"id": id, "method": "session/request_permission",
                   "params": {"sessionId": "witness", "toolCall": call, "options": options}})  # fmt: skip
        while id not in self.answered:
            witness.beat()
            self.listen(witness, BEAT_S)

    def listen(self, witness: Witness, seconds: float) -> None:
        """Take in what comes meanwhile, at most one message. Raises Cancelled."""
        message = self.read(seconds)
        if message is None or message.get("method") == "session/cancel":
            raise Cancelled
        if "id" in message and "method" not in message:
            outcome = message.get("result", {}).get("outcome", {})
            said = str(outcome.get("optionId") or outcome.get("outcome"))
            witness.tell("told", item=self.items.get(message["id"], "nothing"), said=said)
            self.answered.add(message["id"])
            if said == "cancelled":
                raise Cancelled

    def read(self, within: float | None) -> dict[str, Any] | None:
        """The next message, {} when none came in time, None at the end of input."""
        while b"\n" not in self.unread:
            if not select.select([0], [], [], within)[0]:
                return {}
            data = os.read(0, 1 << 16)
            if not data:
                return None
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return dict(json.loads(line))

    def update(self, text: str) -> None:
        """A piece of a message."""
        content = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
        self.send({"method": "session/update", "params": {"sessionId": "witness", "update": content}})

    def answer(self, message: dict[str, Any], result: object) -> None:
        """Answer a request of the client."""
        self.send({"id": message["id"], "result": result})

    def send(self, message: dict[str, Any]) -> None:
        """One message to the client."""
        say(json.dumps({"jsonrpc": "2.0", **message}))


class Cancelled(Exception):
    """The turn is to end."""


def plan_in(prompt: str) -> dict[str, Any]:
    """The last plan of a prompt: in a conversation earlier ones stand before it."""
    found = PLAN.findall(prompt)
    return dict(json.loads(found[-1])) if found else {}


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
    record = Path(sys.argv[1])
    if "--acp" in sys.argv[2:]:
        return Talk(record).serve()
    prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    return Witness(record).live(plan_in(prompt))


if __name__ == "__main__":
    raise SystemExit(main())
