"""The `[sandbox]` table: what confines agents, and what they may see and reach all the same. The operator's alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from overnight.config.sources import Sources

_HOST: Final = re.compile(
    r"(?P<name>(\*\.)?[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:(?P<port>\d{1,5}|\*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """What the operator decided about the sandbox."""

    mode: Literal["auto", "off"]
    program: Path | None
    network: Literal["on", "off"] | tuple[str, ...]
    """The hosts that may be reached, where it is a list: `host`, `host:port`, `*.host`; without a port, 80 and 443."""
    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    hidden: tuple[Path, ...]


def sandbox(sources: Sources) -> SandboxSettings:
    """The settings of the sandbox. Raises ConfigInvalid."""
    return SandboxSettings(
        mode=cast('Literal["auto", "off"]', sources["sandbox.mode"]),
        program=cast("Path | None", sources["sandbox.program"]),
        network=_network(sources),
        readable=_paths(sources, "readable"),
        writable=_paths(sources, "writable"),
        hidden=_paths(sources, "hidden"),
    )


def _network(sources: Sources) -> Literal["on", "off"] | tuple[str, ...]:
    named = tuple(name.lower() for name in cast("tuple[str, ...]", sources["sandbox.network"]))
    if named == ("on",):
        return "on"
    if named == ("off",):
        return "off"
    for name in named:
        found = _HOST.fullmatch(name)
        if found is None or name in {"on", "off"} or int((found["port"] or "1").replace("*", "1")) > 65_535:
            raise sources.refuse(
                "sandbox.network",
                f"holds {name[:80]!r}, which is no host",
                mend='say "on", "off", or a list of hosts such as ["api.example.com", "*.example.org:443"]',
            )
    if not named:
        raise sources.refuse("sandbox.network", "is an empty list", mend='say "off" for no network at all')
    return named


def _paths(sources: Sources, name: str) -> tuple[Path, ...]:
    return cast("tuple[Path, ...] | None", sources[f"sandbox.{name}"]) or ()
