"""Where a server answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from overnight.errors import ConfigInvalid


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Base URL of a server, without a path, and the token that it wants. Raises ConfigInvalid for another URL."""

    url: str
    token: str = field(repr=False)
    certificate: Path | None = None
    """Trust exactly this certificate, whatever names it has: for the server of this machine, whose file it is."""

    def __post_init__(self) -> None:
        """Refuse what no request could be sent to, and what would be sent in the place of the token."""
        if not _fits(self.url):
            shown = self.url.rpartition("@")[2]
            raise ConfigInvalid(
                f"{shown!r} is not the URL of a server", mend="it looks like http://127.0.0.1:4010"
            )
        if "@" in urlsplit(self.url).netloc:
            raise ConfigInvalid(
                "the URL of the server has a user in it",
                mend="leave that out, and give a token: OVERNIGHT_TOKEN",
            )


def _fits(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a bracket that is not closed, a port that is no number
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and url.isprintable() and " " not in url


Locate = Callable[[], Endpoint | None]
"""Finds the server anew after a failure, since a restarted one may listen elsewhere; None: there is none now."""
