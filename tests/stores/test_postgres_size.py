"""What is deleted counts no more, though the server's files keep their size: whoever deletes until it fits, stops."""

import pytest

from overnight.domain.event import Draft
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

pytestmark = pytest.mark.anyio


async def size(stage: Stage) -> int:
    return await stage.uow.read(lambda tx: tx.installation.size_bytes())


async def test_the_size_follows_what_is_there(postgres_stage: Stage) -> None:
    stage = postgres_stage
    empty = await size(stage)
    runs = []
    for _ in range(8):
        run = await stage.run()

        def fill(tx: Transaction, pk: int = run.pk) -> None:
            tx.events.append(
                pk, [Draft(type="output.recorded", data={"text": f"{n:x}" * 400}) for n in range(500)], 5
            )

        await stage.uow.write(fill)
        runs.append(run)
    full = await size(stage)
    assert full > empty + 1_000_000
    for run in runs[:6]:
        await stage.uow.write(lambda tx, pk=run.pk: tx.events.trim(pk, 502, 1000))  # type: ignore[misc]
    less = await size(stage)
    assert less - empty < 0.5 * (full - empty), "at once, though no vacuum has been there"
