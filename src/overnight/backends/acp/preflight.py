"""Whether an ACP agent is ready here: program, version, key or login."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from overnight.backends.acp.agent import Agent, Credentials
from overnight.backends.acp.shapes import as_object
from overnight.backends.process.findings import Findings, there, told_version, weigh
from overnight.backends.process.probe import Version, ask_with_key, version_in
from overnight.backends.process.settings import ProgramSettings
from overnight.domain.backend import BackendCheck


def credentials_of(settings: ProgramSettings, agent: Agent) -> dict[str, str]:
    """Keys and addresses from the server's environment; the operator's table goes before it."""
    if agent.credentials is None:
        return {}
    names = (*agent.credentials.keys, *agent.credentials.passed)
    found = {name: settings.host[name] for name in names if settings.host.get(name)}
    return found | {name: value for name, value in settings.environment.items() if name in names}


async def preflight(settings: ProgramSettings, agent: Agent, *, now_ms: int, stamp: str) -> BackendCheck:
    """The whole check: up to two seconds, and eight more when the model service does not answer."""
    findings = Findings()
    program = await _look_at_program(findings, settings, agent)
    if program is not None and (why := agent.unfit(program)) is not None:
        mend = f"set program in [backends.{settings.name}] to another one; see docs/backends.md"
        findings.fail("program_unfit", why, mend)
    elif program is not None and agent.credentials is not None:
        await _look_at_key(findings, settings, agent, agent.credentials)
    findings.fails.extend(agent.problems())
    return findings.check(settings.name, agent.capabilities, now_ms=now_ms, stamp=stamp)


async def _look_at_program(findings: Findings, settings: ProgramSettings, agent: Agent) -> Path | None:
    program = there(findings, settings, agent.program)
    if program is None or agent.versions is None:
        return program
    if agent.version_from_package:
        version = _packaged(agent, program)
        if version is None:
            findings.warn("version_unknown", f"{program} does not tell its version", "install it with npm")
            return program
    else:
        version = await told_version(findings, settings, program, agent.find(program).argv)
        if version is None:
            return None
    weigh(findings, version, *agent.versions)
    return program


def _packaged(agent: Agent, program: Path) -> Version | None:
    """The version that npm knows; a program that came another way has none."""
    package = agent.find(program).package
    try:
        told = json.loads(package.read_text(encoding="utf-8")) if package is not None else {}
    except (OSError, ValueError):
        return None
    return version_in(str(as_object(told).get("version", "")))


async def _look_at_key(
    findings: Findings, settings: ProgramSettings, agent: Agent, wanted: Credentials
) -> None:
    known = credentials_of(settings, agent)
    asked = wanted.probe(known)
    if asked is not None:
        await _ask(findings, settings, wanted, *asked)
    elif not any(name in known for name in wanted.keys) and not _lent(settings, wanted):
        keys = " or ".join(wanted.keys)
        mend = f'set {keys} for the server, or log in and set login = "user" in [backends.{settings.name}]'
        say = findings.fail if wanted.needed and not settings.args else findings.warn
        say("login_missing", f"there is neither a key nor a login for {agent.title}", mend)


async def _ask(
    findings: Findings, settings: ProgramSettings, wanted: Credentials, url: str, headers: Mapping[str, str]
) -> None:
    if settings.args and "base_url" in " ".join(settings.args):
        return  # the operator's own service, which is told only to the program
    answer, said = await ask_with_key(url, headers)
    if answer == "refused":
        mend = f"put a valid key into {' or '.join(wanted.keys)}"
        findings.fail("key_refused", f"the key is not accepted: {said}", mend)
    elif answer == "unknown":
        findings.warn("service_unverified", said, "check the network and the service's address")


def _lent(settings: ProgramSettings, wanted: Credentials) -> bool:
    if settings.login != "user" or settings.user_home is None:
        return False
    return any((settings.user_home / path).is_file() for path in wanted.logins)
