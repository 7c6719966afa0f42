"""Whether Codex is ready here: program, version, key or login, sandbox."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from overnight.backends.codex.provider import Provider, key_of, provider_for
from overnight.backends.process.findings import Findings, look_at_program
from overnight.backends.process.probe import ask_with_key, run_short
from overnight.backends.process.settings import ProgramSettings, host_environment
from overnight.domain.backend import BackendCheck, Capabilities

OLDEST, NEWEST = (0, 169, 0), (0, 170, 0)
"""Versions that the codec was tried with: from the first on, before the second."""

CAPABILITIES = Capabilities(
    resume=True,
    interrupt=True,
    usage=True,
    exit_codes=True,
    file_events=True,
    sandbox=("read_only", "workspace_write", "full_access"),
)

UNSANDBOXED = replace(CAPABILITIES, sandbox=("full_access",))
"""On a host where Codex cannot confine commands: with its sandbox on, every command would fail."""

_NO_SANDBOX = frozenset(("sandbox_unavailable", "home_in_temporary_folder"))


async def preflight(settings: ProgramSettings, *, now_ms: int, stamp: str) -> BackendCheck:
    """The whole check: a few hundred milliseconds, up to eight seconds more when a model service does not answer."""
    findings = Findings()
    program = await look_at_program(findings, settings, "codex", oldest=OLDEST, newest=NEWEST)
    if program is not None:
        await _look_at_key(findings, settings, program)
        await _look_at_sandbox(findings, settings, program)
    lacking = any(problem.code in _NO_SANDBOX for problem in findings.warns)
    return findings.check(settings.name, UNSANDBOXED if lacking else CAPABILITIES, now_ms=now_ms, stamp=stamp)


def is_temporary(folder: Path) -> bool:
    """Whether Codex would refuse to keep its helpers there."""
    temporary = {Path(tempfile.gettempdir()), Path("/tmp")}  # noqa: S108  # compared with, not written to
    return any(folder.resolve().is_relative_to(place.resolve()) for place in temporary)


async def _look_at_key(findings: Findings, settings: ProgramSettings, program: Path) -> None:
    provider = provider_for(settings)
    key = key_of(settings, provider)
    if key is not None:
        url = f"{provider.base_url.rstrip('/')}/models"
        answer, said = await ask_with_key(url, {"Authorization": f"Bearer {key}"})
        if answer == "refused":
            mend = f"put a valid key into {provider.key_variable}"
            findings.fail("key_refused", f"the key is not accepted: {said}", mend)
        elif answer == "unknown":
            findings.warn("service_unverified", said, "check the network and the provider's base_url")
    elif provider.built_in and not await _logged_in(settings, program):
        _no_login(findings, settings)
    elif provider.key_variable is not None and not provider.built_in:
        _no_key(findings, settings, provider)


async def _logged_in(settings: ProgramSettings, program: Path) -> bool:
    home = settings.environment.get("CODEX_HOME")
    if home is None and settings.login == "user" and settings.user_home is not None:
        home = str(settings.user_home / ".codex")
    if home is None or not Path(home).is_dir():
        return False
    env = {**host_environment(settings), "HOME": str(Path(home).parent), "CODEX_HOME": home}
    return (await run_short([str(program), "login", "status"], env)).code == 0


def _no_login(findings: Findings, settings: ProgramSettings) -> None:
    findings.fail(
        "login_missing",
        "there is neither a key nor a login for Codex",
        f'set OPENAI_API_KEY for the server, or run `codex login` and set login = "user" in '
        f"[backends.{settings.name}]",
    )


def _no_key(findings: Findings, settings: ProgramSettings, provider: Provider) -> None:
    findings.fail(
        "key_missing",
        f"the provider {provider.id} wants a key in {provider.key_variable}, which is not set",
        f"set {provider.key_variable} for the server, or in environment of [backends.{settings.name}]",
    )


async def _look_at_sandbox(findings: Findings, settings: ProgramSettings, program: Path) -> None:
    if settings.homes is None:
        return
    if is_temporary(settings.homes):
        findings.warn(
            "home_in_temporary_folder",
            f"Codex does not sandbox commands while its homes lie in the temporary folder ({settings.homes})",
            "set OVERNIGHT_DATA_DIR to a folder elsewhere; until then runs work without a sandbox",
        )
        return
    settings.homes.mkdir(mode=0o700, parents=True, exist_ok=True)
    home = tempfile.mkdtemp(prefix=".preflight-", dir=settings.homes)
    try:
        env = {**host_environment(settings), "HOME": home, "CODEX_HOME": home}
        trial = [str(program), "sandbox", "-c", 'sandbox_mode="read-only"', "--", "/bin/sh", "-c", "exit 0"]
        ran = await run_short(trial, env)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if ran.code != 0:
        findings.warn(
            "sandbox_unavailable",
            f"Codex cannot sandbox commands on this host: {(ran.err or ran.out).strip()[-300:]}",
            "allow unprivileged user namespaces (bubblewrap); until then runs work without a sandbox",
        )
