"""Stands in for an ACP agent that asks leave again and again: `asking_agent.py COUNT`.

Each answer's wall time in nanoseconds becomes a line of the file `answers` in the working directory, before it asks
anew. Standard library only.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

OPTIONS = [{"optionId": kind, "name": kind, "kind": kind} for kind in ("allow_once", "reject_once")]


def send(**message: Any) -> None:
    os.write(1, json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def ask(session: str, number: int) -> None:
    call = {
        "toolCallId": f"c{number}",
        "title": "make",
        "kind": "execute",
        "rawInput": {"command": f"make {number}"},
    }
    params = {"sessionId": session, "toolCall": call, "options": OPTIONS}
    send(id=number, method="session/request_permission", params=params)


def main() -> None:
    count, cwd, asked, prompt = int(sys.argv[1]), ".", 0, None
    for line in sys.stdin:
        now, message = time.time_ns(), json.loads(line)
        match message.get("method"):
            case "initialize":
                send(id=message["id"], result={"protocolVersion": 1, "agentCapabilities": {}})
            case "session/new":
                cwd = message["params"]["cwd"]
                send(id=message["id"], result={"sessionId": "s"})
            case "session/prompt":
                prompt, asked = message["id"], 1
                ask("s", asked)
            case None:
                with Path(cwd, "answers").open("a", encoding="ascii") as file:
                    file.write(f"{now}\n")
                if asked == count:
                    send(id=prompt, result={"stopReason": "end_turn"})
                else:
                    asked += 1
                    ask("s", asked)
            case _:
                send(
                    id=message["id"], error={"code": -32601, "message": "no such method"}
                ) if "id" in message else None


main()
