"""What a setting is, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text", "secret", "choice", "count", "seconds", "hours", "days", "bytes", "switch",
    "path", "paths", "names", "address", "url", "table",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: `key` is its dotted place in `overnight.toml`, `variable` its environment variable, if any."""

    key: str
    kind: Kind
    default: str | None
    """As it would be written in the environment; None: no value."""
    description: str
    variable: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
