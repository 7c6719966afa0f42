"""The token of an agent's own process: good for its run's present hold, on the socket, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.server.stage import Stage

from overnight.domain.agent_token import Claim, agent_secret, claimed, key_of_run
from overnight.domain.run import Run
from overnight.engine.agent_access import agent_key
from overnight.errors import Unauthorized
from overnight.ids import new_run_id
from overnight.server.auth import Authenticator

KEY = b"k" * 32

pytestmark = pytest.mark.anyio


async def _secret(stage: Stage, run: Run, attempt: int) -> str:
    claim = Claim(run_id=run.id, turn=run.turn, attempt=attempt)
    return agent_secret(key_of_run(await agent_key(stage.store), run.id), claim)


async def test_it_acts_for_its_run_as_long_as_that_turn_is_its_latest(stage: Stage) -> None:
    run = await stage.submitted()
    authenticator = Authenticator(stage.store, stage.clock)
    caller = await authenticator.caller(await _secret(stage, run, run.attempt))
    assert (caller.run_id, caller.principal.kind, caller.user, caller.admin) == (
        run.id,
        "agent",
        run.owner,
        False,
    )
    assert await authenticator.still(caller)
    with pytest.raises(Unauthorized):
        await authenticator.caller(await _secret(stage, run, run.attempt + 1))
    await stage.finish(run)
    assert not await authenticator.still(caller)
    with pytest.raises(Unauthorized):
        await authenticator.caller(await _secret(stage, run, run.attempt))


async def test_it_opens_no_route(stage: Stage) -> None:
    run = await stage.submitted()
    client = stage.client(await _secret(stage, run, run.attempt))
    for method, path in (
        ("GET", "/api/v1/runs"),
        ("GET", f"/api/v1/runs/{run.id}"),
        ("POST", "/api/v1/runs"),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == 403, path


async def test_its_key_is_made_once(stage: Stage) -> None:
    assert await agent_key(stage.store) == await agent_key(stage.store)


CHANGES: tuple[Callable[[str], str], ...] = (
    lambda secret: secret[:-1] + ("0" if secret[-1] != "0" else "1"),
    lambda secret: secret + "0",
    lambda secret: secret.replace(".7.", ".8."),
    lambda secret: secret.replace(".7.", ".\u0667."),
    lambda secret: secret.replace("ova_", "ovn_"),
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_token_that_was_changed_claims_nothing(change: Callable[[str], str]) -> None:
    claim = Claim(run_id=new_run_id(1_700_000_000_000), turn=7, attempt=1)
    secret = agent_secret(key_of_run(KEY, claim.run_id), claim)
    assert claimed(KEY, secret) == claim
    assert claimed(KEY, change(secret)) is None
    assert claimed(b"another key", secret) is None
