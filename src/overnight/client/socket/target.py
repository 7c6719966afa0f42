"""Where a socket is opened: `ws://`, `wss://`, or `unix:` and the path of a listener on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from overnight.client.endpoint import Endpoint
from overnight.errors import UrlRefused

PATH: Final = "/api/v1/socket"
SUBPROTOCOL: Final = "overnight.v1"
_PORTS: Final = {"ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server's socket, and the token that it wants. Raises UrlRefused for any other URL."""

    url: str
    token: str | None = field(default=None, repr=False)
    """Sent in a header, never in the URL; None: it is said in the first message, or none is wanted."""
    certificate: Path | None = None
    """Trust exactly this certificate, whatever names it has."""

    def __post_init__(self) -> None:
        """Refuse what cannot be connected to, and what would put a token where it does not belong."""
        _ = self.address

    @classmethod
    def of(cls, endpoint: Endpoint) -> Target:
        """The socket of the server that answers at `endpoint`."""
        url = "ws" + endpoint.url.removeprefix("http").rstrip("/") + PATH
        return cls(url=url, token=endpoint.token, certificate=endpoint.certificate)

    @property
    def address(self) -> Address:
        """The URL, taken apart."""
        if self.url.startswith("unix:"):
            path = self.url.removeprefix("unix:")
            if not path.startswith("/") or not path.isprintable():
                raise UrlRefused(
                    f"{self.url!r} names no absolute path", mend="it looks like unix:/run/…/socket"
                )
            return Address(secure=False, host="localhost", port=80, path=PATH, unix=Path(path))
        return _address(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A URL, taken apart."""

    secure: bool
    host: str
    port: int
    path: str
    unix: Path | None = None

    @property
    def uri(self) -> str:
        """As it is asked for. A default port is not named."""
        scheme = "wss" if self.secure else "ws"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}{self.path}"


def _address(url: str) -> Address:
    parts = _split(url)
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        raise UrlRefused(
            f"{_shown(url)!r} is not the URL of a socket",
            mend="it looks like ws://127.0.0.1:4010, wss://nights.example or unix:/run/…/socket",
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UrlRefused(
            "the URL of a socket has neither a user nor a query: it may be written to a log on its way",
            mend="leave that out, and give the token by itself: OVERNIGHT_TOKEN",
        )
    port = parts.port if parts.port is not None else _PORTS[parts.scheme]
    return Address(
        secure=parts.scheme == "wss", host=parts.hostname, port=port,
        path=parts.path if parts.path not in {"", "/"} else PATH,
    )  # fmt: skip


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a bracket that is not closed, a port that is no number
        return None
    return parts if url.isascii() and url.isprintable() and " " not in url else None


def _shown(url: str) -> str:
    """Without what might be a secret."""
    return url.rpartition("@")[2].partition("?")[0].partition("#")[0][:200]
