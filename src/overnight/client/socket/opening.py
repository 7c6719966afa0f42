"""Opening a WebSocket: the network first, then the handshake, each with its deadline. No proxy, no redirect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from overnight.client.problems import error_of
from overnight.client.socket.target import SUBPROTOCOL, Address, Target
from overnight.errors import HandshakeFailed, OvernightError, Unreachable

MAX_MESSAGE: Final = 1024 * 1024
"""Bytes of one message, either way."""
_QUEUE: Final = 16
"""Messages that have been read and not yet been asked for; then reading pauses."""
_LONGEST_NAME: Final = 100
_LOGGER: Final = logging.getLogger("websockets.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long, in seconds, a peer is waited for before it counts as dead."""

    connect_s: float = 10.0
    """Until the network connection is there."""
    handshake_s: float = 10.0
    """Then until the handshake is answered."""
    ping_s: float = 20.0
    """It is pinged this often,"""
    pong_s: float = 20.0
    """and is dead when it does not answer for so long."""
    send_s: float = 30.0
    """A message must have been taken by then."""
    close_s: float = 5.0
    """Until it has answered a close."""


async def opened(target: Target, patience: Patience, max_message: int) -> ClientConnection:
    """A connection whose handshake is done. Raises what `SocketTransport.connect` says."""
    address = target.address
    made = await _network(target, address, patience, max_message)
    try:
        async with asyncio.timeout(patience.handshake_s):
            await made.handshake(_headers(target))
        if made.subprotocol != SUBPROTOCOL:
            raise HandshakeFailed(f"the server at {address.uri} does not speak {SUBPROTOCOL}")
    except TimeoutError:
        made.transport.abort()
        raise Unreachable(f"{address.uri} does not answer the handshake") from None
    except (InvalidHandshake, OSError, EOFError) as error:
        made.transport.abort()
        raise _failure(error, address) from None
    except BaseException:
        made.transport.abort()
        raise
    made.start_keepalive()
    return made


async def _network(
    target: Target, address: Address, patience: Patience, max_message: int
) -> ClientConnection:
    def connection() -> ClientConnection:
        protocol = ClientProtocol(
            parse_uri(address.uri), subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=max_message,
            logger=_LOGGER,
        )  # fmt: skip
        return ClientConnection(
            protocol, ping_interval=patience.ping_s, ping_timeout=patience.pong_s,
            close_timeout=patience.close_s, max_queue=_QUEUE,
        )  # fmt: skip

    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience.connect_s):
            if address.unix is not None:
                with _short(address.unix) as name:
                    _, made = await loop.create_unix_connection(connection, name)
            else:
                secure = _trust(target) if address.secure else None
                _, made = await loop.create_connection(connection, address.host, address.port, ssl=secure)
    except (OSError, TimeoutError) as error:
        raise _unreachable(error, address) from None
    if address.unix is None:
        made.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _headers(target: Target) -> dict[str, str]:
    return {} if target.token is None else {"Authorization": f"Bearer {target.token}"}


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of that listener which the system takes: it has room for about 100 bytes."""
    if len(os.fsencode(path)) < _LONGEST_NAME:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _trust(target: Target) -> ssl.SSLContext:
    """Whose word counts for it that the server is the one that it says it is."""
    context = ssl.create_default_context(cafile=target.certificate)
    if target.certificate is not None:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _unreachable(error: OSError, address: Address) -> Unreachable:
    where = address.unix or address.uri
    why = "nobody answers in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Unreachable(f"{where}: {why}", mend="check the address, or start a server with: overnight up")


def _failure(error: Exception, address: Address) -> OvernightError:
    """What the server said, if it was ours and refused; else that there was no handshake."""
    if isinstance(error, InvalidStatus):
        response = error.response
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("application/problem+json"):
            return error_of(response.status_code, bytes(response.body or b""))
        return HandshakeFailed(f"{address.uri} answers {response.status_code} and opens no socket")
    if isinstance(error, InvalidMessage | OSError | EOFError):
        return HandshakeFailed(f"{address.uri} does not answer as a web server does")
    return HandshakeFailed(f"{address.uri} does not answer as the protocol wants: {error}")
