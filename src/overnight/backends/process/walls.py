"""The sandbox of one turn: around the agent itself, and around whatever is started in its name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

from overnight.backends.process.output import STDERR
from overnight.backends.process.program import Command
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.update import Update, Warned
from overnight.domain.values import Failure
from overnight.keeper_protocol import ExitRecord, read_identity
from overnight.ports.backend import TurnStart
from overnight.ports.sandbox import Confined, Level, Place, Sandbox

LEVELS: Final = ("read_only", "workspace_write", "full_access")
TOLD: Final = "OVERNIGHT_SANDBOX"
"""The variable by which a program may learn what confines it."""
_OWN_SANDBOX: Final = frozenset(("sandbox_unavailable", "home_in_temporary_folder"))
"""What preflights say of a program's own sandbox; it is not used where ours stands around it."""
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
_REDIRECTED: Final = (
    "{path} was made during the turn; git would have taken hooks from elsewhere, so it was removed"
)
_SAID_BY_SANDBOX: Final = (b"bwrap: ", b"unshare: ")


def stands(sandbox: Sandbox | None) -> bool:
    """Whether turns are confined on this host."""
    return sandbox is not None and sandbox.trial.works


def widened(capabilities: Capabilities, sandbox: Sandbox | None) -> Capabilities:
    """What a program can do, with the levels that the sandbox around it gives."""
    return replace(capabilities, sandbox=LEVELS) if stands(sandbox) else capabilities


def judged(check: BackendCheck, sandbox: Sandbox | None) -> BackendCheck:
    """A preflight's answer, without complaints about a sandbox that is not needed."""
    if not stands(sandbox):
        return check
    problems = tuple(problem for problem in check.problems if problem.code not in _OWN_SANDBOX)
    status = "ok" if check.status == "warn" and not problems else check.status
    return replace(check, status=status, problems=problems, capabilities=widened(check.capabilities, sandbox))


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """What stands around one turn. Without a sandbox, or with full access, that is nothing."""

    sandbox: Sandbox | None
    start: TurnStart
    own: Capabilities = field(default_factory=Capabilities)
    """What the program confines by itself, for telling it so."""

    @property
    def stand(self) -> bool:
        """Whether this turn is confined."""
        return self.start.sandbox != "full_access" and stands(self.sandbox)

    @property
    def told(self) -> TurnStart:
        """What the program is told: a sandbox of its own inside of ours would only be in the way."""
        return replace(self.start, sandbox="full_access") if self.stand else self.start

    async def around(self, argv: tuple[str, ...], command: Command, cwd: Path) -> Confined:
        """`argv` inside the walls, with the environment of `command`, the program's own, and what that needs.

        Raises BackendFailure `sandbox_failed`; a command that should be confined is never started without.
        """
        env = dict(command.env)
        if TOLD in env:
            missing = not self.stand and self.own.missing_sandbox(self.start.sandbox)
            env[TOLD] = "none" if missing else self.start.sandbox
        return await self._wrapped(argv, env, cwd, self._place(command))

    async def around_asked(self, command: Command, *, path: str) -> Confined:
        """A command that the agent asks for: whatever it names in it, it is shown nothing more for that.

        `path` is PATH as the program was given it. Raises as `around`.
        """
        return await self._wrapped(command.argv, command.env, command.cwd, replace(self._bare(), path=path))

    async def _wrapped(
        self, argv: tuple[str, ...], env: Mapping[str, str], cwd: Path, place: Place
    ) -> Confined:
        if self.sandbox is None or not self.stand:
            return Confined(argv=argv, env=env, wrappers=0)
        return await asyncio.to_thread(self.sandbox.wrap, argv, env, cwd, place)

    def refusal(self, record: ExitRecord) -> Failure | None:
        """The failure of a turn whose sandbox could not be made: its agent was never started."""
        if not self.stand or (record.exit_code, record.stdout_bytes) != (1, 0) or record.stderr_bytes == 0:
            return None
        try:
            with open(self.start.folder / STDERR, "rb") as file:
                said = file.read(2000)
        except OSError:
            return None
        if not said.startswith(_SAID_BY_SANDBOX):
            return None
        # Something may just have been changed or removed that was to be mounted: another attempt looks anew.
        return Failure(code="sandbox_failed", message=said.decode("utf-8", "replace").strip(), retryable=True)

    def after(self) -> tuple[Update, ...]:
        """What there is to say once everything has ended. Blocks on the disk."""
        identity = read_identity(str(self.start.folder))
        if self.sandbox is None or not self.stand or identity is None or self.start.sandbox == "read_only":
            return ()
        taken = self.sandbox.take_back(self.start.workspace, identity.started_at)
        return tuple(Warned(code="git_redirected", message=_REDIRECTED.format(path=path)) for path in taken)

    def _bare(self) -> Place:
        start = self.start
        return Place(
            level=cast("Level", start.sandbox),
            workspace=start.workspace,
            workspace_id=start.workspace_id,
            home=start.home,
        )

    def _place(self, command: Command) -> Place:
        return replace(
            self._bare(),
            programs=(Path(command.argv[0]), *command.programs),
            path=command.env.get("PATH", ""),
            readable=(*command.readable, *_certificates(command.env)),
            writable=command.writable,
        )


def _certificates(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Certificates that the operator names; a run cannot set these variables."""
    return tuple(Path(env[name]) for name in _CERTIFICATES if env.get(name, "").startswith("/"))
