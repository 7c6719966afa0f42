"""From what a caller asks for to a run's frozen configuration: defaults filled in, ceilings kept, nonsense refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, get_args

from overnight.clock import from_rfc3339
from overnight.domain.backend import Capabilities
from overnight.domain.completion import Pattern
from overnight.domain.spec import ApprovalPolicy, LimitsSpec, RunSpec, Sandbox
from overnight.engine.directory import Backends
from overnight.engine.policy import RunPolicy
from overnight.engine.whereabouts import Whereabouts
from overnight.errors import (
    AboveCeiling,
    BackendNotReady,
    EnvironmentRefused,
    InvalidInput,
    PolicyUnsupported,
    SandboxUnavailable,
    StopFilePresent,
    UnknownAgent,
    UnknownSecret,
)
from overnight.ports.workspace import Workspaces

MASK: Final = "***"
NEVER: Final = (
    "LD_*", "DYLD_*", "GLIBC_*", "MALLOC_*", "PATH", "HOME", "SHELL", "ENV", "BASH_ENV", "BASH_FUNC_*", "SHELLOPTS",
    "PS4", "IFS", "PROMPT_COMMAND", "CDPATH", "PYTHON*", "NODE_*", "NPM_*", "PERL*", "RUBY*", "JAVA_*", "JDK_*",
    "_JAVA_*", "GIT_*", "SSH_*", "XDG_*", "TMPDIR", "*_PROXY", "*_proxy", "SSL_*", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE", "OVERNIGHT_*",
)  # fmt: skip
"""Variables that steer loaders, interpreters, proxies or Overnight itself: no allow-list opens them to a run."""
LONGEST_VARIABLE: Final = 100_000
"""Bytes. Linux starts no program with a variable of 128 KiB; that would look like the fault of the worker."""
ALWAYS_OPEN: Final = "OVERNIGHT_VAR_*"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A resolved spec and what could not go into it."""

    spec: RunSpec
    """Environment values are masked; the backend and the workspace (where it is a directory) are set."""
    environment: Mapping[str, str]
    workspace: str | None
    chain: tuple[str, ...]
    not_before: int | None
    sandbox_effective: str
    place: str = ""
    """Where it may be carried out, see `domain.placement`; empty: on the host of this server."""


class Admission:
    """Decides whether a run may be accepted."""

    def __init__(
        self, *, policy: RunPolicy, backends: Backends, workspaces: Workspaces,
        whereabouts: Whereabouts | None = None,
    ) -> None:  # fmt: skip
        self.policy = self._policy = policy
        self._backends = backends
        self._workspaces = workspaces
        self._whereabouts = whereabouts

    async def admit(self, spec: RunSpec) -> Admitted:
        """Resolve and check `spec`. Raises an `InvalidInput` or `AboveCeiling` that says what to change."""
        backend = self._backends.get(spec.backend or self._policy.default_backend)
        self._check_mode(spec)
        check_paths(spec)
        for entry in spec.fallback:
            self._backends.get(entry.partition("/")[0])
        effective = self._check_sandbox(spec, backend.capabilities)
        self._check_policy(spec, backend.capabilities)
        check_limits(spec.limits, self._policy.max_limits)
        check_environment(
            spec.environment, self._policy.allow_environment, backend.capabilities.reserved_environment
        )
        self._check_secrets(spec)
        if spec.completion.pattern is not None:
            Pattern(spec.completion.pattern)
        not_before = _moment(spec.not_before)
        self._check_ready(backend.name)
        workspace, chain = await self._place(spec)
        place = "" if self._whereabouts is None else self._whereabouts.place(spec, workspace)
        if self._whereabouts is not None:
            await self._whereabouts.check(place)
        resolved = replace(
            spec, backend=backend.name, environment=dict.fromkeys(spec.environment, MASK),
            workspace=workspace if isinstance(spec.workspace, str) else spec.workspace,
        )  # fmt: skip
        return Admitted(
            spec=resolved, environment=dict(spec.environment), workspace=workspace, chain=chain,
            not_before=not_before, sandbox_effective=effective, place=place,
        )  # fmt: skip

    def _check_mode(self, spec: RunSpec) -> None:
        self._policy.modes.get(spec.mode)
        if spec.agent is not None:
            raise UnknownAgent(f"no agent profile is named {spec.agent!r}", mend="leave `agent` out")

    def _check_sandbox(self, spec: RunSpec, capabilities: Capabilities) -> str:
        _ceiling("sandbox", spec.sandbox, self._policy.max_sandbox, get_args(Sandbox))
        if not capabilities.missing_sandbox(spec.sandbox):
            return spec.sandbox
        if self._policy.require_sandbox:
            raise SandboxUnavailable(
                f"this backend gives no {spec.sandbox} sandbox and the operator requires one",
                mend="choose a backend with a sandbox of its own, or ask the operator to drop runs.require_sandbox",
            )
        return "none"

    def _check_policy(self, spec: RunSpec, capabilities: Capabilities) -> None:
        order = get_args(ApprovalPolicy)
        asked, least = spec.approval_policy, self._policy.min_policy
        if least != "autonomous" and (asked == "autonomous" or order.index(asked) > order.index(least)):
            raise AboveCeiling(f"approval_policy {asked!r} asks less often than the operator's {least!r}")
        if asked != "autonomous" and not capabilities.approvals:
            able = [
                name for name in self._backends.names() if self._backends.get(name).capabilities.approvals
            ]
            mend = f"use one of: {', '.join(able)}" if able else "use approval_policy `autonomous`"
            raise PolicyUnsupported(f"this backend cannot ask, so {asked!r} would mean nothing", mend=mend)

    def _check_secrets(self, spec: RunSpec) -> None:
        for name in spec.secrets:
            if name not in self._policy.secrets:
                raise UnknownSecret(f"the operator holds no secret named {name!r}")

    def _check_ready(self, name: str) -> None:
        check = self._backends.known(name)
        if check is None:
            self._backends.refresh(name)
        elif check.status == "fail":
            problems = [problem.to_json() for problem in check.problems]
            first = check.problems[0] if check.problems else None
            raise BackendNotReady(
                f"{name}: {first.message if first else 'its preflight fails'}",
                mend=first.mend if first else "", extra={"problems": problems},
            )  # fmt: skip

    async def _place(self, spec: RunSpec) -> tuple[str | None, tuple[str, ...]]:
        """The directory named, looked at in a thread. What is made for the run is not there yet."""
        if not isinstance(spec.workspace, str):
            return None, ()
        return await asyncio.to_thread(self._check_workspace, spec.workspace, spec.completion.stop_file)

    def _check_workspace(self, workspace: str, stop_file: str | None) -> tuple[str, tuple[str, ...]]:
        if self._whereabouts is not None and self._whereabouts.leaves_to_worker(workspace):
            return workspace, (workspace,)  # the root's own names will do to lock it
        identity = self._workspaces.check(workspace)
        if stop_file is not None and self._stop_file_is_there(identity.path, stop_file):
            raise StopFilePresent(
                f"{stop_file} is in the workspace already, so the run would end before it began",
                mend=f"remove {stop_file}, or name another completion.stop_file",
            )
        return str(identity.path), identity.chain

    def _stop_file_is_there(self, workspace: Path, relative: str) -> bool:
        return self._workspaces.read_text(workspace, relative, limit=1) is not None


