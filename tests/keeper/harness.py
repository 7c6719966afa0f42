"""A place for keepers of one test, and what is needed to look at processes from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from overnight.backends.process.adoption import Dead, attach, keeper_lives
from overnight.backends.process.keeper_client import KeeperClient
from overnight.backends.process.spawner_client import SpawnerClient
from overnight.keeper_protocol import (
    LaunchSpec,
    Limits,
    is_same_process,
    read_identity,
    read_spawner,
    stat_fields,
)
from overnight.testing.signals import wait_until

PYTHON = (sys.executable, "-I", "-S", "-c")


@dataclass(kw_only=True)
class Place:
    """A data directory with its spawner. Everything started in it is ended by `clear`."""

    data_dir: Path
    runtime_dir: Path
    spawner: SpawnerClient
    turns: list[Path] = field(default_factory=list)
    _kept: list[KeeperClient | Dead] = field(default_factory=list)
    """What a test has let out of its sight is not collected, with its connection open, while the test goes on."""

    @classmethod
    def make(cls, folder: Path, *, runtime_dir: Path | None = None, idle_s: float = 0.1) -> Place:
        runtime = runtime_dir or Path(tempfile.mkdtemp(prefix="ovn"))
        return cls(
            data_dir=folder, runtime_dir=runtime, spawner=SpawnerClient(folder, runtime, idle_s=idle_s)
        )

    def spec(self, argv: tuple[str, ...], **changes: object) -> LaunchSpec:
        """A launch of `argv` in a fresh turn folder; limits by name, everything else of LaunchSpec too."""
        turn = self.data_dir / f"turn-{len(self.turns)}"
        turn.mkdir()
        self.turns.append(turn)
        limits = {name: changes.pop(name) for name in Limits._fields if name in changes}
        fields: dict[str, object] = {
            "argv": argv,
            "env": {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"},
            "cwd": str(turn),
            "turn_folder": str(turn),
            "out_path": str(turn / "stdout"),
            "err_path": str(turn / "stderr"),
            "limits": Limits(**({"grace_s": 0.3} | limits)),  # type: ignore[arg-type]
        }
        return LaunchSpec(**fields | changes)  # type: ignore[arg-type]

    async def launch(self, *argv: str, **changes: object) -> KeeperClient:
        keeper = await self.spawner.launch(self.spec(argv, **changes), 1)
        self._kept.append(keeper)
        return keeper

    async def attach(self, turn: Path, token: int) -> KeeperClient | Dead:
        found = await attach(turn, token, self.spawner.secrets, self.data_dir)
        self._kept.append(found)
        return found

    async def adopt(self, keeper: KeeperClient, token: int) -> KeeperClient:
        """Attach to the same keeper under another token."""
        found = await self.attach(Path(keeper.identity.out_path).parent, token)
        assert isinstance(found, KeeperClient)
        return found

    def spawner_pid(self) -> int:
        holder = read_spawner(str(self.data_dir))
        assert holder is not None
        return holder.pid

    def clear(self) -> None:
        """Keepers end their trees on SIGTERM; whoever is left after that is a bug, and killed."""
        for turn in self.turns:
            end_keeper(turn)
        holder = read_spawner(str(self.data_dir))
        if holder is not None and is_same_process(*holder):
            os.kill(holder.pid, signal.SIGTERM)
            wait_until(lambda: not is_same_process(*holder) or state(holder.pid) in "ZX-")


def end_keeper(turn: Path) -> None:
    """Have the keeper of a turn folder end its tree, then end the keeper."""
    who = read_identity(str(turn))
    if who is None or not is_same_process(who.pid, who.starttime, who.boot_id, who.pid_ns):
        return
    kill(who.pid, signal.SIGTERM)
    wait_until(lambda: not keeper_lives(turn) or (turn / "exit.json").exists())
    kill(who.pid)
    wait_until(lambda: not keeper_lives(turn))


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def state(pid: int) -> str:
    """R, S, D, T, Z … as /proc says; "-" when there is no such process."""
    fields = stat_fields(pid)
    return fields[0] if fields else "-"


def lives(pid: int) -> bool:
    return state(pid) not in "ZX-"


def text(turn: KeeperClient) -> str:
    return Path(turn.identity.out_path).read_text()


def numbers(turn: KeeperClient, wanted: int) -> list[int]:
    """Pids that the agent has printed, one a line, once there are `wanted` of them."""
    path = Path(turn.identity.out_path)
    wait_until(lambda: path.read_bytes().count(b"\n") >= wanted, what=f"{wanted} pids in {path}")
    return [int(line) for line in path.read_text().split()]
