"""The files of a turn that a keeper writes: always whole, or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any

from overnight.keeper_protocol import (
    EXIT_FILE,
    KEEPER_FILE,
    LOCK_FILE,
    SOCKET_LINK,
    ExitRecord,
    Identity,
    to_json,
)


class TurnTaken(Exception):
    """This turn folder has been launched before, or another keeper lives in it."""


class TurnFolder:
    """The folder of one turn, locked for as long as its keeper lives: that is how others see that it does."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = os.open(
            f"{path}/{LOCK_FILE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TurnTaken(f"a keeper lives in {path}") from error
        for name in (KEEPER_FILE, EXIT_FILE):
            if os.path.lexists(f"{path}/{name}"):
                raise TurnTaken(f"{path} has been launched before")

    def write_identity(self, identity: Identity) -> None:
        """Leave keeper.json and the link to the socket; again, when more is known."""
        link = f"{self.path}/{SOCKET_LINK}"
        if not os.path.islink(link) or os.readlink(link) != identity.socket:
            if os.path.lexists(link):
                os.unlink(link)
            os.symlink(identity.socket, link)
        write_object(f"{self.path}/{KEEPER_FILE}", to_json(identity))

    def clear(self) -> None:
        """Remove the link: nobody answers there any more."""
        try:
            os.unlink(f"{self.path}/{SOCKET_LINK}")
        except OSError:
            return


def write_record(folder: str, record: ExitRecord) -> bool:
    """Leave exit.json. False when the disk does not take it at the moment."""
    try:
        write_object(f"{folder}/{EXIT_FILE}", to_json(record))
    except OSError:
        return False
    return True


def sync_record(folder: str) -> None:
    """Make exit.json survive a loss of power. Slow: do it after everyone has been told."""
    for path in (f"{folder}/{EXIT_FILE}", folder):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        with contextlib.suppress(OSError):
            os.fsync(handle)
        os.close(handle)


def write_object(path: str, content: Any) -> None:
    """Replace a file by a JSON object: readers see the old one or the new one."""
    fresh = f"{path}.new"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        data = json.dumps(content).encode("ascii")
        if os.write(handle, data) != len(data):
            raise OSError(f"{fresh} could not be written whole")
    finally:
        os.close(handle)
    os.rename(fresh, path)