def check_paths(spec: RunSpec) -> None:
    """Raise `InvalidInput` for a file of the workspace that could never be read there, so that nobody waits for it."""
    named = {
        "completion.log": spec.completion.log,
        "completion.stop_file": spec.completion.stop_file,
        "prompt.decision_log": spec.prompt.decision_log,
        "prompt.questions": spec.prompt.questions,
        **{f"prompt.references.{number}": path for number, path in enumerate(spec.prompt.references)},
    }
    for name, path in named.items():
        if path is not None and (path.startswith("/") or "\0" in path or ".." in path.split("/")):
            raise InvalidInput(
                f"{name}: {path[:200]!r} is no path beneath the workspace",
                mend="name it relative to the workspace, without `..`",
            )


def check_limits(limits: LimitsSpec, ceiling: LimitsSpec | None) -> None:
    """Raise `AboveCeiling` naming the first limit that is above the operator's."""
    if ceiling is None:
        return
    for name in (field.name for field in fields(LimitsSpec)):
        most, asked = getattr(ceiling, name), getattr(limits, name)
        if name != "on_spent" and most is not None and (asked is None or asked > most):
            raise AboveCeiling(
                f"limits.{name} is {asked}, the operator allows {most}", mend=f"ask for at most {most}"
            )


def check_environment(
    environment: Mapping[str, str], allowed: tuple[str, ...], reserved: tuple[str, ...]
) -> None:
    """Raise `EnvironmentRefused` for the first variable that may not be set by a run."""
    for name, value in environment.items():
        if not _NAME.fullmatch(name) or "\x00" in value:
            raise EnvironmentRefused(f"{name[:80]!r} cannot be an environment variable")
        if len(name) + len(value.encode()) > LONGEST_VARIABLE:
            raise EnvironmentRefused(
                f"{name[:80]} is longer than {LONGEST_VARIABLE} bytes, with which no program can be started",
                mend="put it into a file of the workspace and name that",
            )
        if any(fnmatchcase(name, pattern) for pattern in reserved):
            raise EnvironmentRefused(f"{name} steers the agent program and is the operator's to set")
        if fnmatchcase(name, ALWAYS_OPEN) and ALWAYS_OPEN in allowed:
            continue
        if any(fnmatchcase(name.upper(), pattern.upper()) for pattern in NEVER):
            raise EnvironmentRefused(
                f"{name} steers loaders, interpreters, proxies or Overnight and is always refused"
            )
        if not any(fnmatchcase(name, pattern) for pattern in allowed):
            raise EnvironmentRefused(
                f"{name} is not on the allow-list", mend=f"allowed: {', '.join(allowed) or 'none'}"
            )


def _ceiling(what: str, asked: str, most: str, order: tuple[str, ...]) -> None:
    if order.index(asked) > order.index(most):
        raise AboveCeiling(
            f"{what} {asked!r} is above the operator's {most!r}", mend=f"ask for {most!r} or less"
        )


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return from_rfc3339(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"not_before: {error}", mend="use RFC 3339 with an offset: 2026-01-31T12:00:00Z"
        ) from None
