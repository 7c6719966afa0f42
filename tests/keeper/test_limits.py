"""A keeper holds its agent to the limits by its own clock, whoever lives or does not."""

import pytest
from tests.keeper.harness import PYTHON, Place, lives, numbers
from tests.keeper.test_ladder import DEAF

from overnight.clock import SystemClock
from overnight.keeper_protocol import Interrupt
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio
boot = SystemClock().boot

CHATTY = "import os\nfor _ in range(1000): os.write(1, b'x' * 1000); os.write(2, b'y' * 1000)\nprint('end')"


async def after(seconds: float) -> None:
    """So much time of the keepers' clock has passed."""
    until = boot() + seconds
    await eventually(lambda: boot() > until)


async def test_the_deadline_ends_the_turn(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "600", deadline=boot() + 0.2)
    await turn.close()
    again = await place.adopt(turn, 2)
    record = await again.ended()
    assert record.reason == "deadline"


async def test_a_deadline_can_be_moved(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "600", deadline=boot() + 600)
    await turn.renew(deadline=boot())
    assert (await turn.ended()).reason == "deadline"


async def test_an_agent_that_nobody_renews_is_ended(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "600", orphan_deadline=boot() + 0.2)
    assert (await turn.ended()).reason == "fenced"


async def test_renewing_keeps_it_alive(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "600", orphan_deadline=boot() + 600)
    for later in (600.0, None):
        first = boot() + 1.5
        await turn.renew(orphan_deadline=first)
        await turn.renew(orphan_deadline=later and boot() + later)
        await after(first + 0.2 - boot())
        await turn.renew()
        assert turn.view.record is None


@pytest.mark.parametrize("limit", [0, 1, 65_536, 700_001])
async def test_exactly_the_allowed_output_is_kept(place: Place, limit: int) -> None:
    turn = await place.launch(*PYTHON, CHATTY, output_bytes=limit, grace_s=5)
    record = await turn.ended()
    assert record.reason == "output_limit"
    assert record.stdout_bytes + record.stderr_bytes == limit
    sizes = [(place.turns[0] / name).stat().st_size for name in ("stdout", "stderr")]
    assert sizes == [record.stdout_bytes, record.stderr_bytes]
    assert record.discarded_bytes > 0


async def test_output_up_to_the_limit_is_no_offence(place: Place) -> None:
    turn = await place.launch(*PYTHON, CHATTY, output_bytes=2_000_004)
    record = await turn.ended()
    assert (record.reason, record.discarded_bytes) == ("exit", 0)
    assert record.stdout_bytes + record.stderr_bytes == 2_000_004


async def test_too_many_processes_end_the_turn(place: Place) -> None:
    code = (
        "import os, time\n"
        "for _ in range(30):\n"
        "    child = os.fork()\n"
        "    if child == 0: time.sleep(600)\n"
        "    os.write(1, b'%d\\n' % child)\n"
        "time.sleep(600)"
    )
    turn = await place.launch(*PYTHON, code, children=20)
    record = await turn.ended()
    assert record.reason == "children_limit"
    assert not any(map(lives, numbers(turn, 10)))


async def test_as_many_processes_as_allowed_are_fine(place: Place) -> None:
    code = "import os, time\nfor _ in range(20):\n    if os.fork() == 0: time.sleep(0.3); os._exit(0)\ntime.sleep(0.4)"
    turn = await place.launch(*PYTHON, code, children=20)
    assert (await turn.ended()).reason == "exit"


async def test_a_deadline_hurries_a_ladder_that_takes_its_time(place: Place) -> None:
    turn = await place.launch(*PYTHON, DEAF, deadline=boot() + 600, grace_s=0.1)
    numbers(turn, 1)
    await turn.ladder(interrupt=Interrupt(signal=2, wait_s=600), grace_s=600)
    await turn.renew(deadline=boot())
    record = await turn.ended()
    assert (record.reason, record.signal) == ("stopped", 9)
    assert [step.name for step in record.steps] == ["interrupt", "sigterm", "sigkill"]
