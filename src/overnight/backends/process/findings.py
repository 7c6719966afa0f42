"""Collects what a preflight finds, and looks at what every program has: that it is there, starts, and has a version."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
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
    """Some programs unpack themselves at their first start: into a folder of ours, not into the user's own home."""
    if settings.homes is None:
        with tempfile.TemporaryDirectory(prefix="overnight-preflight-") as fresh:
            yield fresh
        return
    folder = settings.homes.with_name("preflight")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield str(folder)


async def look_at_program(
    findings: Findings, settings: ProgramSettings, default: str, *, oldest: Version, newest: Version
) -> Path | None:
    """The program, when it is there and tells its version; else a problem was noted.

    A version from `oldest` on and before `newest` is one that was tried; another gives a warning only.
    """
    program = settings.find(default)
    table = f"[backends.{settings.name}]"
    if program is None:
        wanted = settings.program or default
        findings.fail(
            "program_missing", f"the program {wanted} was not found", f"install it, or set program in {table}"
        )
        return None
    with _home(settings) as home:
        ran = await run_short([str(program), "--version"], {**host_environment(settings), "HOME": home})
    version = version_in(ran.out)
    if ran.code != 0 or version is None:
        said = (ran.err or ran.out).strip()[-300:]
        findings.fail(
            "program_broken", f"{program} --version gave no version: {said}", "install the program again"
        )
        return None
    findings.version = ".".join(map(str, version))
    if not oldest <= version < newest:
        tried = f"{'.'.join(map(str, oldest))} up to {'.'.join(map(str, newest))}"
        findings.warn(
            "version_untried", f"version {findings.version} was not tried; {tried} were", "install such a one"
        )
    return program


def stamp_of(settings: ProgramSettings, default: str) -> str:
    """Changes whenever the program file or the operator's table does; reads nothing but the file's status."""
    program = settings.find(default)
    facts: list[object] = [program, settings.args, settings.command, settings.login, settings.model]
    if program is not None:
        status = program.stat()
        facts += [status.st_ino, status.st_size, status.st_mtime_ns]
    facts.append(sorted(settings.environment.items()))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
