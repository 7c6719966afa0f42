"""What the commands that stay have loaded: a process that runs for days carries nothing that it never uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = "acp alembic hypothesis overnight.testing pydantic_settings pygments pytest rich sqlalchemy.orm"
SERVES = "fastapi overnight.server overnight.wire.v1.runs prometheus_client starlette uvicorn watchfiles"
CALLS = "httpcore2 httpx2 overnight.client"
READS = "pydantic typer"
ASKS = "overnight.client.client overnight.ports.model"
STORES = "overnight.engine.maintenance overnight.stores.sql.schema psycopg pysqlite3 redis sqlalchemy sqlite3"


@pytest.mark.parametrize(
    "command, programs, unwanted",
    [
        (
            "overnight.cli.working",
            "compose.worker stores.sql.postgres stores.sql.announcer",
            f"{NEVER} {READS} {SERVES} {CALLS} pysqlite3 redis sqlite3",
        ),
        (
            "overnight.cli.working",
            "compose.remote",
            f"{NEVER} {READS} {SERVES} {STORES} {ASKS} anyio email httpcore2 httpx2",
        ),
        (
            "overnight.cli.app, overnight.cli.up",
            "compose.foreground stores.sql.sqlite",
            f"{NEVER} httpcore2 httpx2 psycopg redis",
        ),
    ],
    ids=["worker", "worker --server", "up"],
)
def test_a_command_that_stays_loads_nothing_that_it_never_uses(
    command: str, programs: str, unwanted: str
) -> None:
    """What is loaded only once a database is opened is named here."""
    script = (
        "import gc, sys\n"
        "from importlib import import_module\n"
        f"import {command}\n"
        "from overnight.cli.staying import staying\n"
        "with staying():\n"
        f"    for name in {programs.split()!r}: import_module('overnight.' + name)\n"
        "    assert not gc.isenabled()\n"
        "assert gc.isenabled()\n"
        f"print(*[name for name in {unwanted.split()!r} if name in sys.modules])\n"
        "import rich.console  # whoever wants it afterwards has it\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
