"""How much is shown in which time, and what is made good of a time without a recorder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain import update as u
from overnight.domain.redaction import Redactor
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.interpreter import Interpreter
from overnight.engine.telemetry.output import CHUNKS_A_SECOND, CREDIT_S
from overnight.engine.telemetry.rates import Slots


def interpreter(away_s: float) -> Interpreter:
    return Interpreter(
        wall_ms=lambda: 5, redactor=Redactor([]), files=FileLedger("/w", watched=False), unrecorded_s=away_s
    )


def printed(line: bytes) -> u.Output:
    return u.Output(stream="stdout", data=line, total=None)


@pytest.mark.parametrize("away_s, whole", [(0.0, False), (15.0, True), (600.0, True)])
def test_what_was_printed_while_nobody_recorded_comes_at_once(away_s: float, whole: bool) -> None:
    lines = [b"printed while no server was there: %d\n" % number for number in range(5000)]
    taking = interpreter(away_s)
    drafts = [draft for at, line in enumerate(lines) for draft in taking.feed(printed(line), at / 1e6)]
    drafts += taking.finish(0.1)
    shown = "".join(str(draft.data["text"]) for draft in drafts)
    assert (shown == b"".join(lines).decode()) is whole
    assert (taking.summary().truncated_bytes == 0) is whole


def test_it_is_bounded_however_long_nobody_was_there() -> None:
    taking = interpreter(1e9)
    drafts = [draft for _ in range(2000) for draft in taking.feed(printed(b"x" * 2000 + b"\n"), 1.0)]
    drafts += taking.finish(1.1)
    assert len(drafts) <= (CREDIT_S + 1) * CHUNKS_A_SECOND + 2
    assert taking.summary().truncated_bytes > 0


@given(
    st.integers(0, 30),
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 8)), max_size=40),
)
def test_credit_is_given_once_and_the_rate_holds_beyond_it(
    credit: int, asked: list[tuple[float, int]]
) -> None:
    slots, now, taken = Slots(10, credit=credit), 0.0, []
    for wait, count in asked:
        now += wait
        if slots.free(now) >= count:
            assert slots.at(count, now) == now
            slots.take(now, count)
            taken += [now] * count
        elif count <= 10 + slots.credit:
            now = slots.at(count, now) + 1e-9
            assert slots.free(now) >= count
    beyond = taken[credit:]
    assert all(sum(at - 1.0 < other <= at for other in beyond) <= 10 for at in beyond)
    assert slots.credit == max(0, credit - len(taken))
