"""A run that needs a person waits for one: asked once, decided once, for exactly what was shown."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.engine.asking import ASKING, asks, command, edit, said, started
from tests.engine.conftest import Make, fake
from tests.engine.fake_backend import FakeAgent
from tests.engine.rig import ME

from overnight.domain.action import Action
from overnight.domain.request import Principal
from overnight.domain.rule import Rule
from overnight.domain.states import State
from overnight.domain.update import Answer
from overnight.engine.approvals import Resolve
from overnight.engine.maintenance.expirer import Expirer
from overnight.engine.policy import RunPolicy
from overnight.errors import (
    ActionChanged,
    AlreadyDecided,
    ApprovalOver,
    Forbidden,
    InvalidInput,
    InvalidTransition,
    NotFound,
    UnknownOption,
)
from overnight.testing.signals import eventually

pytestmark = pytest.mark.anyio


async def test_the_run_is_blocked_until_somebody_allows(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()))
    blocked = await server.until(run, State.BLOCKED)
    [approval] = await server.pending(run)
    assert blocked.waiting_for is not None
    assert (blocked.waiting_for.kind, blocked.waiting_for.approval_id) == ("approval", approval.id)
    assert (approval.kind, approval.title, approval.state) == ("command", "make test", "pending")
    assert [option.id for option in approval.options] == [
        "allow_once", "allow_always", "reject_once", "reject_always",
    ]  # fmt: skip
    assert approval.default_option == "reject_once"
    assert (approval.context["command"], approval.context["item_id"]) == ("make test", "call-p0")
    decided = await server.decide(approval, "allow_once")
    assert decided.decision is not None
    assert (decided.state, decided.decision.by) == ("resolved", "usr_local")
    await server.until(run, State.COMPLETED)
    assert await said(server, run) == ["make test: True"]
    types = [type for type in await server.types(run) if type.startswith(("approval.", "run."))]
    assert types == [
        "run.queued", "run.started", "approval.requested", "run.blocked", "approval.resolved", "run.resumed",
        "run.completed",
    ]  # fmt: skip
    assert await server.store.read(lambda tx: tx.requests.pending(run.pk)) == ()


async def test_a_rejection_reaches_the_agent_with_its_reason(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command("rm -rf x")))
    [approval] = await server.pending(run)
    await server.decide(approval, "reject_once", feedback="keep x")
    await server.until(run, State.COMPLETED)
    assert await said(server, run) == ["rm -rf x: False keep x"]


async def test_deciding_twice_the_same_way_succeeds_and_differently_is_refused(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    first = await server.decide(approval, "allow_once")
    assert (await server.decide(approval, "allow_once")).decision == first.decision
    with pytest.raises(AlreadyDecided) as refused:
        await server.decide(approval, "reject_once")
    assert refused.value.extra["decision"]["option"] == "allow_once"  # type: ignore[index]
    await server.until(run, State.COMPLETED)
    again = await server.decide(approval, "allow_once")
    assert again.state == "resolved"
    assert (await server.types(run)).count("approval.resolved") == 1


async def test_two_deciders_at_once_one_wins_and_the_other_learns_it(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    results = await asyncio.gather(
        server.decide(approval, "allow_once"), server.decide(approval, "reject_once"), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["AlreadyDecided", "Approval"]
    await server.until(run, State.COMPLETED)


async def test_neither_agents_nor_workers_nor_strangers_decide(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    asked = Resolve(option="allow_once", digest=approval.digest)
    kinds: tuple[Any, ...] = ("agent", "worker")
    for kind in kinds:
        with pytest.raises(Forbidden):
            await server.approvals.resolve(approval.id, asked, replace(ME, name="x", kind=kind))
    with pytest.raises(NotFound):
        await server.approvals.resolve(approval.id, asked, Principal(owner="usr_other", name="other"))
    assert (await server.run(run)).state is State.BLOCKED
    await server.control(run, "cancel")


async def test_what_the_approval_does_not_offer_is_refused(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    with pytest.raises(UnknownOption, match="maybe"):
        await server.decide(approval, "maybe")
    with pytest.raises(UnknownOption, match="changes"):
        await server.decide(approval, "allow_once", changes={"limits": {}})
    with pytest.raises(ActionChanged):
        await server.decide(approval, "allow_once", digest="0" * 64)
    assert (await server.run(run)).state is State.BLOCKED
    await server.control(run, "cancel")


async def test_a_file_swapped_for_a_link_is_not_what_was_shown(rig: Make, tmp_path: Path) -> None:
    server, run, _ = await started(rig, asks(edit("notes.txt")))
    [approval] = await server.pending(run)
    secret = tmp_path / "outside.txt"
    secret.write_text("mine")
    (server.workspace() / "notes.txt").symlink_to(secret)
    with pytest.raises(ActionChanged) as refused:
        await server.decide(approval, "allow_once")
    [shown] = await server.pending(run)
    assert shown.digest == refused.value.extra["digest"] != approval.digest
    places: Any = shown.context["places"]
    place = places[0]
    assert (place["resolved"], place["inside"], place["kind"]) == (str(secret), False, "file")
    always = shown.option("allow_always")
    assert always is not None
    assert always.rule == Rule(effect="allow", tool="edit", path=str(secret), exact=True)
    requested = await server.data(run, "approval.requested")
    assert [data.get("changed", False) for data in requested] == [False, True]
    await server.decide(shown, "reject_once")
    await server.until(run, State.COMPLETED)


async def test_other_content_since_it_was_shown_is_noticed_too(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write("a.txt", "old\n")
        await agent.ask("p", edit("a.txt"))

    server, run, _ = await started(rig, script)
    [approval] = await server.pending(run)
    (server.workspace() / "a.txt").write_text("somebody else's\n")
    with pytest.raises(ActionChanged):
        await server.decide(approval, "allow_once")
    await server.control(run, "cancel")


async def test_cancel_drops_what_is_open(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    await server.control(run, "cancel")
    await server.until(run, State.CANCELLED)
    types = await server.types(run)
    assert types.index("approval.cancelled") < types.index("run.cancelled") == len(types) - 1
    with pytest.raises(ApprovalOver):
        await server.decide(approval, "allow_once")


async def test_a_pause_waits_for_the_decision_and_pausing_a_blocked_run_is_refused(rig: Make) -> None:
    server, run, _ = await started(rig, asks(command()))
    [approval] = await server.pending(run)
    with pytest.raises(InvalidTransition):
        await server.control(run, "pause")
    await server.decide(approval, "allow_once")
    await server.until(run, State.COMPLETED)


async def test_several_questions_of_one_agent_are_all_answered(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        first, second = await asyncio.gather(agent.ask("a", command("one")), agent.ask("b", command("two")))
        agent.say(f"{first.allow} {second.allow}")

    server, run, _ = await started(rig, script)
    one, two = await server.pending(run, 2)
    await server.decide(one, "allow_once")
    still = await server.run(run)
    assert still.waiting_for is not None
    assert (still.state, still.waiting_for.approval_id) == (State.BLOCKED, two.id)
    await server.decide(two, "reject_once")
    await server.until(run, State.COMPLETED)
    assert await said(server, run) == ["True False"]
    assert (await server.types(run)).count("run.blocked") == 1


async def test_an_agent_may_withdraw_its_question(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        asking = asyncio.ensure_future(agent.ask("a", command()))
        await agent.go.wait()
        asking.cancel()
        agent.withdraw("a")
        await agent.forever()

    server, run, backend = await started(rig, script)
    [approval] = await server.pending(run)
    backend.agents[0].go.set()
    await server.until(run, State.RUNNING)
    with pytest.raises(ApprovalOver):
        await server.decide(approval, "allow_once")
    await server.control(run, "cancel")


async def test_of_two_questions_one_is_withdrawn_and_the_run_names_the_other(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        first = asyncio.ensure_future(agent.ask("a", command("one")))
        second = asyncio.ensure_future(agent.ask("b", command("two")))
        await agent.go.wait()
        first.cancel()
        agent.withdraw("a")
        await second

    server, run, backend = await started(rig, script)
    one, two = await server.pending(run, 2)
    backend.agents[0].go.set()

    async def is_withdrawn() -> bool:
        return (await server.approvals.get(one.id, None)).state == "cancelled"

    await eventually(is_withdrawn)
    still = await server.run(run)
    assert still.waiting_for is not None
    assert (still.state, still.waiting_for.approval_id) == (State.BLOCKED, two.id)
    await server.decide(two, "allow_once")
    await server.until(run, State.COMPLETED)


async def test_an_agent_that_ends_in_order_waits_for_nothing(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        asking = asyncio.ensure_future(agent.ask("a", command()))
        await agent.go.wait()
        asking.cancel()

    server, run, backend = await started(rig, script)
    await server.pending(run)
    backend.agents[0].go.set()
    await server.until(run, State.COMPLETED)
    assert "approval.cancelled" in await server.types(run)


async def test_always_writes_the_rule_that_was_shown(rig: Make) -> None:
    server, run, _ = await started(
        rig, asks(command("npm test"), command("npm test"), command("npm publish"))
    )
    [approval] = await server.pending(run)
    rule = approval.option("allow_always").rule  # type: ignore[union-attr]
    assert rule == Rule(effect="allow", tool="execute", command="npm test", exact=True)
    await server.decide(approval, "allow_always")
    [publish] = [one for one in await server.pending(run) if one.title == "npm publish"]
    resolved = await server.data(run, "approval.resolved")
    assert [data["by"] for data in resolved] == ["usr_local", "rule"]
    assert resolved[0]["rule"] == resolved[1]["rule"] == rule.to_json()
    await server.decide(publish, "reject_always")
    await server.until(run, State.COMPLETED)
    rules = await server.store.read(lambda tx: tx.approvals.rules(run.session_pk))
    assert sorted(one.effect for one in rules) == ["allow", "reject"]
    next_run = await server.submit(
        mode="oneshot",
        session_id=run.session_id,
        approval_policy="autonomous",
        workspace=str(server.workspace()),
    )
    await server.until(next_run, State.COMPLETED)
    assert (await said(server, next_run))[-1] == "npm publish: False"


async def test_operators_rules_go_before_everything(rig: Make) -> None:
    rules = (
        Rule(effect="reject", argv=("git", "push", "**")),
        Rule(effect="ask", path="secrets/*"),
    )
    policy = RunPolicy(default_backend="fake", rules=rules)
    backend = fake(
        asks(command("git push origin"), command("git status"), edit("secrets/a")), capabilities=ASKING
    )
    server = await rig(backend, policy=policy)
    run = await server.submit(mode="oneshot")
    [approval] = await server.pending(run)
    assert approval.kind == "file_edit"
    await server.decide(approval, "allow_once")
    await server.until(run, State.COMPLETED)
    assert await said(server, run) == ["git push origin: False", "git status: True", "Write secrets/a: True"]


async def test_questions_have_their_own_answers(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        action = Action(kind="other", tool="ask", title="Which colour?")
        verdict = await agent.ask("q", action, Answer(id="r", label="Red"), Answer(id="g", label="Green"))
        agent.say(f"{verdict.allow} {verdict.option}")

    server, run, _ = await started(rig, script)
    [approval] = await server.pending(run)
    assert (approval.kind, [option.kind for option in approval.options]) == (
        "question", ["answer", "answer", "reject_once"],
    )  # fmt: skip
    await server.decide(approval, "g")
    await server.until(run, State.COMPLETED)
    assert await said(server, run) == ["True g"]
    alone = await server.submit(mode="oneshot", workspace=None)
    await server.until(alone, State.COMPLETED)
    assert await said(server, alone) == ["False None"]
    assert await server.data(alone, "question.asked") == [{"text": "Which colour?"}]


async def test_what_nobody_decides_takes_its_default(rig: Make) -> None:
    backend = fake(asks(command()), capabilities=ASKING)
    server = await rig(backend)
    run = await server.submit(
        mode="oneshot", approval_policy="ask_all", approvals={"expires": {"command": 1}}
    )
    [approval] = await server.pending(run)
    assert approval.expires_at == approval.created_at + 1000
    expirer = Expirer(server.store, server.clock)
    assert await eventually(expirer.once) == 1
    await server.until(run, State.COMPLETED)
    assert await said(server, run) == ["make test: False"]
    [expired] = await server.data(run, "approval.expired")
    assert (expired["option"], expired["by"]) == ("reject_once", "system")
    with pytest.raises(ApprovalOver, match="expired"):
        await server.decide(approval, "allow_once")


async def test_a_budget_is_an_approval_too(rig: Make) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.write(f"{agent.start.turn}.txt", "x")
        agent.use(600)

    server = await rig(fake(script))
    run = await server.submit(limits={"tokens": 1000, "turns": 3}, completion={"idle_turns": 0})
    [approval] = await server.pending(run)
    assert (approval.kind, approval.default_option) == ("budget", "finish")
    with pytest.raises(InvalidInput, match="still spent"):
        await server.decide(approval, "raise", changes={"limits": {"tokens": 1100}})
    await server.decide(approval, "raise", changes={"limits": {"tokens": 10_000}})
    ended = await server.until(run, State.COMPLETED)
    assert (ended.stats.turns, ended.raised_limits and ended.raised_limits.tokens) == (3, 10_000)


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("option, state", [("finish", State.COMPLETED), ("cancel", State.CANCELLED)])
async def test_a_budget_can_end_the_run(rig: Make, option: str, state: State, paused: bool) -> None:
    async def script(agent: FakeAgent) -> None:
        agent.use(600)

    server = await rig(fake(script))
    run = await server.submit(limits={"tokens": 500})
    [approval] = await server.pending(run)
    if paused:
        await server.control(run, "pause")
    await server.decide(approval, option)
    assert (await server.run(run)).state is state


async def test_no_secret_is_shown(rig: Make) -> None:
    secret = "hunter2-hunter2-hunter2"
    backend = fake(asks(command(f"curl -u me:{secret} x")), capabilities=ASKING)
    server = await rig(backend, policy=RunPolicy(default_backend="fake", secrets={"PASS": secret}))
    run = await server.submit(mode="oneshot", approval_policy="ask_all", secrets=["PASS"])
    [approval] = await server.pending(run)
    shown = f"{approval.title} {approval.context} {[o.to_json() for o in approval.options]} {await server.events(run)}"
    assert secret not in shown
    assert [option.kind for option in approval.options] == ["allow_once", "reject_once"]
    await server.decide(approval, "allow_once")
    await server.until(run, State.COMPLETED)
    assert backend.agents[0].answers["p0"].allow
