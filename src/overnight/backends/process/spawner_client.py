"""Launch turns through the spawner, and start the spawner when none answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from overnight.backends.process.channel import Channel, Message, Refused, connect
from overnight.backends.process.keeper_client import KeeperClient
from overnight.backends.process.keys import TurnSecrets
from overnight.errors import BackendFailure, KeeperGone, Unavailable
from overnight.keeper_protocol import (
    KEEPER_FILE,
    VERSIONS,
    Launch,
    LaunchSpec,
    encode,
    is_same_process,
    read_spawner,
    spawner_socket,
    to_json,
)

IDLE_S = 60.0
"""How long a spawner waits for another launch when it has neither keeper nor client."""
LAUNCH_WITHIN_S = 40.0
"""A program that takes longer to be exec'd is given up by its keeper before that."""
ANSWER_WITHIN_S = 10.0
START_ATTEMPTS = 3
LISTEN_WITHIN_S = 2.0
"""How long whoever holds the lock is given to be there, before it is told to let go."""
LOG_FILE = "keepers.log"
"""In the data directory: what a spawner or keeper says when it breaks. Empty otherwise."""
_SOURCE = Path(__file__).parents[3]
_START = (
    f"import sys; sys.path.insert(0, {str(_SOURCE)!r}); from overnight.keeper.spawner import main; main()"
)


class SpawnerClient:
    """The way to the one spawner of a data directory. Safe to use for many launches at once.

    `data_dir` exists and is the user's own; `runtime_dir` is made if absent, with mode 0700. `environment` is all that
    the spawner gets (LD_LIBRARY_PATH, where Python itself needs that).
    """

    def __init__(
        self,
        data_dir: Path,
        runtime_dir: Path,
        *,
        idle_s: float = IDLE_S,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._data_dir = data_dir = data_dir.absolute()
        self._runtime_dir = runtime_dir = runtime_dir.absolute()
        self._idle_s = idle_s
        self._environment = dict(environment or {})
        self._held: Channel | None = None
        self._starting = asyncio.Lock()
        runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if runtime_dir.stat().st_mode & 0o077:
            runtime_dir.chmod(0o700)
        self.secrets = TurnSecrets(data_dir)

    async def launch(self, spec: LaunchSpec, token: int) -> KeeperClient:
        """Start an agent under a keeper of its own. `spec.turn_folder` is used once, whether this succeeds or not.

        Raises BackendFailure `start_failed` when the program cannot be started, Unavailable when no spawner can be had,
        KeeperGone when the keeper died at once (then nothing of it is left).
        """
        nonce, secret = self.secrets.new()
        launch = Launch(spec, token, secret, nonce)
        for _ in range(3):
            try:
                return await self._launch_once(launch)
            except Refused as refused:
                if refused.reason != "draining":
                    raise BackendFailure(refused.detail, code=refused.reason, retryable=False) from refused
            except KeeperGone:
                if os.path.lexists(f"{spec.turn_folder}/{KEEPER_FILE}"):
                    raise
        raise Unavailable("the spawner ended during each of three launches")

    async def ping(self) -> Message:
        """What the spawner says about itself; starts it if need be. From then on it stays until `close`."""
        if self._held is None:
            self._held = await Channel.over(await self._connect())
        self._held.write({"type": "ping"})
        return await self._held.first(ANSWER_WITHIN_S)

    async def close(self) -> None:
        """Let go of the spawner. It stays as long as there are keepers, and a while longer."""
        if self._held is not None:
            self._held.close()
            self._held = None

    async def _launch_once(self, launch: Launch) -> KeeperClient:
        sock = await self._connect()
        try:
            with _handed_over(launch) as handle:
                message = {
                    "type": "launch",
                    "versions": list(VERSIONS),
                    "turn_folder": launch.spec.turn_folder,
                }
                socket.send_fds(sock, [encode(message)], [handle])
        except OSError as error:
            sock.close()
            raise KeeperGone("the spawner ended before the launch") from error
        channel = await Channel.over(sock)
        try:
            return KeeperClient.welcomed(channel, await channel.first(LAUNCH_WITHIN_S), launch.token)
        except BaseException:
            channel.close()
            raise

    async def _connect(self) -> socket.socket:
        path = spawner_socket(str(self._data_dir), str(self._runtime_dir))
        self._signal(signal.SIGCONT)  # an agent may have stopped it
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return await connect(path)
        async with self._starting:
            if (sock := await _connect_within(path, 0)) is not None:
                return sock  # somebody else has started it while we waited
            for _ in range(START_ATTEMPTS):
                await self._start()
                if (sock := await _connect_within(path, LISTEN_WITHIN_S)) is not None:
                    return sock
                self._dismiss()
        raise Unavailable(f"no spawner could be started; see {self._data_dir / LOG_FILE}")

    async def _start(self) -> None:
        """Returns once a spawner listens, or another one has the lock (and may be about to listen)."""
        with open(self._data_dir / LOG_FILE, "ab", opener=_private) as log:  # noqa: ASYNC230 - one local open
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", "-E", "-c", _START),
                *(str(self._data_dir), str(self._runtime_dir), str(self._idle_s)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        await process.wait()

    def _dismiss(self) -> None:
        """A spawner whose socket was removed holds the lock in vain. It stays beneath its keepers, but lets go."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        holder = read_spawner(str(self._data_dir))
        if holder is not None and is_same_process(*holder):
            with contextlib.suppress(OSError):
                os.kill(holder.pid, number)


async def _connect_within(path: str, within_s: float) -> socket.socket | None:
    until = asyncio.get_running_loop().time() + within_s
    while True:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return await connect(path)
        if asyncio.get_running_loop().time() >= until:
            return None
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def _handed_over(launch: Launch) -> Iterator[int]:
    """A descriptor that holds the launch: in memory only, where the system can do that."""
    data = json.dumps(to_json(launch)).encode("ascii")
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("launch", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
