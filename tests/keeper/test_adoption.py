"""Twenty servers killed at random instants: every line is recorded once, in order, and every input given once."""

import asyncio
import os
import random
import select
import sqlite3
from pathlib import Path

from tests.keeper.harness import PYTHON, Place, kill, lives

from overnight.backends.process.adoption import attach
from overnight.backends.process.framing import LineFramer, OutputTail
from overnight.backends.process.keeper_client import KeeperClient
from overnight.backends.process.keys import TurnSecrets
from overnight.keeper_protocol import read_identity

LINES = 60_000
KILLS = 20

# Lines are torn at random places; echoes of what it reads come in between. The last of them wait for a file.
AGENT = f"""
import os, random, select, time
text = b"".join(b"line %d\\n" % number for number in range({LINES}))
at, random_ = 0, random.Random(7)
while at < len(text):
    size = random_.randrange(1, 700)
    while at + size > len(text) - 5000 and not os.path.exists("enough"): time.sleep(0.01)
    os.write(1, text[at:at + size]); at += size
    time.sleep(0.0008)
    if select.select([0], [], [], 0)[0] and (data := os.read(0, 65536)): os.write(2, data)
while data := os.read(0, 65536): os.write(2, data)
"""


def serve(place: Place, token: int, inputs: int) -> None:
    """What a server does with one turn, in a process of its own: launch or adopt, record lines, send inputs."""
    asyncio.run(_serve(place, token, inputs))


async def _serve(place: Place, token: int, inputs: int) -> None:
    database = sqlite3.connect(place.data_dir / "log.db", isolation_level=None)
    keeper = await _keeper(place, token)
    (offset,) = database.execute("SELECT coalesce(max(end), 0) FROM lines").fetchone()
    framer = LineFramer(offset=offset)
    sending = asyncio.ensure_future(_send_inputs(keeper, database, inputs))
    with OutputTail(place.turns[0] / "stdout", offset=offset) as tail:
        view = keeper.view
        while True:
            while data := tail.read(view.stdout):
                _record(database, framer, data, token)
            if view.record is not None:
                break
            view = await keeper.changed(view)
    await sending
    await keeper.release()


async def _keeper(place: Place, token: int) -> KeeperClient:
    secrets = TurnSecrets(place.data_dir)
    found = await attach(place.turns[0], token, secrets, place.data_dir)
    assert isinstance(found, KeeperClient)
    return found


async def _send_inputs(keeper: KeeperClient, database: sqlite3.Connection, inputs: int) -> None:
    """Each is stored before it is sent; what was stored and perhaps not sent is sent again."""
    for number, data in database.execute("SELECT n, data FROM inputs ORDER BY n").fetchall():
        await keeper.send_stdin(number, data)
    for number in range(keeper.stdin_last + 1, inputs + 1):
        data = b"input %d\n" % number
        database.execute("INSERT OR IGNORE INTO inputs VALUES (?, ?)", (number, data))
        await keeper.send_stdin(number, data)
        await asyncio.sleep(0.002)
    await keeper.close_stdin()


def _record(database: sqlite3.Connection, framer: LineFramer, data: bytes, token: int) -> None:
    """Lines and offset in one transaction, and only while the token is ours."""
    lines = framer.feed(data)
    database.execute("BEGIN IMMEDIATE")
    (held,) = database.execute("SELECT token FROM hold").fetchone()
    assert held == token
    database.executemany("INSERT INTO lines VALUES (?, ?)", [(line.end, line.data) for line in lines])
    database.execute("COMMIT")


def test_no_line_is_lost_or_doubled_over_twenty_kills(place: Place, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE lines (end INTEGER PRIMARY KEY, data BLOB)")
    database.execute("CREATE TABLE inputs (n INTEGER PRIMARY KEY, data BLOB)")
    database.execute("CREATE TABLE hold (token INTEGER)")
    database.execute("INSERT INTO hold VALUES (1)")
    asyncio.run(_launch(place))
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    inputs = 400
    for token in range(2, KILLS + 3):
        if token == KILLS + 2:  # the agent outlives all kills, or this would prove nothing
            (place.turns[0] / "enough").touch()
        database.execute("UPDATE hold SET token = ?", (token,))
        pid = os.fork()
        if pid == 0:
            _run(place, token, inputs)
        if token <= KILLS + 1:
            _kill_within(pid, chance.uniform(0.005, 0.08))
        else:
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0, f"seed {seed}"
    recorded = [data for (data,) in database.execute("SELECT data FROM lines ORDER BY end")]
    assert recorded == [b"line %d\n" % number for number in range(LINES)], f"seed {seed}"
    given = (tmp_path / "turn-0" / "stderr").read_bytes()
    assert given == b"".join(b"input %d\n" % number for number in range(1, inputs + 1)), f"seed {seed}"
    identity = read_identity(str(tmp_path / "turn-0"))
    assert identity is not None
    assert not lives(identity.agent_pid)


async def _launch(place: Place) -> None:
    keeper = await place.launch(*PYTHON, AGENT)
    await keeper.close()


def _run(place: Place, token: int, inputs: int) -> None:
    """In the child: never return into the test."""
    code = 1
    try:
        serve(place, token, inputs)
        code = 0
    finally:
        os._exit(code)


def _kill_within(pid: int, seconds: float) -> None:
    handle = os.pidfd_open(pid)
    select.select([handle], [], [], seconds)
    os.close(handle)
    kill(pid)
    os.waitpid(pid, 0)
