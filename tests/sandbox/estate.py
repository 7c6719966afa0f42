"""A host in small: an Overnight installation with secrets, a user with a home, and a keeper for hostile agents."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.keeper.harness import Place as KeeperPlace
from tests.keeper.test_backend import CountingCodec

from overnight.backends.process.backend import ProcessBackend
from overnight.backends.process.program import Command
from overnight.backends.process.turn import ProcessTurn
from overnight.clock import SystemClock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.spec import Sandbox
from overnight.domain.update import Message, Output, Update
from overnight.keeper_protocol import Interrupt
from overnight.ports.backend import Ended, TurnLimits, TurnStart
from overnight.workspaces.sandbox import Bubblewrap
from overnight.workspaces.sandbox_network import Network
from overnight.workspaces.sandbox_places import Surroundings

SECRET = "s3cret"
LIMITS = TurnLimits(timeout_s=60, output_bytes=1 << 30, children=100, grace_s=20)
SPACES = ("mnt", "pid", "user", "ipc", "uts", "cgroup")


def need_bubblewrap(sandbox: Bubblewrap) -> None:
    """Fail where the sandbox should work (Linux, and it is there or root could have installed it); else say why not."""
    trial = sandbox.try_out()
    if trial.works:
        return
    words = f"no sandbox on this host: {trial.problem}; {trial.mend}"
    if sys.platform == "linux" and (trial.version is not None or os.geteuid() == 0):
        pytest.fail(words)
    pytest.skip(words)


def hidden_anyway(path: Path) -> bool:
    """Whether a rule about homes or temporary folders speaks of it."""
    return any(path.is_relative_to(place) for place in ("/tmp", "/var/tmp", "/home", "/root", "/run"))


@contextmanager
def visible_folder() -> Iterator[Path]:
    """A fresh folder that no rule about homes or temporary folders hides."""
    places = (Path("/srv"), Path("/opt"), Path(__file__).parents[2])
    base = next((path for path in places if os.access(path, os.W_OK) and not hidden_anyway(path)), None)
    if base is None:
        pytest.skip(
            f"nobody lets us write to any of {', '.join(map(str, places))}; elsewhere all is hidden anyway"
        )
    folder = Path(tempfile.mkdtemp(prefix="overnight-test-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Script:
    """A program that is a command line; what a real adapter would add is added by the test."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    interrupt: Interrupt | None = None
    programs: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    told: list[TurnStart] = field(default_factory=list)
    name: str = "script"
    capabilities: Capabilities = field(default_factory=Capabilities)

    def command(self, start: TurnStart) -> Command:
        self.told.append(start)
        return Command(
            argv=self.argv,
            env={"PATH": os.environ["PATH"], "HOME": str(start.home), **self.env},
            cwd=start.workspace, interrupt=self.interrupt, programs=self.programs, readable=self.readable,
            writable=self.writable,
        )  # fmt: skip

    def codec(self, start: TurnStart) -> CountingCodec:
        return CountingCodec()

    async def check(self) -> BackendCheck:
        return BackendCheck(name="script", status="ok", capabilities=self.capabilities, checked_at=0)

    def stamp(self) -> str:
        return "1"


@dataclass(kw_only=True)
class Told:
    """What a turn said, and how it ended."""

    ended: Ended
    lines: list[str]
    errors: str

    @property
    def last(self) -> str:
        """The last line on standard output."""
        return self.lines[-1] if self.lines else ""


async def no_input(number: int, data: bytes) -> None:
    raise AssertionError("nothing is sent")


@dataclass(kw_only=True)
class Estate:
    """Everything lies in `root`, which a confined agent can see but for what is hidden."""

    root: Path
    sandbox: Bubblewrap
    keepers: KeeperPlace
    server: subprocess.Popen[bytes]
    runs: int = 0

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def mark(self) -> str:
        """In the command line of the server that stands there for the real one, and in names of files."""
        return f"mark-of-{self.root.name}"

    def folders(self, name: str) -> tuple[Path, Path]:
        """A workspace that is a git repository with settings in it, and a home."""
        workspace, home = self.data / "runs" / name / "workspace", self.data / "homes" / name / "agent"
        home.mkdir(parents=True, exist_ok=True)
        if not workspace.exists():
            make_workspace(workspace)
        return workspace, home

    def start_of(self, name: str = "run_x", **changes: object) -> TurnStart:
        """The start of a turn in a workspace of that name."""
        self.runs += 1
        folder = self.data / "runs" / name / "turns" / str(self.runs)
        folder.mkdir(parents=True)
        self.keepers.turns.append(folder)
        workspace, home = self.folders(name)
        facts = workspace.stat()
        start = TurnStart(
            run_id="run_x", turn=1, attempt=1, token=1, folder=folder, workspace=workspace, home=home, prompt="",
            workspace_id=f"{facts.st_dev}:{facts.st_ino}", limits=LIMITS,
        )  # fmt: skip
        return replace(start, **changes)  # type: ignore[arg-type]

    def backend(self, script: Script, sandbox: Bubblewrap | None = None) -> ProcessBackend:
        return ProcessBackend(
            script,
            self.keepers.spawner,
            clock=SystemClock(),
            data_dir=self.data,
            sandbox=sandbox or self.sandbox,
        )

    async def begin(self, script: Script, start: TurnStart, sandbox: Bubblewrap | None = None) -> ProcessTurn:
        return await self.backend(script, sandbox).start(start, no_input)

    async def tell(self, script: Script, start: TurnStart, sandbox: Bubblewrap | None = None) -> Told:
        """Run a turn to its end."""
        turn = await self.begin(script, start, sandbox)
        return await finish(turn)

    async def sh(
        self, line: str, *, level: Sandbox = "workspace_write", name: str = "run_x", **more: object
    ) -> Told:
        """Run a line of shell as an agent."""
        script = Script(argv=("/bin/sh", "-c", line), **more)  # type: ignore[arg-type]
        return await self.tell(script, self.start_of(name, sandbox=level))

    def facts(self, start: TurnStart) -> dict[str, object]:
        """What a hostile agent knows: everything."""
        return {
            "data": str(self.data), "turn": str(start.folder), "workspace": str(start.workspace),
            "home": str(start.home), "runtime": str(self.root / "runtime"), "config": str(self.root / "config"),
            "key_file": str(self.root / "key-file"), "user_home": str(self.root / "user"),
            "public": str(self.root / "public" / "notes.txt"), "in_tmp": f"/tmp/{self.mark}-others",
            "in_shm": f"/dev/shm/{self.mark}-others", "mark": self.mark, "pids": [self.server.pid, os.getpid()],
            "namespaces": {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in SPACES},
            "confined": start.sandbox != "full_access",
        }  # fmt: skip


