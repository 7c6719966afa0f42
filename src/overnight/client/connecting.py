"""A connection that is reset as it is made is one that could not be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2


@contextmanager
def connecting() -> Iterator[None]:
    """Put this around a request. Raises httpx2.ConnectError, and nothing was sent, where the peer was that quick.

    uvloop has forgotten the socket by then, and anyio, which asks it for its peer, stumbles over that.
    """
    try:
        yield
    except AttributeError as error:
        if error.obj is not None or error.name != "getpeername":
            raise
        raise httpx2.ConnectError("the connection was reset as it was made") from None
