"""A stand-in for an ACP agent: speaks the protocol over its standard input and output, and does what a script says.

`python acp_agent.py SCRIPT [--log FILE]`, SCRIPT a path or the JSON itself: an object with `turns`, a list of lists of
moves, one for each prompt of a session (the last one repeated), and, where they shall differ, `agent` (what
`initialize` answers), `lingers` (it stays when its input ends), `mute` (it answers nothing), `session` (members of the
answer to `session/new`) and `sessions` (a file that keeps how many prompts each session has had, so that one can be
loaded by another process). A move is `[name, arguments…]`; the moves are the methods of `Agent` that say `move`.
Everything that is read is appended to the log. Standard library only.
"""

import argparse
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

Message = dict[str, Any]
DEFAULT = {
    "protocolVersion": 1,
    "agentCapabilities": {"loadSession": True},
    "agentInfo": {"name": "stand-in"},
}


class Cancelled(Exception):
    """The client has cancelled the turn."""


class Refused(Exception):
    """The prompt is answered with an error."""


class Agent:
    """One process: at most one session, any number of prompts."""

    def __init__(self, script: Message, log: str | None) -> None:
        self.script = script
        self.log = Path(log) if log else None
        self.session = f"session-{os.getpid()}"
        self.asked = 0
        self.replies: dict[int, Message] = {}
        self.prompt: Any = None
        self.text = ""
        self.deaf = False
        self.cancelled = False
        self.result: Message = {"stopReason": "end_turn"}
        self.unread = b""

    def serve(self) -> None:
        """Until standard input ends."""
        while self.pump(None):
            if self.prompt is not None:
                self.turn()
        while self.script.get("lingers"):
            time.sleep(60)

    def turn(self) -> None:
        """Play the moves of this prompt, then answer it."""
        id, self.prompt = self.prompt, None
        try:
            for name, *arguments in self.moves():
                getattr(self, f"move_{name}")(*arguments)
            self.send({"id": id, "result": self.result})
        except Cancelled:
            self.send({"id": id, "result": {"stopReason": "cancelled"}})
        except Refused as refused:
            self.send({"id": id, "error": refused.args[0]})

    def moves(self) -> list[Any]:
        """Those of the session's present prompt."""
        turns = self.script["turns"]
        kept = Path(self.script["sessions"]) if "sessions" in self.script else None
        counts = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
        number = counts.get(self.session, 0)
        if kept is not None:
            kept.write_text(json.dumps({**counts, self.session: number + 1}))
        return list(turns[min(number, len(turns) - 1)])

    # moves

    def move_say(self, text: str) -> None:
        """A piece of a message; `$PROMPT` is the prompt, `$SESSION` the session."""
        self.say(text.replace("$PROMPT", self.text).replace("$SESSION", self.session))

    def move_think(self, text: str) -> None:
        """A piece of a thought."""
        self.update({"sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": text}})

    def move_update(self, update: Message) -> None:
        """Any update."""
        self.update(update)

    def move_notify(self, method: str, params: Message) -> None:
        """Any notification."""
        self.send({"method": method, "params": params})

    def move_request(self, method: str, params: Message) -> None:
        """Any request; its answer is said as JSON."""
        self.say(json.dumps(self.call(method, {"sessionId": self.session, **params}), sort_keys=True))

    def move_permission(self, call: Message, *kinds: str) -> None:
        """Ask leave for a tool call; the option that was chosen is said."""
        options = [
            {"optionId": kind, "name": kind, "kind": kind} for kind in kinds or ("allow_once", "reject_once")
        ]
        answer = self.call(
            "session/request_permission", {"sessionId": self.session, "toolCall": call, "options": options}
        )
        outcome = answer.get("result", {}).get("outcome", {})
        self.say(f"[{outcome.get('optionId') or outcome.get('outcome')}]")

    def move_terminal(self, params: Message) -> None:
        """Run a command by the client; what came of it is said."""
        made = self.call("terminal/create", {"sessionId": self.session, **params})
        if "error" in made:
            self.say(f"[terminal {made['error']['message']}]")
            return
        named = {"sessionId": self.session, "terminalId": made["result"]["terminalId"]}
        ended = self.call("terminal/wait_for_exit", named)["result"]
        told = self.call("terminal/output", named)["result"]
        self.call("terminal/release", named)
        self.say(json.dumps([told["output"], told["truncated"], ended["exitCode"], ended["signal"]]))

    def move_ask_and_go_on(self, method: str, params: Message) -> None:
        """Any request, whose answer is not waited for."""
        self.asked += 1
        self.send({"id": self.asked, "method": method, "params": {"sessionId": self.session, **params}})

    def move_raw(self, text: str) -> None:
        """A line of whatever it is."""
        self.write(text.encode() + b"\n")

    def move_long(
        self, size: int, head: str = '{"jsonrpc":"2.0","id":77,"method":"fs/write_text_file","params":"'
    ) -> None:
        """A line of that many bytes."""
        self.write(head.encode() + b"x" * size + b'"}\n')

    def move_wait_for(self, path: str) -> None:
        """Wait until a file exists, still listening."""
        while not Path(path).exists():
            self.pump(0.01)
            self.heed()

    def move_publish(self, path: str, text: str = "") -> None:
        """Make a file."""
        part = Path(path + ".part")
        part.write_text(text or str(os.getpid()))
        part.rename(path)

    def move_hang(self) -> None:
        """Do nothing until cancelled."""
        while self.pump(None):
            self.heed()
        raise SystemExit(0)

    def move_ignore(self) -> None:
        """Neither be cancelled nor terminated from now on."""
        self.deaf = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def move_result(self, result: Message) -> None:
        """What the prompt will be answered with."""
        self.result = result

    def move_refuse(self, code: int, message: str, data: Any = None) -> None:
        """Answer the prompt with an error."""
        raise Refused({"code": code, "message": message, "data": data})

    def move_exit(self, status: int = 0) -> None:
        """Leave at once."""
        os._exit(status)

    # the protocol

    def say(self, text: str) -> None:
        """A piece of a message."""
        self.update({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}})

    def update(self, update: Message) -> None:
        """Tell something about the session."""
        self.send({"method": "session/update", "params": {"sessionId": self.session, "update": update}})

    def call(self, method: str, params: Message) -> Message:
        """Ask the client, and wait for the answer."""
        self.asked += 1
        id = self.asked
        self.send({"id": id, "method": method, "params": params})
        while id not in self.replies:
            if not self.pump(None):
                raise SystemExit(0)
            if id not in self.replies:
                self.heed()
        return self.replies.pop(id)

    def heed(self) -> None:
        """End the turn when that is wished."""
        if self.cancelled and not self.deaf:
            self.cancelled = False
            raise Cancelled

    def pump(self, within: float | None) -> bool:
        """Take in one message, waiting for it at most so long; False at the end of input."""
        while b"\n" not in self.unread:
            if not select.select([0], [], [], within)[0]:
                return True
            data = os.read(0, 1 << 16)
            if not data:
                return False
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        if self.log is not None:
            with self.log.open("ab") as file:
                file.write(line + b"\n")
        self.take(json.loads(line))
        return True

    def take(self, message: Message) -> None:
        """One message of the client."""
        if self.script.get("mute"):
            return
        if "method" not in message:
            self.replies[message["id"]] = message
            return
        params = message.get("params", {})
        match message["method"]:
            case "initialize":
                self.send({"id": message["id"], "result": DEFAULT | self.script.get("agent", {})})
            case "session/new":
                given = self.script.get("session", {})
                self.send({"id": message["id"], "result": {"sessionId": self.session, **given}})
            case "session/load":
                self.load(message["id"], params["sessionId"])
            case "session/prompt":
                self.prompt, self.text = message["id"], "".join(part["text"] for part in params["prompt"])
            case "session/cancel":
                self.cancelled = True
            case "session/set_mode" | "session/set_model" | "session/set_config_option" | "authenticate":
                self.send({"id": message["id"], "result": {}})
            case other:
                self.send({"id": message["id"], "error": {"code": -32601, "message": f"no method {other}"}})

    def load(self, id: Any, session: str) -> None:
        """Go on with a session of an earlier process, and tell what was said in it."""
        kept = Path(self.script.get("sessions", "/nonexistent"))
        if not kept.exists() or session not in json.loads(kept.read_text()):
            self.send({"id": id, "error": {"code": -32602, "message": f"no session {session}"}})
            return
        self.session = session
        self.say("what was said before")
        self.send({"id": id, "result": {}})

    def send(self, message: Message) -> None:
        """One message to the client."""
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Write everything, however often the pipe takes only a part."""
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


def main() -> None:
    """Load the script and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script")
    parser.add_argument("--log")
    chosen = parser.parse_args()
    inline = chosen.script.lstrip().startswith("{")
    text = chosen.script if inline else Path(chosen.script).read_text(encoding="utf-8")
    Agent(json.loads(text), chosen.log).serve()


if __name__ == "__main__":
    main()
