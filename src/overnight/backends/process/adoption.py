"""Take up a turn that another server left: its living keeper, or what is written about its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overnight.backends.process.channel import Channel, Refused, connect, peer_pid
from overnight.backends.process.keeper_client import KeeperClient
from overnight.backends.process.keys import TurnSecrets
from overnight.backends.process.sweep import sweep
from overnight.errors import KeeperGone, LeaseLost
from overnight.keeper_protocol import (
    EXIT_FILE,
    KEEPER_FILE,
    LOCK_FILE,
    VERSIONS,
    ExitRecord,
    Identity,
    is_same_process,
    pid_namespace,
    read_identity,
    read_record,
    read_spawner,
    to_json,
)

WELCOME_WITHIN_S = 30.0
"""A keeper answers at once, but a machine that swaps may not; being late costs the agent its life."""
LAUNCH_WITHIN_S = 40.0
SPAWNER_WITHIN_S = 3.0
"""How long a living spawner is given to sweep and to write down the end of a keeper that was killed."""
DEAF_WITHIN_S = 15.0
"""How long a keeper that cannot be reached is given for its own ladder, once it was told to end."""
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """No keeper lives. Whatever the turn had left has been swept away."""

    record: ExitRecord | None
    """What was written about the end; None when keeper and spawner died before they could."""
    survivors: int | None
    """Processes that could not be ended; None when nobody knows what to look for."""


async def attach(turn_folder: Path, token: int, secrets: TurnSecrets, data_dir: Path) -> KeeperClient | Dead:
    """Take over the keeper of a turn under `token`; an older holder is refused from then on.

    Raises LeaseLost when a higher token has taken over already, Refused when the keeper speaks no version of ours.
    """
    identity = await _identity(turn_folder)
    if identity is None:
        return Dead(record=None, survivors=0)
    _let_go_on(identity)
    try:
        return await _say_hello(identity, token, secrets)
    except Refused as refused:
        if refused.reason == "stale_token":
            raise LeaseLost(refused.detail) from refused
        raise
    except (KeeperGone, OSError):
        return await _bury(turn_folder, identity, data_dir)


def keeper_lives(turn_folder: Path) -> bool:
    """Whether a keeper holds the turn's lock; true across pid namespaces, false the moment it is killed."""
    try:
        handle = os.open(turn_folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def rouse(turn_folder: Path) -> bool:
    """Whether an agent of this turn, or a terminal of its, may live still. A keeper that stands still is let go on, so
    that it can end what it owns: its deadline has passed. Blocks on the disk.
    """
    folders = (turn_folder, *turn_folder.glob("terminals/*"))
    living = [folder for folder in folders if _roused(folder)]  # each is let go on, not only the first
    return bool(living)


def _roused(folder: Path) -> bool:
    if not keeper_lives(folder):
        return False
    identity, record = read_identity(str(folder)), read_record(str(folder))
    if identity is not None:
        _let_go_on(identity)
    return record is None or bool(record.survivors)


async def _identity(turn_folder: Path) -> Identity | None:
    """Who was launched here; None when nobody was, and nobody ever will be.

    A launch may be on its way while its server is dead already: a keeper that holds the lock is waited for, and one
    that has not come so far finds the folder closed.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + LAUNCH_WITHIN_S
    while (identity := read_identity(str(turn_folder))) is None and not _close_folder(turn_folder):
        if loop.time() >= until:
            raise KeeperGone(f"a keeper holds {turn_folder} and does not say who it is")
        await asyncio.sleep(_LOOK_EVERY_S)
    return identity or read_identity(str(turn_folder))


def _close_folder(turn_folder: Path) -> bool:
    """Leave a record under the lock, unless there is one or a keeper has been here. False while a keeper holds it."""
    handle = os.open(turn_folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not any(os.path.lexists(turn_folder / name) for name in (KEEPER_FILE, EXIT_FILE)):
            (turn_folder / EXIT_FILE).write_bytes(json.dumps(to_json(_never_started())).encode())
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _never_started() -> ExitRecord:
    now = time.time()
    return ExitRecord(
        "never_started", None, None, started_at=now, ended_at=now, stdout_bytes=0, stderr_bytes=0
    )


def _let_go_on(identity: Identity) -> None:
    """An agent may have stopped its keeper."""
    if is_same_process(identity.pid, identity.starttime, identity.boot_id, identity.pid_ns):
        with contextlib.suppress(OSError):
            os.kill(identity.pid, signal.SIGCONT)


async def _say_hello(identity: Identity, token: int, secrets: TurnSecrets) -> KeeperClient:
    sock = await connect(identity.socket)
    if identity.pid_ns == pid_namespace() and peer_pid(sock) not in (None, identity.pid):
        sock.close()
        raise KeeperGone(f"{identity.socket} belongs to another process")
    channel = await Channel.over(sock)
    hello = {
        "type": "hello",
        "versions": list(VERSIONS),
        "secret": secrets.of(identity.nonce),
        "token": token,
    }
    try:
        channel.write(hello)
        return KeeperClient.welcomed(channel, await channel.first(WELCOME_WITHIN_S), token)
    except BaseException:
        channel.close()
        raise


async def _bury(turn_folder: Path, identity: Identity, data_dir: Path) -> Dead:
    """Nobody answers: make sure that nobody lives, and find out how it ended."""
    if keeper_lives(turn_folder):
        await _end_deaf_keeper(turn_folder, identity)
    holder = read_spawner(str(data_dir))
    if holder is not None and is_same_process(*holder):
        await _until(lambda: read_record(str(turn_folder)) is not None, SPAWNER_WITHIN_S)
    record = read_record(str(turn_folder))
    left = await asyncio.to_thread(sweep, identity)
    with contextlib.suppress(OSError):
        os.unlink(identity.socket)
    return Dead(record=record, survivors=left)


async def _end_deaf_keeper(turn_folder: Path, identity: Identity) -> None:
    """It lives, but its socket is gone or it is stuck: nobody can ever command it. Tell it to end, then make it."""
    if not is_same_process(identity.pid, identity.starttime, identity.boot_id, identity.pid_ns):
        raise KeeperGone(f"the keeper of {turn_folder} lives where it cannot be reached")
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.kill(identity.pid, signum)
        if await _until(lambda: not keeper_lives(turn_folder) or _is_recorded(turn_folder), DEAF_WITHIN_S):
            break
    with contextlib.suppress(OSError):
        os.kill(identity.pid, signal.SIGKILL)


def _is_recorded(turn_folder: Path) -> bool:
    return read_record(str(turn_folder)) is not None


async def _until(condition: Callable[[], bool], within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while not condition():
        if loop.time() >= until:
            return False
        await asyncio.sleep(_LOOK_EVERY_S)
    return True
