"""Collects what a preflight finds, and looks at what every program has: that it is there, starts, and has a version."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from overnight.backends.process.probe import Version, run_short, version_in
from overnight.backends.process.settings import ProgramSettings, host_environment
from overnight.domain.backend import BackendCheck, Capabilities, Problem


class Findings:
    """Problems so far; the status of the check follows from them."""

    def __init__(self) -> None:
        self.fails: list[Problem] = []
        self.warns: list[Problem] = []
        self.version: str | None = None

    def fail(self, code: str, message: str, mend: str) -> None:
        """A run would fail."""
        self.fails.append(Problem(code=code, message=message, mend=mend))

    def warn(self, code: str, message: str, mend: str) -> None:
        """A run may fail, or lack something."""
        self.warns.append(Problem(code=code, message=message, mend=mend))

    def check(self, name: str, capabilities: Capabilities, *, now_ms: int, stamp: str) -> BackendCheck:
        """The answer."""
        return BackendCheck(
            name=name,
            status="fail" if self.fails else "warn" if self.warns else "ok",
            version=self.version,
            capabilities=capabilities,
            problems=(*self.fails, *self.warns),
            checked_at=now_ms,
            stamp=stamp,
        )


@contextlib.contextmanager
def _home(settings: ProgramSettings) -> Iterator[str]:
    """Of ours: nothing that a program does at its start is to be found in the user's own home."""
    folder = settings.preflight_home
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="overnight-preflight-") as fresh:
            yield fresh
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield str(folder)


async def look_at_program(
    findings: Findings, settings: ProgramSettings, default: str, *, oldest: Version, newest: Version
) -> Path | None:
    """The program, when it is there and tells its version; else a problem was noted.

    A version from `oldest` on and before `newest` is one that was tried; another gives a warning only.
    """
    program = there(findings, settings, default)
    if program is None:
        return None
    version = await told_version(findings, settings, program, (str(program),))
    if version is None:
        return None
    weigh(findings, version, oldest, newest)
    return program


def there(findings: Findings, settings: ProgramSettings, default: str) -> Path | None:
    """The program; None, and a problem was noted, when it is not there."""
    program = settings.find(default)
    if program is None:
        wanted = settings.program or (settings.command[0] if settings.command else default)
        mend = f"install it, or set program in [backends.{settings.name}]"
        findings.fail("program_missing", f"the program {wanted} was not found", mend)
    return program


async def told_version(
    findings: Findings, settings: ProgramSettings, program: Path, argv: Sequence[str]
) -> Version | None:
    """What `argv --version` tells; None, and a problem was noted, when that is no version."""
    with _home(settings) as home:
        ran = await run_short([*argv, "--version"], {**host_environment(settings), "HOME": home})
    version = version_in(ran.out) if ran.code == 0 else None
    if version is None:
        said = (ran.err or ran.out).strip()[-300:]
        message = f"{program} --version gave no version: {said}"
        findings.fail("program_broken", message, "install the program again")
    return version


def weigh(findings: Findings, version: Version, oldest: Version, newest: Version) -> None:
    """Note the version, and warn when it is not one that was tried."""
    findings.version = ".".join(map(str, version))
    if not oldest <= version < newest:
        tried = f"{'.'.join(map(str, oldest))} up to {'.'.join(map(str, newest))}"
        message = f"version {findings.version} was not tried; {tried} were"
        findings.warn("version_untried", message, "install such a one")


def stamp_of(settings: ProgramSettings, default: str) -> str:
    """Changes whenever the program file or the operator's table does; reads nothing but the file's status."""
    program = settings.find(default)
    facts: list[object] = [program, settings.args, settings.command, settings.login, settings.model]
    if program is not None:
        status = program.stat()
        facts += [status.st_ino, status.st_size, status.st_mtime_ns]
    facts.append(sorted(settings.environment.items()))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
