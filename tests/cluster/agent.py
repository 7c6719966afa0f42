"""An agent that says when and where it lives: `agent.py CONTROL` as a command backend. Standard library only.

It prints `line N` fifty times a second until CONTROL/RUN.enough is there. CONTROL/RUN.TOKEN tells its process, folder
and the boot-clock second at which it began, CONTROL/RUN.TOKEN.last when it was last seen alive.
"""

import json
import os
import sys
import time
from pathlib import Path


def boot() -> float:
    """Seconds of the clock that no process can turn back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def publish(path: Path, text: str) -> None:
    """A file that is there as a whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.rename(path)


def main() -> None:
    """Live."""
    sys.stdin.read()
    run = Path(sys.argv[1]) / os.environ["OVERNIGHT_RUN_ID"]
    mine = run.with_name(f"{run.name}.{os.environ['OVERNIGHT_FENCE']}")
    publish(mine, json.dumps({"pid": os.getpid(), "cwd": str(Path.cwd()), "began": boot()}))
    last, number = mine.with_name(mine.name + ".last"), 0
    while not run.with_name(run.name + ".enough").exists():
        number += 1
        print(f"line {number}", flush=True)
        publish(last, str(boot()))
        time.sleep(0.02)
    publish(mine.with_name(mine.name + ".lines"), str(number))


main()
