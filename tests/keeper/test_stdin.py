"""Numbered messages reach the agent once each, in order, whoever sends them how often."""

import base64

import pytest
from tests.keeper.harness import Place, text

from overnight.backends.process.channel import Refused
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def test_a_message_sent_again_is_written_once(place: Place) -> None:
    turn = await place.launch("/bin/cat")
    assert await turn.send_stdin(1, b"one\n") == 1
    assert await turn.send_stdin(1, b"one again\n") == 1
    assert await turn.send_stdin(2, b"two\n") == 2
    await turn.close()
    again = await place.adopt(turn, 2)
    assert again.state.stdin_last == 2
    for number in range(1, 5):
        await again.send_stdin(number, b"after %d\n" % number)
    await again.close_stdin()
    await again.close_stdin()
    record = await again.ended()
    assert text(again) == "one\ntwo\nafter 3\nafter 4\n"
    assert record.stdin_last == 4


async def test_a_message_out_of_order_is_refused(place: Place) -> None:
    turn = await place.launch("/bin/cat")
    with pytest.raises(Refused) as refused:
        await turn.send_stdin(2, b"two\n")
    assert refused.value.reason == "stdin_gap"
    await turn.close_stdin()
    with pytest.raises(Refused) as refused:
        await turn.send_stdin(1, b"one\n")
    assert refused.value.reason == "stdin_closed"
    await turn.ended()
    assert text(turn) == ""


async def test_the_first_message_comes_with_the_launch(place: Place) -> None:
    prompt = bytes(range(256)) * 4096
    stdin = base64.b64encode(prompt).decode()
    turn = await place.launch("/bin/cat", stdin=stdin, close_stdin=True)
    assert turn.state.stdin_last == 1
    record = await turn.ended()
    assert (place.turns[0] / "stdout").read_bytes() == prompt
    assert record.stdin_last == 1


async def test_an_agent_that_does_not_read_deafens_nobody(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "600")
    piece = b"x" * 8_000_000
    for number in range(1, 9):
        await turn.send_stdin(number, piece)
    with pytest.raises(Refused) as refused:
        await turn.send_stdin(9, piece)
    assert refused.value.reason == "stdin_full"
    await turn.ladder()
    assert (await turn.ended()).reason == "stopped"


async def test_a_large_message_arrives_whole(place: Place) -> None:
    turn = await place.launch("/usr/bin/wc", "-c")
    await turn.send_stdin(1, b"y" * 20_000_000)
    await turn.close_stdin()
    await turn.ended()
    assert text(turn).strip() == "20000000"


async def test_an_agent_that_closed_its_stdin_is_no_trouble(place: Place) -> None:
    turn = await place.launch("/bin/sh", "-c", "exec <&-; echo closed; sleep 600")
    await eventually(lambda: text(turn))
    await turn.send_stdin(1, b"nobody reads this\n")
    await turn.renew()
    await turn.ladder()
    assert (await turn.ended()).reason == "stopped"
