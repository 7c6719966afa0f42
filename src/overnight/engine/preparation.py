"""Before a turn: the workspace is made ready and the backend is asked whether it can work at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from overnight.domain.run import Run
from overnight.domain.spec import GitWorkspace
from overnight.domain.states import Input
from overnight.engine import moves
from overnight.engine.boundary import let_go
from overnight.engine.comparison import take_base
from overnight.engine.prompt import make_logs
from overnight.engine.recorder import Recorder
from overnight.engine.telemetry.logs import LogWatch
from overnight.engine.workshop import Workshop
from overnight.errors import BackendFailure, WorkspaceUnreadable
from overnight.ports.backend import Backend
from overnight.ports.unit_of_work import Transaction
from overnight.ports.workspace import WorkspaceIdentity

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a turn works with."""

    backend: Backend
    workspace: Path
    workspace_id: str | None = None
    """`device:inode` of the workspace that was checked and locked."""
    home: Path
    stop: bool = False
    """Whether the stop file is there."""

    @property
    def watched(self) -> bool:
        """Whether the backend works in the workspace at all: else there is nothing to watch and to compare."""
        return self.backend.capabilities.workspace


class WorkspaceTaken(Exception):
    """Not an error: the path of the run leads to where another run works now, so this one was let go to wait for it."""


class Preparation:
    """Makes ready what a turn needs, for one hold. Safe to repeat."""

    def __init__(self, shop: Workshop, recorder: Recorder) -> None:
        self._shop = shop
        self._recorder = recorder
        self._locked: WorkspaceIdentity | None = None
        """The directory that this hold is known to have for itself."""

    async def prepare(self, run: Run) -> Prepared:
        """Raises WorkspaceRefused, WorkspaceTaken, UnknownBackend, or BackendFailure when the preflight fails."""
        prepared = self._nowhere(run) or await self._placed(run, run.backend)
        await self._preflight(run)
        if not prepared.watched:
            return prepared
        return await asyncio.to_thread(self._look_around, run, prepared)

    async def place(self, run: Run, backend: str) -> Prepared:
        """What a turn that lives already works with. Its workspace is taken as it was: the agent is in there."""
        if run.workspace is None:
            return await self._placed(run, backend)
        home = await asyncio.to_thread(self._home, run, backend)
        return self._prepared(backend, Path(run.workspace), home)

    def _nowhere(self, run: Run) -> Prepared | None:
        """For a backend that works in no folder, unless the run was given one: then nothing is made or locked."""
        if self._shop.backends.get(run.backend).capabilities.workspace or run.spec.workspace is not None:
            return None
        folder = self._shop.folders.run(run.id)
        return self._prepared(run.backend, folder, folder)

    async def _placed(self, run: Run, backend: str) -> Prepared:
        identity, home = await asyncio.to_thread(lambda: (self._workspace(run), self._home(run, backend)))
        if identity != self._locked:
            await self._lock(identity)
        return replace(self._prepared(backend, identity.path, home), workspace_id=identity.chain[0])

    async def _lock(self, identity: WorkspaceIdentity) -> None:
        """Have the locks at the directory that is there now: what a path means may change at any time."""
        path = str(identity.path)

        def unit(tx: Transaction, run: Run, now_ms: int) -> bool:
            if tx.runs.set_workspace(run.pk, path, identity.chain):
                return True
            if not let_go(tx, run, None, now_ms):
                changes: dict[str, object] = {"worker": None, "pid": None, "now": None}
                data = {"reason": "workspace_taken"}
                moves.move(tx, run, Input.HAND_BACK, "run.requeued", now_ms, data, **changes)
            tx.runs.set_workspace(run.pk, path, identity.chain)  # the next claim waits for this place
            return False

        if not await self._recorder.write(unit):
            raise WorkspaceTaken
        self._locked = identity

    def _home(self, run: Run, backend: str) -> Path:
        folders = self._shop.folders
        return folders.make(folders.home(run.session_id, backend))

    def _prepared(self, backend: str, workspace: Path, home: Path) -> Prepared:
        return Prepared(backend=self._shop.backends.get(backend), workspace=workspace, home=home)

    def logs(self, run: Run, workspace: Path) -> LogWatch:
        """What watches the logs that the agent keeps."""
        return LogWatch(
            workspaces=self._shop.workspaces, workspace=workspace, folder=self._shop.folders.run(run.id),
            spec=run.spec, redactor=self._recorder.redactor, clock=self._shop.clock,
        )  # fmt: skip

    def _workspace(self, run: Run) -> WorkspaceIdentity:
        wanted = run.spec.workspace
        if isinstance(wanted, GitWorkspace):
            return self._shop.workspaces.checkout(run.id, wanted.git, wanted.ref, last=run.workspace)
        if wanted is None:
            # A conversation goes on where it was: its folder is the session's, not the run's.
            return self._shop.workspaces.scratch(run.session_id if run.spec.mode == "chat" else run.id)
        return self._shop.workspaces.check(wanted)

    def _look_around(self, run: Run, prepared: Prepared) -> Prepared:
        """Before the first turn on this host: logs from templates and the first snapshot. Before every turn: the stop
        file.
        """
        workspaces, workspace = self._shop.workspaces, prepared.workspace
        if run.turn == 0 or not (self._shop.folders.run(run.id) / "turns").is_dir():
            if run.spec.keeps_logs:
                make_logs(workspaces, workspace, run.spec)
            self.logs(run, workspace).begin()
            self._take_base(run, workspace)
        return replace(prepared, stop=self.stop_seen(run, workspace))

    def _take_base(self, run: Run, workspace: Path) -> None:
        """A workspace that cannot be compared can still be worked in; every turn's end says so."""
        try:
            take_base(self._shop.workspaces, run, workspace)
        except (WorkspaceUnreadable, OSError) as error:
            log.warning("workspace.unreadable", workspace=str(workspace), error=str(error))

    def stop_seen(self, run: Run, workspace: Path) -> bool:
        """Whether the stop file is there, or has been and was taken away by us. Blocks on the disk."""
        path = run.spec.completion.stop_file
        if path is None:
            return False
        there = self._shop.workspaces.read_text(workspace, path, limit=1) is not None
        return there or self._stop_mark(run).exists()

    def take_stop_file(self, run: Run, workspace: Path) -> None:
        """It ends the run, so it goes; a mark of ours stays in case we crash before that is recorded. Blocks."""
        path = run.spec.completion.stop_file
        if path is None:
            return
        try:
            self._stop_mark(run).touch(mode=0o600)
            self._shop.workspaces.remove_file(workspace, path)
        except OSError as error:
            log.warning("stop_file.not_removed", path=path, error=str(error))

    def _stop_mark(self, run: Run) -> Path:
        return self._shop.folders.run(run.id) / "stop-seen"

    async def _preflight(self, run: Run) -> None:
        name, backends = run.backend, self._shop.backends
        check = backends.known(name) or await backends.check(name)
        if check.status == "fail":
            first = check.problems[0] if check.problems else None
            # A run keeps the message alone, so the mend has to be in it.
            words = [first.message, first.mend] if first else ["its preflight fails"]
            message = f"{name}: {'; '.join(word for word in words if word)}"
            raise BackendFailure(message, code="preflight_failed", retryable=False)
        # A preflight may find that this host gives no sandbox after the run was admitted.
        missing = backends.get(name).capabilities.missing_sandbox(run.spec.sandbox)
        if missing and self._shop.policy.require_sandbox:
            message = (
                f"{name} gives no {run.spec.sandbox} sandbox on this host, and the operator requires one"
            )
            raise BackendFailure(message, code="sandbox_unavailable", retryable=False)
