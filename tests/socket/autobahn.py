"""The Autobahn cases, run by kosoku against the server's WebSocket as the product configures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import kosoku
from kosoku._kosoku import CaseResult
from tests.socket.echo import echoing

KNOWN = {"7.1.5"}
"""A close between two fragments is answered with 1002: the message that was begun can never be whole. The case wants
1000, as if nothing had been begun.
"""
COMPRESSION = ("12.", "13.")
"""The server does not offer it."""
TOO_LONG = ("9.1.4", "9.1.5", "9.1.6", "9.2.4", "9.2.5", "9.2.6", "9.3.", "9.4.")
"""Messages above the server's limit of one MiB."""
SPEED = ("9.3.", "9.4.", "9.5.", "9.6.", "9.7.", "9.8.")
"""Cases that measure."""


async def judged(cases: Sequence[str] | None, *, without: Sequence[str] = ()) -> Mapping[str, CaseResult]:
    """Every case by its number. One that failed is run again, alone: each has a clock of its own, which a busy machine
    may outrun, but what fails by itself fails again.
    """
    leaving_out = [f"{start}*" if start.endswith(".") else start for start in without]
    async with echoing() as port:
        found = await _run(port, cases, leaving_out, at_once=4)
        for _ in range(3):
            for name in [name for name, case in found.items() if is_failed(case)]:
                found |= await _run(port, [name], [], at_once=1)
    return found


def is_failed(case: CaseResult) -> bool:
    """Whether it says that something is wrong; not that something is not offered."""
    return not case.passed and case.behavior.value != "UNIMPLEMENTED"


async def _run(
    port: int, cases: Sequence[str] | None, without: Sequence[str], *, at_once: int
) -> dict[str, CaseResult]:
    try:
        found = await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, without, at_once)
    except kosoku.FailureError as failure:
        found = failure.results
    return {case.case_id: case for case in found}
