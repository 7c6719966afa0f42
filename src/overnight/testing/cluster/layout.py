"""Where everything of a cluster lies, and how its members are configured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from overnight.testing.agents import WITNESS_AGENT

TOKEN = "ovn_" + "c" * 43


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A cluster that is to be. `root` is short and not beneath a home directory: sockets lie in it."""

    root: Path
    store: Literal["postgres", "sqlite"] = "postgres"
    valkey: bool = True
    servers: int = 2
    workers: int = 3
    remote_workers: int = 0
    """Workers that reach a server over HTTP and no database."""
    slots: int = 8
    lease_s: float = 8.0
    grace_s: float = 1.0
    poll_s: float = 1.0
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further environment of every member."""
    own_clocks: frozenset[str] = frozenset()
    """Members whose wall clock can be moved."""
    small_disks: Mapping[str, int] = field(default_factory=dict)
    """Members (or `postgres`) whose folder is a disk of its own, with its size in MiB."""
    namespaces: frozenset[str] = frozenset()
    """Workers with a network of their own, where that can be had."""
    config: str = ""
    """Further lines of everybody's overnight.toml."""

    @property
    def shared(self) -> Path:
        """The folder that every host has at the same path."""
        return self.root / "shared"

    @property
    def repository(self) -> Path:
        """A git repository that git workspaces are made from."""
        return self.root / "repository"

    @property
    def agents(self) -> Path:
        """The agents' own record."""
        return self.root / "record" / "agents.jsonl"

    @property
    def history(self) -> Path:
        """What the clients saw."""
        return self.root / "record" / "history.jsonl"

    def make(self) -> None:
        """Folders, configuration and repository."""
        for name in ("shared", "record", "config", "home", "log"):
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = [sys.executable, "-I", "-S", "-E", str(WITNESS_AGENT), str(self.agents)]
        backends = (
            f'[backends.witness]\nkind = "command"\ncommand = {json.dumps(argv)}\n'
            f'[backends.asker]\nkind = "acp"\ncommand = {json.dumps([*argv, "--acp"])}\n'
        )
        # Here workers are made to fail on purpose, and no operator is there to release them.
        queue = "[queue]\nquarantine_after = 1000\n"
        self.config_file.write_text(f"{self.config}\n{queue}{backends}", encoding="utf-8")
        make_repository(self.repository)

    @property
    def config_file(self) -> Path:
        """Everybody's overnight.toml."""
        return self.root / "config" / "overnight.toml"

    def environment(
        self, name: str, port: int | None, database: str | None, redis: str | None
    ) -> dict[str, str]:
        """The whole environment of the member `name`, which has a data directory of its own: a host."""
        runtime = self.root / name / "run"
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "XDG_RUNTIME_DIR": str(runtime),
            "OVERNIGHT_CONFIG": str(self.config_file),
            "OVERNIGHT_DATA_DIR": str(self.root / name / "data"),
            "OVERNIGHT_TOKEN": TOKEN,
            "OVERNIGHT_WORKSPACE_ROOTS": f"{self.shared}:{self.repository}",
            "OVERNIGHT_LOG_FILE": str(self.root / "log" / f"{name}.jsonl"),
            # Witnesses write to one record beside everything, and are looked for by their environment.
            "OVERNIGHT_SANDBOX_MODE": "off",
            "OVERNIGHT_SLOTS": str(self.slots),
            "OVERNIGHT_LEASE_S": f"{self.lease_s:g}",
            "OVERNIGHT_GRACE_S": f"{self.grace_s:g}",
            "OVERNIGHT_POLL_S": f"{self.poll_s:g}",
            "OVERNIGHT_MAX_CONNECTIONS": "5000",
            "OVERNIGHT_MAX_CONNECTIONS_PER_USER": "5000",
        }
        if "PYTHONPATH" in os.environ:  # whoever tries another checkout says so by it
            found["PYTHONPATH"] = os.environ["PYTHONPATH"]
        if port is not None:
            found["OVERNIGHT_LISTEN"] = f"127.0.0.1:{port}"
        if database is not None:
            found |= {"OVERNIGHT_DATABASE_URL": database, "OVERNIGHT_WORKER_SHARED_ROOTS": str(self.shared)}
        if redis is not None:
            found["OVERNIGHT_REDIS_URL"] = redis
        return {**found, **self.settings}


def make_repository(folder: Path) -> None:
    """A git repository with one commit, made without anybody's configuration."""
    if (folder / ".git").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("A repository to work in.\n", encoding="utf-8")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.invalid"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", "-C", str(folder), *arguments], env=env, check=True)
