"""What a backend can do, and what its preflight found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an adapter declares about its agent program."""

    resume: bool = False
    """It continues its own session, so that no history has to be put into the prompt."""
    interrupt: bool = False
    """A turn can be ended early in good order."""
    inject: bool = False
    """Text can be sent into a turn that runs."""
    approvals: bool = False
    deltas: bool = False
    usage: bool = False
    exit_codes: bool = False
    file_events: bool = False
    sandbox: tuple[str, ...] = ()
    """The sandbox levels that hold for it on this host, by itself or by what stands around it."""
    workspace: bool = True
    """Whether it works in the workspace at all: without, there is no watcher and no diff."""
    reserved_environment: tuple[str, ...] = ()
    """Glob patterns of variables that steer the program itself; no run may set them."""

    def missing_sandbox(self, wanted: str) -> bool:
        """Whether a run that asks for this level would work without any sandbox."""
        return wanted != "full_access" and wanted not in self.sandbox

    def to_json(self) -> dict[str, object]:
        """The wire's `capabilities` object."""
        found = asdict(self)
        found["sandbox"] = list(self.sandbox)
        found["reserved_environment"] = list(self.reserved_environment)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that a preflight or doctor found, and how to mend it."""

    code: str
    message: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """The wire's problem entry."""
        return {"code": self.code, "message": self.message, "mend": self.mend}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCheck:
    """The answer of a preflight."""

    name: str
    status: Literal["ok", "warn", "fail"]
    version: str | None = None
    capabilities: Capabilities
    problems: tuple[Problem, ...] = ()
    checked_at: int
    """Wall milliseconds."""
    stamp: str = ""
    """Changes with the program and its configuration: a check with another stamp is stale."""

    def to_json(self, at: str) -> dict[str, object]:
        """The wire's backend check; `at` is `checked_at` in RFC 3339."""
        return {
            "name": self.name,
            "status": self.status,
            "version": self.version,
            "capabilities": self.capabilities.to_json(),
            "problems": [problem.to_json() for problem in self.problems],
            "checked_at": at,
        }
