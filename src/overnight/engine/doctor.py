"""What is right and wrong with this installation, each finding with how to mend it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from overnight.engine.directory import Backends

Status = Literal["ok", "warn", "fail"]
_RANK: Final[Mapping[Status, int]] = {"ok": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    message: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """The wire's doctor entry."""
        return {"name": self.name, "status": self.status, "message": self.message, "mend": self.mend}


Look = Callable[[], Awaitable[Finding]]


class Doctor:
    """Looks at everything at once. `looks` are the facts of the host, the store and the process layer."""

    def __init__(self, looks: Sequence[Look], backends: Backends) -> None:
        self._looks = looks
        self._backends = backends

    async def report(self) -> dict[str, object]:
        """`{status, checks}`: the worst status of the host's own facts, and every finding.

        A backend that is not ready is a warning here: nobody needs all of them.
        """
        findings = list(await asyncio.gather(*(look() for look in self._looks)))
        worst = max((finding.status for finding in findings), key=_RANK.__getitem__, default="ok")
        findings += await asyncio.gather(*(self._backend(name) for name in self._backends.names()))
        return {"status": worst, "checks": [finding.to_json() for finding in findings]}

    async def _backend(self, name: str) -> Finding:
        check = await self._backends.check(name)
        if not check.problems:
            return Finding(name=f"backend {name}", status=check.status, message=check.version or "ready")
        first = check.problems[0]
        status: Status = "warn" if check.status == "fail" else check.status
        return Finding(name=f"backend {name}", status=status, message=first.message, mend=first.mend)
