"""The Codex program as a backend: its command line, its environment, its preflight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from overnight.backends.codex.codec import CodexCodec
from overnight.backends.codex.preflight import CAPABILITIES, is_temporary, preflight
from overnight.backends.codex.provider import KEYS, key_of, provider_for
from overnight.backends.process.findings import stamp_of
from overnight.backends.process.program import Command
from overnight.backends.process.settings import ProgramSettings, base_environment, lend
from overnight.clock import Clock
from overnight.domain.backend import BackendCheck, Capabilities
from overnight.domain.spec import Sandbox
from overnight.errors import BackendFailure
from overnight.keeper_protocol import Interrupt
from overnight.ports.backend import TurnStart

_SIGINT = 2
_SANDBOXES: Mapping[Sandbox, str] = {"read_only": "read-only", "workspace_write": "workspace-write"}


class CodexProgram:
    """`codex exec --json` with the prompt on stdin. Its CODEX_HOME lies in the home of (session, backend)."""

    def __init__(self, settings: ProgramSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._capabilities = CAPABILITIES

    @property
    def name(self) -> str:
        """See `Program.name`."""
        return self._settings.name

    @property
    def capabilities(self) -> Capabilities:
        """See `Program.capabilities`; after a check, what it can do on this host."""
        return self._capabilities

    def command(self, start: TurnStart) -> Command:
        """See `Program.command`."""
        program = _native(self._settings.need("codex"))
        home = self._codex_home(start.home)
        if self._confines(start):
            _refuse_temporary(home)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        lent = lend(self._settings, ".codex/auth.json", home / "auth.json")
        thread = start.resume.get("thread_id")
        argv = [str(program), "exec"]
        argv += ["resume", str(thread)] if thread else []
        argv += ["--json", "--skip-git-repo-check", *self._flags(start), *self._settings.args, "-"]
        return Command(
            argv=tuple(argv),
            env=self._environment(start, home, program),
            cwd=start.workspace,
            stdin=start.prompt.encode(),
            interrupt=Interrupt(signal=_SIGINT),
            writable=(*lent, *([home] if self._own_home() else [])),
        )

    def codec(self, start: TurnStart) -> CodexCodec:
        """See `Program.codec`."""
        return CodexCodec(start.resume)

    async def check(self) -> BackendCheck:
        """See `Program.check`: program, version, configuration, key or login, sandbox."""
        check = await preflight(self._settings, now_ms=self._clock.wall_ms(), stamp=self.stamp())
        self._capabilities = check.capabilities
        return check

    def stamp(self) -> str:
        """See `Program.stamp`."""
        return stamp_of(self._settings, "codex")

    def _confines(self, start: TurnStart) -> bool:
        return start.sandbox != "full_access" and start.sandbox in self._capabilities.sandbox

    def _codex_home(self, home: Path) -> Path:
        return self._own_home() or home / ".codex"

    def _own_home(self) -> Path | None:
        """The operator's choice. One beneath HOME is the agent's: what leads from there is nothing to rely on."""
        own = self._settings.environment.get("CODEX_HOME")
        return Path(own) if own else None

    def _flags(self, start: TurnStart) -> list[str]:
        settings = ["check_for_update_on_startup=false", "analytics.enabled=false", 'otel.exporter="none"']
        # The model's commands have no business with the key that the program itself needs.
        own = provider_for(self._settings).key_variable
        hidden = ", ".join(f'"{name}"' for name in dict.fromkeys((*KEYS, *([own] if own else []))))
        settings += [f"shell_environment_policy.exclude=[{hidden}]"]
        flags: list[str] = []
        if not self._confines(start):
            flags += ["--dangerously-bypass-approvals-and-sandbox"]
        else:
            mode = _SANDBOXES[start.sandbox]
            # By configuration and not by -s, which `resume` does not take.
            settings += [f'sandbox_mode="{mode}"', 'approval_policy="never"']
            settings += ["sandbox_workspace_write.network_access=true"]
        if "CODEX_HOME" not in self._settings.environment:
            # An agent can write into a home of ours; what it leaves there must not configure its next turn.
            flags += ["--ignore-user-config", "--ignore-rules"]
        if start.effort is not None:
            settings += [f'model_reasoning_effort="{start.effort}"']
        model = start.model or self._settings.model
        flags += ["-m", model] if model else []
        return [*flags, *(part for setting in settings for part in ("-c", setting))]

    def _environment(self, start: TurnStart, home: Path, program: Path) -> dict[str, str]:
        found = base_environment(self._settings, start)
        tools = program.parent.parent / "codex-path"
        if tools.is_dir():
            # The launcher would have put the tools that come with the program on PATH.
            found["PATH"] = f"{tools}:{found['PATH']}"
        provider = provider_for(self._settings)
        key = key_of(self._settings, provider)
        if provider.key_variable is not None and key is not None:
            found[provider.key_variable] = key
        return found | {"HOME": str(start.home), "CODEX_HOME": str(home), "NO_COLOR": "1"}


def _native(program: Path) -> Path:
    """The program behind the npm package's launcher: signals go to the process that they are meant for."""
    launcher = program.resolve()
    if launcher.suffix != ".js":
        return program
    package = launcher.parents[1]
    for folder in (package.parent, package / "node_modules" / "@openai"):
        for native in sorted(folder.glob("codex-*/vendor/*/bin/codex")):
            return native
    return program


def _refuse_temporary(home: Path) -> None:
    if is_temporary(home):
        raise BackendFailure(
            f"Codex cannot sandbox commands while its home {home} lies in the temporary folder",
            code="home_in_temporary_folder",
            retryable=False,
            mend="set OVERNIGHT_DATA_DIR to a folder elsewhere, or ask for sandbox full_access",
        )
