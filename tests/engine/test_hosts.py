"""What hosts know of each other, and what they keep apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.config.test_settings import loaded
from tests.engine.conftest import Make, fake

from overnight.clock import SystemClock
from overnight.compose import hosts as composed
from overnight.domain.run import Turn
from overnight.domain.states import TurnState
from overnight.engine import hosts
from overnight.engine.hosts import Host
from overnight.errors import StartRefused
from overnight.ids import HostId, WorkerId
from overnight.keeper_protocol import boot_id

pytestmark = pytest.mark.anyio

HERE, THERE = HostId("hst_00000000000000000000000001"), HostId("hst_00000000000000000000000002")
TURN = Turn(
    run_pk=1, number=1, attempt=1, state=TurnState.STARTED, backend="b", token=1, folder="runs/r/turns/1-1",
    started_at=0, first_seq=0,
)  # fmt: skip


def test_a_conversation_is_known_on_the_host_of_its_home_alone() -> None:
    kept = hosts.kept_on(HERE, {"session_id": "x"})
    assert hosts.known_on(HERE, kept) == {"session_id": "x"}
    assert hosts.known_on(THERE, kept) == {}
    assert hosts.kept_on(HERE, {}) == {}
    assert hosts.known_on(THERE, {"session_id": "from before"}) == {"session_id": "from before"}


def test_folders_of_another_host_are_seen_only_where_they_are(tmp_path: Path) -> None:
    here = Host(id=THERE, name="n", data_dir=str(tmp_path), boot_id=boot_id())
    assert hosts.folder_here(here, TURN) is None
    (tmp_path / "host.json").write_text(f'{{"host_id": "{THERE}"}}', encoding="utf-8")
    assert hosts.folder_here(here, TURN) == tmp_path / TURN.folder
    assert hosts.folder_here(replace(here, boot_id="another machine"), TURN) is None
    assert hosts.folder_here(replace(here, boot_id=""), TURN) is None
    (tmp_path / "host.json").write_text(f'{{"host_id": "{HERE}"}}', encoding="utf-8")
    assert hosts.folder_here(here, TURN) is None
    for broken in ("", "[]", "{}", "\x00"):
        (tmp_path / "host.json").write_text(broken, encoding="utf-8")
        assert hosts.id_in(tmp_path) is None


async def test_a_host_is_made_once_and_told_to_the_others(rig: Make, tmp_path: Path) -> None:
    server = await rig(fake())
    clock = SystemClock()
    settings = replace(
        loaded(tmp_path, OVERNIGHT_DATABASE_URL="postgresql://h/d"), data_dir=tmp_path / "data-of-another"
    )
    settings.data_dir.mkdir()
    made = await composed.host_id(settings, server.store, clock)
    assert await composed.host_id(settings, server.store, clock) == made == hosts.id_in(settings.data_dir)
    await composed.announce(settings, server.store, made, clock, stale_s=30)
    known = await server.store.read(lambda tx: hosts.recall(tx, made))
    assert known is not None
    assert known.data_dir == str(settings.data_dir)
    assert made in await server.store.read(lambda tx: hosts.name_of(tx, made))
    assert await server.store.read(lambda tx: hosts.recall(tx, THERE)) is None


async def test_a_copy_of_a_data_directory_is_refused_while_the_other_machine_works(
    rig: Make, tmp_path: Path
) -> None:
    server = await rig(fake())
    me, clock = server.shop.worker, SystemClock()
    settings = loaded(tmp_path, OVERNIGHT_DATABASE_URL="postgresql://h/d")
    await composed.announce(settings, server.store, me.host_id, clock, stale_s=-1)
    await composed.announce(settings, server.store, me.host_id, clock, stale_s=30)  # this very machine
    known = await server.store.read(lambda tx: hosts.recall(tx, me.host_id))
    assert known is not None
    await server.store.write(lambda tx: hosts.remember(tx, replace(known, boot_id="of the other")))
    twin = replace(me, id=WorkerId(me.id[:-1] + "0"), host_name="another", seen_at=clock.wall_ms())
    await server.store.write(lambda tx: tx.workers.add(twin))
    with pytest.raises(StartRefused, match="works as host") as refused:
        await composed.announce(settings, server.store, me.host_id, clock, stale_s=30)
    assert "host.json" in refused.value.mend
    await composed.announce(settings, server.store, me.host_id, clock, stale_s=-1)  # it has been silent


async def test_a_database_that_knows_its_host_keeps_it(rig: Make, tmp_path: Path) -> None:
    server = await rig(fake())
    clock = SystemClock()
    settings = replace(loaded(tmp_path), data_dir=tmp_path / "d")
    settings.data_dir.mkdir()
    await server.store.write(lambda tx: tx.installation.put("host_id", str(THERE)))
    assert await composed.host_id(settings, server.store, clock) == THERE
    assert hosts.id_in(settings.data_dir) == THERE
