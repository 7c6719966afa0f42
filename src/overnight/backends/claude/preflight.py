"""Whether Claude Code is ready here: program, version, key or login."""

from __future__ import annotations

from overnight.backends.process.findings import Findings, look_at_program
from overnight.backends.process.probe import ask_with_key
from overnight.backends.process.settings import ProgramSettings
from overnight.domain.backend import BackendCheck, Capabilities

OLDEST, NEWEST = (2, 1, 100), (2, 2, 0)
"""Versions that the codec was tried with: from the first on, before the second."""

CREDENTIALS = ".credentials.json"
DEFAULT_URL = "https://api.anthropic.com"
_PASSED = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
)
_OTHER_SERVICES = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")

CAPABILITIES = Capabilities(
    resume=True,
    interrupt=True,
    deltas=True,
    usage=True,
    exit_codes=True,
    file_events=True,
    sandbox=("read_only",),
)


def credentials_of(settings: ProgramSettings) -> dict[str, str]:
    """Keys and the service's address from the server's environment; the operator's table goes before it."""
    found = {name: settings.host[name] for name in _PASSED if settings.host.get(name)}
    return found | {name: value for name, value in settings.environment.items() if name in _PASSED}


async def preflight(settings: ProgramSettings, *, now_ms: int, stamp: str) -> BackendCheck:
    """The whole check: half a second, up to eight more when the model service does not answer."""
    findings = Findings()
    program = await look_at_program(findings, settings, "claude", oldest=OLDEST, newest=NEWEST)
    if program is not None and not any(name in settings.environment for name in _OTHER_SERVICES):
        await _look_at_key(findings, settings)
    return findings.check(settings.name, CAPABILITIES, now_ms=now_ms, stamp=stamp)


async def _look_at_key(findings: Findings, settings: ProgramSettings) -> None:
    known = credentials_of(settings)
    if "ANTHROPIC_API_KEY" in known:
        headers = {"x-api-key": known["ANTHROPIC_API_KEY"], "anthropic-version": "2023-06-01"}
    elif "ANTHROPIC_AUTH_TOKEN" in known:
        headers = {
            "Authorization": f"Bearer {known['ANTHROPIC_AUTH_TOKEN']}",
            "anthropic-version": "2023-06-01",
        }
    elif "CLAUDE_CODE_OAUTH_TOKEN" in known or _lent_login(settings):
        # A login cannot be tried without using it up; that it is there is all that can be said.
        return
    else:
        findings.fail(
            "login_missing",
            "there is neither a key nor a login for Claude Code",
            "set ANTHROPIC_API_KEY for the server, or log in with `claude` and set login = "
            f'"user" in [backends.{settings.name}]',
        )
        return
    url = f"{known.get('ANTHROPIC_BASE_URL', DEFAULT_URL).rstrip('/')}/v1/models"
    answer, said = await ask_with_key(url, headers)
    if answer == "refused":
        findings.fail(
            "key_refused", f"the key is not accepted: {said}", "put a valid key into ANTHROPIC_API_KEY"
        )
    elif answer == "unknown":
        findings.warn("service_unverified", said, "check the network and ANTHROPIC_BASE_URL")


def _lent_login(settings: ProgramSettings) -> bool:
    if settings.login != "user" or settings.user_home is None:
        return False
    return (settings.user_home / ".claude" / CREDENTIALS).is_file()
