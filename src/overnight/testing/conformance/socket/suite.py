"""The checks as a suite for pytest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from overnight.testing.conformance.socket import greeting, streaming
from overnight.testing.conformance.socket.offer import NotOffered, Offer

Check = Callable[[Offer], Awaitable[None]]
CHECKS: Final[tuple[Check, ...]] = (*greeting.CHECKS, *streaming.CHECKS)


@pytest.mark.anyio
class SocketSuite:
    """The contract of `overnight.v1`. Wants a fixture `offer`."""

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_the_server_keeps_to_the_protocol(self, offer: Offer, check: Check) -> None:
        try:
            await check(offer)
        except NotOffered as missing:
            pytest.skip(f"the server offers nothing to judge this by: {missing}")
