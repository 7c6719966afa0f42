"""Approvals and rules: what is stored comes back whole, and is found by whoever has to find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from overnight.domain.action import Action, Edit
from overnight.domain.approval import Approval, Decision, Option
from overnight.domain.rule import Rule
from overnight.domain.run import Run
from overnight.domain.states import Input
from overnight.errors import NotFound
from overnight.ids import new_approval_id
from overnight.ports.approval_tables import ApprovalFilter
from overnight.ports.unit_of_work import Transaction
from overnight.testing.conformance.stage import Stage

RULE = Rule(effect="allow", tool="execute", command="make", exact=True)
OPTIONS = (
    Option(id="allow_once", label="Allow once", kind="allow_once"),
    Option(id="allow_always", label="Always", kind="allow_always", rule=RULE),
    Option(id="reject_once", label="Reject", kind="reject_once"),
)


def approval_of(run: Run, **changes: Any) -> Approval:
    """An open approval about a command, with every field set."""
    values: dict[str, Any] = {
        "pk": 0, "id": new_approval_id(run.created_at), "owner": run.owner, "run_pk": run.pk, "run_id": run.id,
        "session_pk": run.session_pk, "session_id": run.session_id, "turn": 1, "attempt": 1, "request": "p1",
        "kind": "command", "title": "make", "context": {"command": "make"},
        "action": Action(
            kind="execute", tool="shell", title="make", arguments={"command": "make"}, command="make", cwd="/w",
            paths=("a", "b"), hosts=("h",), edits=(Edit(path="a", before=None, after="x"),),
        ),
        "digest": "d" * 64, "options": OPTIONS, "default_option": "reject_once", "expires_at": 500,
        "created_at": run.created_at,
    }  # fmt: skip
    return Approval(**(values | changes))


def decided(approval: Approval, option: str = "allow_once") -> Approval:
    """The same with a decision."""
    decision = Decision(option=option, feedback="fine", changes={"a": 1}, by="anna")
    return replace(approval, state="resolved", decision=decision, resolved_at=9)


async def _stored(stage: Stage, run: Run) -> Approval:
    return await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run)))


def _save(approval: Approval) -> Callable[[Transaction], None]:
    return lambda tx: tx.approvals.save(approval)


def _keep(run: Run, rule: Rule) -> Callable[[Transaction], None]:
    return lambda tx: tx.approvals.add_rule(run.session_pk, rule, approval_pk=1, by="a", at=1)


class ApprovalSuite:
    """For `Transaction.approvals`."""

    pytestmark = pytest.mark.anyio

    async def test_an_approval_comes_back_whole(self, stage: Stage) -> None:
        run = await stage.run()
        stored = await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run)))
        assert await stage.uow.read(lambda tx: tx.approvals.get(stored.id, run.owner)) == stored
        await stage.uow.write(lambda tx: tx.approvals.save(decided(stored)))
        assert await stage.uow.read(lambda tx: tx.approvals.get(stored.id, None)) == decided(stored)

    async def test_a_foreign_or_unknown_one_is_not_there(self, stage: Stage) -> None:
        run = await stage.run()
        stored = await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run)))
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.approvals.get(stored.id, "usr_other"))
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.approvals.get(new_approval_id(0), None))
        with pytest.raises(NotFound):
            await stage.uow.write(lambda tx: tx.approvals.save(replace(stored, pk=stored.pk + 1)))

    async def test_one_request_of_an_agent_opens_one(self, stage: Stage) -> None:
        run = await stage.run()
        stored = await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run)))
        assert await stage.uow.read(lambda tx: tx.approvals.of_request(run.pk, 1, 1, "p1")) == stored
        assert await stage.uow.read(lambda tx: tx.approvals.of_request(run.pk, 1, 2, "p1")) is None
        with pytest.raises(Exception, match=r"(?i)unique"):
            await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run)))

    async def test_open_ones_oldest_first_and_those_that_are_overdue(self, stage: Stage) -> None:
        run, other = await stage.run(), await stage.run()
        one = await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run, expires_at=300)))
        two = await stage.uow.write(
            lambda tx: tx.approvals.add(approval_of(run, request="p2", expires_at=200))
        )
        await stage.uow.write(lambda tx: tx.approvals.add(approval_of(other, expires_at=900)))
        assert await stage.uow.read(lambda tx: tx.approvals.pending(run.pk)) == (one, two)
        assert await stage.uow.read(lambda tx: tx.approvals.overdue(300, 9)) == (two, one)
        assert await stage.uow.read(lambda tx: tx.approvals.overdue(300, 1)) == (two,)
        assert await stage.uow.read(lambda tx: tx.approvals.overdue(199, 9)) == ()
        await stage.uow.write(lambda tx: tx.approvals.save(decided(two)))
        assert await stage.uow.read(lambda tx: tx.approvals.pending(run.pk)) == (one,)
        assert await stage.uow.read(lambda tx: tx.approvals.overdue(300, 9)) == (one,)

    async def test_pages_newest_first_with_filters(self, stage: Stage) -> None:
        runs = [await stage.run(), await stage.run(), await stage.run(owner="usr_other")]
        found = [await _stored(stage, run) for run in runs]
        await stage.uow.write(lambda tx: tx.approvals.save(decided(found[0])))

        async def page(filter: ApprovalFilter, limit: int = 9, after: Any = None) -> list[str]:
            rows = await stage.uow.read(lambda tx: tx.approvals.page(filter, limit=limit, after=after))
            return [row.id for row in rows]

        ids = [one.id for one in found]
        assert await page(ApprovalFilter()) == ids[::-1]
        assert await page(ApprovalFilter(owner="usr_local")) == [ids[1], ids[0]]
        assert await page(ApprovalFilter(states=("pending",), owner="usr_local")) == [ids[1]]
        assert await page(ApprovalFilter(run_id=runs[0].id)) == [ids[0]]
        assert await page(ApprovalFilter(session_id=runs[1].session_id)) == [ids[1]]
        assert await page(ApprovalFilter(), 1) == [ids[2]]
        assert await page(ApprovalFilter(), 9, (found[2].created_at, found[2].pk)) == [ids[1], ids[0]]

    async def test_an_allowance_is_found_by_another_turn_until_it_is_used(self, stage: Stage) -> None:
        run = await stage.run()
        stored = await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run)))

        async def allowance(digest: str = "d" * 64, turn: int = 2, attempt: int = 1) -> Approval | None:
            return await stage.uow.read(
                lambda tx: tx.approvals.unused_allowance(run.pk, digest, turn=turn, attempt=attempt)
            )

        assert await allowance() is None
        await stage.uow.write(lambda tx: tx.approvals.save(decided(stored)))
        assert await allowance() == decided(stored)
        assert await allowance(turn=1, attempt=2) == decided(stored)
        assert await allowance(turn=1) is None
        assert await allowance(digest="e" * 64) is None
        await stage.uow.write(lambda tx: tx.approvals.save(replace(decided(stored), used_at=10)))
        assert await allowance() is None
        for option in ("allow_always", "reject_once"):
            await stage.uow.write(_save(decided(stored, option)))
            assert await allowance() is None

    async def test_rules_belong_to_a_session_and_are_there_once(self, stage: Stage) -> None:
        run, other = await stage.run(), await stage.run()
        second = Rule(effect="reject", argv=("git", "push"), path="x", host="h", tool="t")
        for rule in (RULE, second, RULE):
            await stage.uow.write(_keep(run, rule))
        assert await stage.uow.read(lambda tx: tx.approvals.rules(run.session_pk)) == (second, RULE)
        assert await stage.uow.read(lambda tx: tx.approvals.rules(other.session_pk)) == ()

    async def test_they_go_with_their_run(self, stage: Stage) -> None:
        run, _, _ = await stage.held()
        stored = await stage.uow.write(lambda tx: tx.approvals.add(approval_of(run)))
        await stage.move(run, Input.COMPLETE)
        await stage.uow.write(lambda tx: tx.runs.delete(run.pk))
        with pytest.raises(NotFound):
            await stage.uow.read(lambda tx: tx.approvals.get(stored.id, None))
