"""Leave for calls of a run, on a real store: what the run's policy and the rules say of a tool that destroys."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.server.stage import staged
from tests.tools.stage import Party, Saying, caller, host, hub

from overnight.domain.rule import Rule
from overnight.errors import ToolFailure

pytestmark = pytest.mark.anyio


async def code_of(mine: Party, name: str = "say") -> str:
    try:
        await mine.calls.execute(name, {})
    except ToolFailure as error:
        return error.code
    return "done"


async def test_rules_and_policy_say_whether_a_run_may_call_what_destroys(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        run = await stage.submitted()
        rules = (Rule(effect="ask", tool="say"), Rule(effect="reject", tool="never"))
        async with hub(stage.store, rules=rules) as there:
            say, never = Saying(destructive=True), Saying("never", permissions=("write",))
            await there.join(caller(), host(say, never, Saying("look"), Saying("free", destructive=True)))
            of_run = await there.join(caller(run=run.id))
            assert [await code_of(of_run, name) for name in ("say", "never", "look", "free")] == [
                "leave_needed", "leave_needed", "done", "done",
            ]  # fmt: skip
            assert (say.called, never.called) == ([], [])
            assert await code_of(await there.join(caller())) == "done", "a user asks nobody"
