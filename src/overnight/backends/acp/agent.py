"""What the adapter has to know about one agent program besides the protocol."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from overnight.backends.acp.script import UsageStyle
from overnight.backends.process.probe import Version
from overnight.backends.process.settings import ProgramSettings
from overnight.domain.backend import Capabilities, Problem
from overnight.ports.backend import TurnStart

CAPABILITIES = Capabilities(
    resume=True, interrupt=True, approvals=True, deltas=True, usage=True, exit_codes=True, file_events=True
)
NODE = ("NODE_*",)
"""Variables by which a run could have Node.js load something else."""
_CPUS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Executable:
    """How a program is started so that signals reach the process that they are meant for."""

    argv: tuple[str, ...]
    programs: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    package: Path | None = None
    """Its `package.json`, where it comes as an npm package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What one turn gives its program besides the executable."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Files of HOME that are written before every turn: what an agent left there must not configure its next one."""
    mode: str | None = None
    model: str | None = None
    effort: str | None = None
    """Both to be set by the protocol, where no argument or variable does it."""
    session: Mapping[str, object] = field(default_factory=dict)
    """See `Script.session`."""
    lent: tuple[tuple[str, str], ...] = ()
    """Credential files of the user's home, and where beneath HOME they are lent to."""
    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How a program is let in by its model service, as far as that can be told without using it up."""

    keys: tuple[str, ...]
    """Variables of the server's environment that are passed on; any of them lets the program in."""
    passed: tuple[str, ...] = ()
    """Further variables that are passed on: addresses."""
    logins: tuple[str, ...] = ()
    """Files of the user's home that hold a login, lent with `login = "user"`."""
    probe: Callable[[Mapping[str, str]], tuple[str, Mapping[str, str]] | None] = lambda _: None
    """The URL and headers of a harmless question with the key that is known; None where there is none to ask."""
    needed: bool = True
    """Without any of these the program cannot work; else it may have a way that cannot be seen from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent program. `asking`: whether the turn's policy wants it to ask before it acts."""

    title: str
    program: str
    """Its name on PATH."""
    find: Callable[[Path], Executable]
    equip: Callable[[ProgramSettings, TurnStart, bool], Equipment]
    credentials: Credentials | None = None
    versions: tuple[Version, Version] | None = None
    """Tried: from the first on, before the second. None: whatever the operator has configured."""
    version_from_package: bool = False
    """It does not tell its version itself."""
    capabilities: Capabilities = CAPABILITIES
    usage: UsageStyle = "result"
    reads: bool = True
    writes: bool = True
    forms: bool = False
    """See `Script.forms`."""
    auth: Callable[[Mapping[str, str]], str | None] = lambda _: None
    """The authentication method for the environment of a turn."""
    error_prefix: str | None = None
    """See `Script.error_prefix`."""
    history_ends_with: str | None = None
    patience_s: float = 5.0
    prepare: Callable[[TurnStart], None] = lambda _: None
    """What else is to be done in the home before a turn starts."""
    unfit: Callable[[Path], str | None] = lambda _: None
    """Why a program that was found must not be used."""
    problems: Callable[[], tuple[Problem, ...]] = tuple
    """What else is missing before it can work."""


def as_it_is(program: Path) -> Executable:
    """A program that is what it looks like."""
    return Executable(argv=(str(program),))


def node_script(node: str | None) -> Callable[[Path], Executable]:
    """A program of npm, started by node itself: its own first line would look for node on PATH again."""

    def find(program: Path) -> Executable:
        script = program.resolve()
        modules = _modules(script)
        if node is None or script.suffix not in {".js", ".mjs", ".cjs"}:
            return as_it_is(program)
        package = next(
            (up / "package.json" for up in script.parents if (up / "package.json").is_file()), None
        )
        readable = (modules,) if modules is not None else ()
        return Executable(
            argv=(node, str(script)), programs=(Path(node), script), readable=readable, package=package
        )

    return find


def native_beside(*patterns: str) -> Callable[[Path], Executable]:
    """The native program that an npm launcher would start; `{platform}` in a pattern is as npm names it."""

    def find(program: Path) -> Executable:
        real = program.resolve()
        modules = _modules(real)
        for pattern in patterns if modules is not None else ():
            for native in sorted(modules.glob(pattern.format(platform=npm_platform()))) if modules else ():
                if native.is_file():
                    package = next(
                        up / "package.json" for up in native.parents if (up / "package.json").is_file()
                    )
                    return Executable(argv=(str(native),), package=package)
        return as_it_is(program)

    return find


def _modules(script: Path) -> Path | None:
    """The outermost `node_modules` around a program."""
    return next((up for up in reversed(script.parents) if up.name == "node_modules"), None)


def npm_platform() -> str:
    """System and processor as npm names them."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{_CPUS.get(machine, machine)}"