async def finish(turn: ProcessTurn) -> Told:
    updates: list[Update] = []
    async for batch in turn.batches():
        updates += batch.updates
    await turn.release()
    said = [update.text for update in updates if isinstance(update, Message)]
    errors = b"".join(update.data for update in updates if isinstance(update, Output))
    ended = turn.ended()
    return Told(ended=ended, lines=[line.rstrip("\n") for line in said if not line.endswith(" lines")],
                errors=errors.decode("utf-8", "replace"))  # fmt: skip


def make_workspace(workspace: Path) -> None:
    """A repository with a submodule's folder, and settings of agents and editors."""
    workspace.mkdir(parents=True)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    subprocess.run([*git, "init", "-q", str(workspace)], check=True)
    subprocess.run([*git, "init", "-q", "--bare", str(workspace / ".git/modules/sub")], check=True)
    with (workspace / ".git/config").open("a", encoding="utf-8") as config:
        config.write("[user]\n\tname = a\n\temail = a@b\n[core]\n\thooksPath = my-hooks\n")
    shutil.rmtree(workspace / ".git/hooks")
    for name in (
        ".mcp.json",
        ".envrc",
        ".claude/settings.json",
        ".vscode/tasks.json",
        "my-hooks/post-merge",
        "a.txt",
    ):
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).write_text("{}", encoding="utf-8")


def put(path: Path, text: str = SECRET) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def furnish(root: Path) -> None:
    """Every secret that there is to be found."""
    secrets = (
        "data/overnight.db", "data/homes/ses_other/agent/secret", "data/runs/run_other/workspace/secret",
        "runtime/server.json", "config/overnight.toml", "key-file", "user/.ssh/id_ed25519", "user/.netrc",
    )  # fmt: skip
    for name in secrets:
        put(root / name)
    put(root / "public/notes.txt", "known to all")
    put(root / "user/project/readme", "known to all")
    (root / "user/keys").symlink_to(".ssh")
    (root / "user/by-link").symlink_to(root / "data/overnight.db")
    (root / "runtime").chmod(0o700)


def surroundings(root: Path, **more: tuple[Path, ...]) -> Surroundings:
    secret = (root / "data", root / "runtime", root / "config", root / "key-file")
    return Surroundings(user_home=root / "user", secret=secret, **more)


@contextmanager
def estate() -> Iterator[Estate]:
    with visible_folder() as root:
        furnish(root)
        sandbox = Bubblewrap(surroundings(root), network=Network())
        need_bubblewrap(sandbox)
        keepers = KeeperPlace.make(root / "data", runtime_dir=root / "runtime")
        mark = f"mark-of-{root.name}"
        others = [put(Path(folder) / f"{mark}-others") for folder in ("/tmp", "/dev/shm")]
        with (root / "data/overnight.db").open("rb") as database:
            server = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)", mark],
                env={"OVERNIGHT_TOKEN": f"{SECRET}-token"}, cwd=root / "data", stdin=database,
            )  # fmt: skip
        try:
            yield Estate(root=root, sandbox=sandbox, keepers=keepers, server=server)
        finally:
            server.kill()
            server.wait()
            keepers.clear()
            for path in (*others, *(Path(folder) / mark for folder in ("/tmp", "/dev/shm", "/var/tmp"))):
                path.unlink(missing_ok=True)


def hostile(place: Estate, start: TurnStart) -> Script:
    """The hostile agent, and what it is told."""
    facts = put(start.workspace / "facts.json", json.dumps(place.facts(start)))
    agent = Path(__file__).with_name("hostile.py")
    return Script(argv=(sys.executable, "-I", "-S", str(agent), str(facts)), programs=(agent,))


def run(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A short command of a test."""
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def failure(told: Told) -> str:
    """The code of a turn's failure; empty when it did not fail."""
    found = told.ended.outcome.failure
    return found.code if found is not None else ""
