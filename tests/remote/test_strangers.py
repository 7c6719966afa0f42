"""Workers that come under another's name: another's id, another's host, and what is sent twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.engine.conftest import fake
from tests.remote.conftest import Make
from tests.remote.rig import RemoteRig
from tests.remote.test_hostile_workers import Hostile, hostile, leased

from overnight.domain.token import AccessToken, new_secret
from overnight.errors import Forbidden
from overnight.ids import new_token_id, new_worker_id

pytestmark = pytest.mark.anyio


async def token(server: RemoteRig, name: str) -> AccessToken:
    now = server.clock.wall_ms()
    made = AccessToken(
        pk=0, id=new_token_id(now), owner="usr_local", name=name, kind="worker", digest=new_secret(), created_at=now
    )  # fmt: skip
    return await server.store.write(lambda tx: tx.tokens.add(made))


async def came(server: RemoteRig, name: str) -> Hostile:
    """A worker with a token of its own, on the rig's host."""
    return await hostile(server, (await token(server, name)).pk)


async def test_a_host_belongs_to_the_token_that_is_there(rig: Make) -> None:
    """Else whoever names a host gets the runs that wait for it, and says what its backends can do."""
    server = await rig(fake(), supervise=False)
    first = await came(server, "first")
    await first.offer()
    thief = await came(server, "thief")
    me = {"id": thief.worker, "host": thief.host, "backends": ["fake"]}
    for path in ("", "/begin"):
        with pytest.raises(Forbidden) as refused:
            await thief.call(path, worker=me, request_id="r", free=1)
        assert "revoke" in refused.value.mend
    await server.store.write(lambda tx: tx.tokens.revoke("first", None, server.clock.wall_ms()))
    assert (await thief.offer())["state"] == "active", "the former token is good for nothing any more"


async def test_a_host_is_free_once_nobody_is_there(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    first = await came(server, "first")
    await first.offer()
    await first.call("/end")
    assert (await (await came(server, "second")).offer())["state"] == "active"


async def test_a_worker_with_a_database_is_nobody_elses_name_or_host(rig: Make) -> None:
    server = await rig(fake(), supervise=False)
    worker = await came(server, "far")
    now = server.clock.wall_ms()
    local = replace(server.shop.worker, id=new_worker_id(now), seen_at=now)
    await server.store.write(lambda tx: tx.workers.add(local))
    with pytest.raises(Forbidden):
        await worker.offer()
    await server.store.write(lambda tx: tx.workers.set_state(local.id, "gone", now))
    worker.worker = local.id
    with pytest.raises(Forbidden):
        await worker.offer()


async def test_a_hand_over_that_is_told_twice_is_written_once(rig: Make) -> None:
    server, worker, run, lease = await leased(rig)
    told: dict[str, Any] = {"tokens": {run.id: lease["token"]}}
    for _ in range(3):
        await worker.call("/hand-over", **told)
    assert (await server.types(run)).count("run.handed_over") == 1
