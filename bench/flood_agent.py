#!/usr/bin/env python3
"""Stands in for Codex: prints messages as its prompt says, as fast as they are taken or at a rate.

The prompt holds `flood COUNT RATE`; RATE 0 is as fast as possible. With a rate each message begins with the wall
time in nanoseconds at which it was printed. Messages begin once the file `go` is in the working directory, if the
prompt says `when told`.
"""

import json
import os
import re
import sys
import time

PIECE = 512
TEXT = "The slugs are lower case now, and what is not a letter became a dash; the tests say so. "


def line(kind: str, **more: object) -> bytes:
    return json.dumps({"type": kind, **more}, separators=(",", ":")).encode() + b"\n"


def message(number: int, text: str) -> bytes:
    return line("item.completed", item={"id": f"item_{number}", "type": "agent_message", "text": text})


def write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    if "--version" in sys.argv:
        write(b"codex-cli 0.169.0\n")
        sys.exit()
    if "exec" not in sys.argv:
        sys.exit()
    prompt = sys.stdin.read()
    found = re.search(r"flood (\d+) (\d+)", prompt)
    count, rate = (int(found[1]), int(found[2])) if found else (1, 0)
    write(line("thread.started", thread_id="t1") + line("turn.started"))
    made = [] if rate else [message(number, TEXT) for number in range(count)]
    while "when told" in prompt and not os.path.exists("go"):
        time.sleep(0.001)
    for start in range(0, len(made), PIECE):
        write(b"".join(made[start : start + PIECE]))
    begun = time.monotonic()
    for number in range(count if rate else 0):
        time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        write(message(number, f"{time.time_ns()} {TEXT}"))
    usage = {"input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 1, "reasoning_output_tokens": 0}
    write(line("turn.completed", usage=usage))


main()
