"""How the operator configured one backend. Handed over by the composition; nothing here reads the environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from overnight.domain.backend import Problem
from overnight.errors import BackendFailure
from overnight.ports.backend import TurnStart

Login = Literal["none", "user"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAccess:
    """How the built-in agent's own process reaches the server that has its models and tools."""

    endpoint: str
    """`unix:/path`, `ws://…` or `wss://…`."""
    token: Callable[[str, int, int], str]
    """The token for that attempt at that turn of that run (id, turn, attempt); good for as long as it is the latest."""
    readable: tuple[Path, ...] = ()
    """What a sandbox must not hide: the folder of the unix socket."""
    problems: Callable[[], tuple[Problem, ...]] = tuple
    """Why no model would answer now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSettings:
    """One `[backends.NAME]` table, and the two facts of the host that go with it."""

    name: str
    program: Path | None = None
    """The executable; None: the backend's own name, found on PATH."""
    command: tuple[str, ...] = ()
    """The whole argv of a program of the operator's own."""
    args: tuple[str, ...] = ()
    """Added behind the arguments that the adapter makes, so that they win."""
    environment: Mapping[str, str] = field(default_factory=dict)
    login: Login = "none"
    model: str | None = None
    """For runs that name none."""
    host: Mapping[str, str] = field(default_factory=dict)
    """The environment of the server itself; only what is known to be harmless is passed on."""
    user_home: Path | None = None
    """Where the user's own logins are."""
    access: AgentAccess | None = None
    """Of the built-in agent; None: there is no server that it could reach."""
    homes: Path | None = None
    """The folder in which the homes of (session, backend) lie; preflights make a trial home there."""

    @property
    def preflight_home(self) -> Path | None:
        """HOME of preflights: programs that unpack themselves at their first start do so there, once for all."""
        return None if self.homes is None else self.homes.with_name("preflight")

    def find(self, default: str) -> Path | None:
        """The executable's absolute path, or None when it is not there or may not be executed."""
        wanted = str(self.program or (self.command[0] if self.command else default))
        found = shutil.which(wanted, path=self.environment.get("PATH") or self.host.get("PATH") or os.defpath)
        return None if found is None else Path(found).absolute()

    def need(self, default: str) -> Path:
        """`find`, or BackendFailure `program_missing`."""
        found = self.find(default)
        if found is None:
            wanted = self.program or (self.command[0] if self.command else default)
            raise BackendFailure(
                f"the program {wanted} of backend {self.name} is not there or may not be executed",
                code="program_missing",
                retryable=False,
                mend=f"install it, or set program in [backends.{self.name}]",
            )
        return found


# What every program may know of the host. Credentials are not among them: an adapter names those it needs.
_PASSED = (
    "PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "TMPDIR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
)  # fmt: skip

# A workspace's .git/config can name programs that plain `git status` runs. Values given by environment go before it.
_GIT: Mapping[str, str] = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.pager": "cat",
    "core.sshCommand": "ssh",
    "credential.helper": "",
}


def base_environment(settings: ProgramSettings, start: TurnStart) -> dict[str, str]:
    """The environment that all programs get: harmless host variables, our HOME, the run's, then the operator's own."""
    found = host_environment(settings)
    # Python holds its output back when it writes to a pipe, and nothing would be seen before the end.
    found |= {"PYTHONUNBUFFERED": "1", "HOME": str(start.home), **_git_environment()}
    return found | dict(start.environment) | dict(settings.environment)


def turn_environment(start: TurnStart) -> dict[str, str]:
    """What tells a program which turn it is, under which fencing token, and what confines it."""
    return {
        "OVERNIGHT_RUN_ID": start.run_id,
        "OVERNIGHT_TURN": str(start.turn),
        "OVERNIGHT_ATTEMPT": str(start.attempt),
        "OVERNIGHT_FENCE": str(start.token),
        "OVERNIGHT_SANDBOX": start.sandbox,
    }


def host_environment(settings: ProgramSettings) -> dict[str, str]:
    """The variables of the host that any program may have."""
    found = {name: settings.host[name] for name in _PASSED if name in settings.host}
    found |= {name: value for name, value in settings.host.items() if name.startswith("LC_")}
    return {"PATH": os.defpath} | found


def _git_environment() -> dict[str, str]:
    found = {"GIT_CONFIG_COUNT": str(len(_GIT)), "GIT_TERMINAL_PROMPT": "0"}
    for at, (key, value) in enumerate(_GIT.items()):
        found |= {f"GIT_CONFIG_KEY_{at}": key, f"GIT_CONFIG_VALUE_{at}": value}
    return found


def lend(settings: ProgramSettings, source: str, target: Path) -> tuple[Path, ...]:
    """Link the user's own credential file `source` (relative to the user's home) to `target`, when `login` says so.

    A link and not a copy: programs renew their tokens in place, and a copy would go stale on both sides. Returns the
    file that is lent, for `Command.writable`.
    """
    if settings.login != "user" or settings.user_home is None:
        return ()
    real = settings.user_home / source
    if target.parent.is_symlink():
        target.parent.unlink()  # the agent's doing: the link below would be made wherever it leads
    if real.is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.unlink(missing_ok=True)
        target.symlink_to(real)
    return (real,) if real.is_file() else ()
