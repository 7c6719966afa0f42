"""Agents that ask, for the tests of approvals."""

from dataclasses import replace
from typing import Any

from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FULL, FakeAgent
from tests.engine.rig import Rig

from overnight.domain.action import Action, Edit
from overnight.domain.update import TurnOutcome

ASKING = replace(FULL, approvals=True)


def command(line: str = "make test") -> Action:
    return Action(kind="execute", tool="shell", title=line, command=line, arguments={"command": line})


def edit(path: str, text: str = "new\n") -> Action:
    return Action(
        kind="edit", tool="write", title=f"Write {path}", paths=(path,),
        edits=(Edit(path=path, before=None, after=text),),
    )  # fmt: skip


def asks(*actions: Action) -> Any:
    """An agent that asks for each in turn and says what it was told."""

    async def script(agent: FakeAgent) -> TurnOutcome | None:
        for number, action in enumerate(actions):
            verdict = await agent.ask(f"p{number}", action)
            agent.say(f"{action.title}: {verdict.allow} {verdict.feedback}".strip())
        return None

    return script


async def started(rig: Make, script: Any, *, policy: str = "ask_all", **more: Any) -> tuple[Rig, Any, Any]:
    backend = fake(script, capabilities=ASKING)
    server = await rig(backend, **more)
    run = await server.submit(mode="oneshot", approval_policy=policy)
    return server, run, backend


async def said(server: Rig, run: Any) -> list[str]:
    return [data["text"] for data in await server.data(run, "message.completed")]
