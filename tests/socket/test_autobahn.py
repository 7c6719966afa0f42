"""The Autobahn cases, run by kosoku against the server's WebSocket as the product configures it."""

import kosoku
import pytest
from kosoku import FailureError
from tests.socket.echo import echoing

from overnight.server.serve import MAX_MESSAGE

pytestmark = pytest.mark.anyio

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.1.2", "9.2.1", "9.2.2", "9.5.6", "10.*"]
"""All but those that measure speed, and those of compression, which the server does not offer."""
KNOWN = {"7.1.5"}
"""A close between two fragments is answered with 1002: the message that was begun can never be whole. The case wants
1000, as if nothing had been begun.
"""
TOO_LONG = ["9.1.4", "9.2.4"]
"""Messages of 4 MiB."""


async def results(port: int, cases: list[str], *, at_once: int) -> dict[str, kosoku._kosoku.CaseResult]:
    try:
        found = await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, None, at_once)
    except FailureError as failure:
        found = failure.results
    return {case.case_id: case for case in found}


async def test_every_case_passes_but_the_known_one() -> None:
    async with echoing() as port:
        found = await results(port, CASES, at_once=4)
        failed = {name for name, case in found.items() if not case.passed}
        for _ in range(3):
            # Each case has a clock of its own, which a busy machine may outrun: what fails by itself fails again.
            failed = {
                name
                for again in sorted(failed)
                for name, case in (await results(port, [again], at_once=1)).items()
                if not case.passed
            }
    assert len(found) > 200
    assert failed == KNOWN
    assert found["7.1.5"].remote_close_code == 1002


async def test_messages_above_the_limit_are_refused_as_too_long() -> None:
    async with echoing() as port:
        found = await results(port, TOO_LONG, at_once=2)
    assert MAX_MESSAGE < 4 << 20
    assert {name: case.remote_close_code for name, case in found.items()} == dict.fromkeys(TOO_LONG, 1009)
