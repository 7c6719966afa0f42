"""The version after this one, as a program: `python next_version.py FAULT COMMAND…`. It has one more migration.

FAULT says what goes wrong with it: `none`; `same` (no migration either); `migration`, or `late` (only on the real
database); `exit` and `hang` (at the start of the server); `unready` (it serves and never takes work); `stuck` (the
same, and its migration cannot be taken back); `kill:STEP:STATE:WHO` (kill -9 of the upgrade's processes there).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from overnight import version

FAULT = sys.argv.pop(1)
version.VERSION = "9.0.0"

FRONT = os.getpid()
BEFORE = ""
"""The newest schema without that migration."""

# What is ours is imported only where it is needed: most of what these tests cost is that.


def with_one_more_migration() -> None:
    from overnight.stores.sql import migrate, migrations

    global BEFORE  # noqa: PLW0603 -- read by the migration
    BEFORE = migrate.HEAD
    known = migrations.alembic_config

    def config(further: tuple[Path, ...]) -> Any:
        return known((*further, Path(__file__).parent / "versions"))

    migrations.alembic_config = config
    migrate.HEAD = "9001"  # type: ignore[misc]


def killing(step: str, state: str, who: str) -> None:
    from overnight.compose.upgrade import guard
    from overnight.compose.upgrade.telling import Tell, Told

    logged = guard._logged

    def deadly(plan: Any, tell: Tell) -> Tell:
        told_before = logged(plan, tell)

        def told(word: Told) -> None:
            told_before(word)
            if (word.step, word.state) == (step, state) and os.getpid() != FRONT:
                if who in {"front", "both"}:
                    os.kill(FRONT, signal.SIGKILL)
                if who in {"work", "both"}:
                    os.kill(os.getpid(), signal.SIGKILL)

        return told

    guard._logged = deadly


def never_ready() -> None:
    from overnight.engine.service import RunService

    RunService.draining = property(lambda self: True)  # type: ignore[assignment, method-assign]


def main() -> None:
    if "up" in sys.argv and FAULT == "exit":
        sys.exit("this version does not start")
    if "up" in sys.argv and FAULT == "hang":
        threading.Event().wait()
    if "--version" not in sys.argv and not FAULT.startswith("same"):
        with_one_more_migration()
    if "kill:" in FAULT:
        killing(*FAULT.split("kill:")[1].split(":"))
    if "up" in sys.argv and FAULT in {"unready", "stuck"}:
        never_ready()
    from overnight.cli import main as command

    command()


if __name__ == "__main__":
    main()
