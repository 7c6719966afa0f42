"""The server's WebSocket before a third-party judge."""

import pytest
from tests.socket.autobahn import COMPRESSION, KNOWN, SPEED, TOO_LONG, is_failed, judged

from overnight.server.serve import MAX_MESSAGE

pytestmark = pytest.mark.anyio


async def test_every_case_passes_but_the_known_one() -> None:
    found = await judged(None, without=[*COMPRESSION, *SPEED, *TOO_LONG])
    assert len(found) > 245
    assert {name for name, case in found.items() if is_failed(case)} == KNOWN
    assert found["7.1.5"].remote_close_code == 1002


async def test_messages_above_the_limit_are_refused_as_too_long() -> None:
    assert MAX_MESSAGE == 1 << 20
    found = await judged(["9.1.4", "9.2.4", "9.4.1"])
    assert {case.remote_close_code for case in found.values()} == {1009}
