"""Only the holder of the highest token gives orders, and only who knows the turn's secret holds one at all."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from tests.keeper.harness import Place, lives

from overnight.backends.process.adoption import attach
from overnight.backends.process.channel import Channel, Refused, connect
from overnight.backends.process.keys import TurnSecrets
from overnight.errors import KeeperGone, LeaseLost
from overnight.keeper_protocol import encode

pytestmark = pytest.mark.anyio


async def test_a_higher_token_takes_over(place: Place) -> None:
    old = await place.launch("/bin/cat")
    new = await place.adopt(old, 5)
    for order in (old.renew(), old.send_stdin(1, b"x"), old.close_stdin(), old.ladder(), old.release()):
        with pytest.raises(LeaseLost):
            await order
    while old.view.link == "up":
        await old.changed(old.view)
    assert old.view.link == "superseded"
    with pytest.raises(LeaseLost):
        await old.ended()
    with pytest.raises(LeaseLost):
        await place.attach(place.turns[0], 4)
    await new.renew()
    same = await place.adopt(new, 5)
    await same.close_stdin()
    assert (await same.ended()).exit_code == 0
    assert (await new.ended()).exit_code == 0


async def test_a_stopped_holder_finds_out_when_it_wakes(place: Place) -> None:
    """As if a server had slept past its lease: its orders wait in the socket until after the takeover."""
    old = await place.launch("/bin/sleep", "600")
    os.kill(old.identity.pid, signal.SIGSTOP)
    late = asyncio.ensure_future(old.ladder())
    taking = asyncio.ensure_future(place.adopt(old, 2))
    await asyncio.sleep(0)
    os.kill(old.identity.pid, signal.SIGCONT)
    new = await taking
    await asyncio.wait([late])
    # Whichever came first was in its right; a late order under the old token does nothing.
    if isinstance(late.exception(), LeaseLost):
        assert new.view.record is None
        await new.ladder()
    assert (await new.ended()).reason == "stopped"


async def test_without_the_secret_nothing_can_be_asked(place: Place, tmp_path: Path) -> None:
    turn = await place.launch("/bin/sleep", "600")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(Refused) as refused:
        await attach(place.turns[0], 9, TurnSecrets(elsewhere), place.data_dir)
    assert refused.value.reason == "bad_secret"
    channel = await Channel.over(await connect(turn.identity.socket))
    channel.write({"type": "ladder", "id": 1, "token": 1, "reason": "stopped"})
    with pytest.raises(Refused) as refused:
        await channel.first(30)
    assert refused.value.reason == "bad_secret"
    with pytest.raises(KeeperGone):
        await channel.first(30)
    channel.close()
    await turn.renew()
    assert turn.view.record is None


async def test_an_unknown_version_is_refused(place: Place) -> None:
    turn = await place.launch("/bin/sleep", "600")
    channel = await Channel.over(await connect(turn.identity.socket))
    secret = place.spawner.secrets.of(turn.identity.nonce)
    channel.write({"type": "hello", "id": 1, "token": 2, "secret": secret, "versions": [99]})
    with pytest.raises(Refused) as refused:
        await channel.first(30)
    assert refused.value.reason == "no_common_version"
    channel.close()
    await turn.renew()


@pytest.mark.parametrize(
    "line", [b"\n", b"{}\n", b"[1]\n", b"nonsense\n", b'{"type":"hello"}\n', b"\xff\xfe\n"]
)
async def test_nonsense_is_answered_and_harms_nobody(place: Place, line: bytes) -> None:
    turn = await place.launch("/bin/sleep", "600")
    sock = await connect(turn.identity.socket)
    sock.setblocking(True)
    sock.sendall(line)
    assert b"bad_message" in sock.recv(4096)
    sock.close()
    spawner = socket.socket(socket.AF_UNIX)
    spawner.connect(next(str(path) for path in place.runtime_dir.glob("s-*.sock")))
    spawner.sendall(line + encode({"type": "launch", "versions": [1], "turn_folder": "/"}))
    assert b"bad_message" in spawner.recv(4096)
    spawner.close()
    await turn.renew()
    assert lives(place.spawner_pid())


async def test_a_client_that_stops_reading_is_let_go(place: Place) -> None:
    """It misses nothing: what it is told next is where everything stands."""
    turn = await place.launch("/bin/sh", "-c", "cat; sleep 600")
    sock = await connect(turn.identity.socket)
    sock.setblocking(True)
    secret = place.spawner.secrets.of(turn.identity.nonce)
    sock.sendall(encode({"type": "hello", "id": 1, "token": 1, "secret": secret, "versions": [1]}))
    for number in range(1, 2000):
        await turn.send_stdin(number, b"a line of text\n")
    await turn.close_stdin()
    view = turn.view
    while view.stdout < 1999 * 15:
        view = await turn.changed(view)
    assert view.stdout == (place.turns[0] / "stdout").stat().st_size
    sock.close()
