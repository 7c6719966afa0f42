"""Where a server answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Base URL of a server, without a path, and the token that it wants."""

    url: str
    token: str = field(repr=False)
    certificate: Path | None = None
    """Trust exactly this certificate, whatever names it has: for the server of this machine, whose file it is."""


Locate = Callable[[], Endpoint | None]
"""Finds the server anew after a failure, since a restarted one may listen elsewhere; None: there is none now."""
