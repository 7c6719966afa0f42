"""Approvals over REST: what is shown is what is decided, once, by a person."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from tests.server.asking import asks, budget_is_spent
from tests.server.stage import Stage

from overnight.domain.approval import Approval, Decision
from overnight.domain.update import Answer
from overnight.ids import ApprovalId

pytestmark = pytest.mark.anyio
FIELDS = {
    "id", "owner", "run_id", "session_id", "kind", "title", "context", "digest", "options", "state", "decision",
    "default_option", "expires_at", "created_at", "resolved_at",
}  # fmt: skip


def at(approval: Approval, rest: str = "") -> str:
    return f"/api/v1/approvals/{approval.id}{rest}"


async def decide(
    http: httpx2.AsyncClient, approval: Approval, option: str, digest: str | None = None, **body: Any
) -> httpx2.Response:
    document = {"option": option, "digest": digest or approval.digest, **body}
    return await http.post(at(approval, "/resolve"), json=document)


async def test_an_approval_shows_everything_that_a_person_needs(stage: Stage) -> None:
    approval = await asks(stage, await stage.submitted())
    async with stage.client() as http:
        shown = (await http.get(at(approval))).json()
        assert (await http.get("/api/v1/approvals")).json() == {"items": [shown], "next_cursor": None}
        run = (await http.get(f"/api/v1/runs/{approval.run_id}")).json()
    assert set(shown) == FIELDS
    assert (shown["kind"], shown["state"], shown["decision"]) == ("command", "pending", None)
    assert shown["context"]["command"] == "rm -rf build"
    assert shown["context"]["binding"] is True
    options = {option["kind"]: option for option in shown["options"]}
    assert set(options) == {"allow_once", "allow_always", "reject_once", "reject_always"}
    assert options["allow_always"]["rule"] == {
        "effect": "allow", "tool": "execute", "command": "rm -rf build", "exact": True,
    }  # fmt: skip
    assert run["state"] == "blocked"
    assert run["waiting_for"]["approval_id"] == approval.id


async def test_the_list_is_filtered_and_paged_and_shows_nobody_elses(stage: Stage) -> None:
    runs = [await stage.submitted(str(number)) for number in range(3)]
    made = [await asks(stage, run, command=f"make {n}", key=str(n)) for run in runs for n in range(2)]
    async with stage.client() as http:
        await decide(http, made[0], "allow_once")

        async def ids(**query: Any) -> list[str]:
            return [one["id"] for one in (await http.get("/api/v1/approvals", params=query)).json()["items"]]

        newest = [approval.id for approval in reversed(made)]
        assert await ids() == newest
        assert await ids(state="pending") == newest[:-1]
        assert await ids(state=["resolved", "expired"]) == [made[0].id]
        assert await ids(run_id=runs[1].id) == [made[3].id, made[2].id]
        assert await ids(session_id=runs[2].session_id, state="pending") == [made[5].id, made[4].id]
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 4}
        while True:
            page = (await http.get("/api/v1/approvals", params=query)).json()
            seen += [one["id"] for one in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == newest
        for wrong in ({"state": "open"}, {"limit": 0}, {"cursor": "x"}, {"run": "x"}):
            assert (await http.get("/api/v1/approvals", params=wrong)).status_code == 422
    async with stage.client(await stage.token(owner="usr_bob", name="bob")) as bob:
        assert (await bob.get("/api/v1/approvals")).json()["items"] == []
        assert (await bob.get(at(made[1]))).status_code == 404
        assert (await decide(bob, made[1], "allow_once")).status_code == 404


async def test_a_decision_counts_once_and_is_answered_the_same_again(stage: Stage) -> None:
    approval = await asks(stage, await stage.submitted())
    async with stage.client() as http:
        first = await decide(http, approval, "reject_once", feedback="use make clean")
        assert first.status_code == 200
        assert first.json()["decision"] == {
            "option": "reject_once", "feedback": "use make clean", "changes": None, "by": "usr_local",
        }  # fmt: skip
        assert first.json()["resolved_at"] is not None
        again = await decide(http, approval, "reject_once", feedback="use make clean")
        assert (again.status_code, again.json()) == (200, first.json())
        other = await decide(http, approval, "allow_once")
        assert (other.status_code, other.json()["code"]) == (409, "already_decided")
        assert other.json()["decision"] == first.json()["decision"]
        assert (await http.get(f"/api/v1/runs/{approval.run_id}")).json()["state"] == "running"
        events = (await http.get(f"/api/v1/runs/{approval.run_id}/events")).json()["items"]
    types = [event["type"] for event in events]
    assert types.count("approval.resolved") == 1
    assert types[-2:] == ["approval.resolved", "run.resumed"]


async def test_one_decides_what_one_has_seen(stage: Stage) -> None:
    work = stage.work / "w"
    work.mkdir()
    (work / "notes").write_text("mine")
    run = await stage.submitted(workspace=str(work))
    approval = await asks(
        stage, run, kind="edit", tool="write", title="Write notes", command=None, paths=("notes",)
    )
    async with stage.client() as http:
        missing = await http.post(at(approval, "/resolve"), json={"option": "allow_once"})
        assert (missing.status_code, missing.json()["errors"][0]["path"]) == (422, "digest")
        assert (await decide(http, approval, "allow_once", "f" * 63)).status_code == 422
        never = await decide(http, approval, "allow_once", "f" * 64)
        assert (never.status_code, never.json()["code"]) == (409, "action_changed")
        assert never.json()["digest"] == approval.digest
        (work / "notes").unlink()
        (work / "notes").symlink_to(stage.data_dir)
        changed = await decide(http, approval, "allow_once")
        assert (changed.status_code, changed.json()["code"]) == (409, "action_changed")
        anew = (await http.get(at(approval))).json()
        assert (anew["state"], anew["digest"]) == ("pending", changed.json()["digest"])
        assert anew["digest"] != approval.digest
        assert anew["context"]["places"][0]["inside"] is False, "it shows where the path leads now"
        assert (await decide(http, approval, "reject_once", anew["digest"])).status_code == 200


async def test_an_approval_that_is_over_is_gone(stage: Stage) -> None:
    expired, dropped = [await asks(stage, await stage.submitted()) for _ in range(2)]
    late = Decision(option="reject_once", by="system")
    now = stage.clock.wall_ms()
    for ended in (
        replace(expired, state="expired", decision=late, resolved_at=now),
        replace(dropped, state="cancelled", resolved_at=now),
    ):
        await _save(stage, ended)
    async with stage.client() as http:
        for approval in (expired, dropped):
            answer = await decide(http, approval, "allow_once")
            assert (answer.status_code, answer.json()["code"]) == (410, "approval_over")
        assert (await decide(http, expired, "allow_once")).json()["decision"]["by"] == "system"


async def _save(stage: Stage, approval: Approval) -> None:
    await stage.store.write(lambda tx: tx.approvals.save(approval))


async def test_only_people_decide(stage: Stage) -> None:
    approval = await asks(stage, await stage.submitted())
    for kind in ("agent", "worker"):
        async with stage.client(await stage.token(kind=kind, name=f"a-{kind}")) as http:
            for answer in (
                await decide(http, approval, "allow_once"),
                await http.get(at(approval)),
                await http.get("/api/v1/approvals"),
            ):
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    async with stage.client() as http:
        assert (await http.get(at(approval))).json()["state"] == "pending"


async def test_what_is_not_offered_is_refused(stage: Stage) -> None:
    approval = await asks(stage, await stage.submitted())
    async with stage.client() as http:
        unknown = await decide(http, approval, "yes")
        assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_option")
        assert "allow_once" in unknown.json()["mend"]
        bodies: list[dict[str, Any]] = [
            {"changes": {"limits": {"tokens": 5}}}, {"changes": {"command": "ls"}}, {"changes": []}, {"feedback": 5},
            {"feedback": "x" * 20_001}, {"by": "somebody"},
        ]  # fmt: skip
        for body in bodies:
            answer = await decide(http, approval, "allow_once", **body)
            assert answer.status_code == 422, body
        for path in ("apr_x", "apr_00000000000000000000000000", approval.run_id):
            answer = await http.post(
                f"/api/v1/approvals/{path}/resolve", json={"option": "a", "digest": "0" * 64}
            )
            assert answer.status_code == 404
        assert (await http.get(at(approval))).json()["state"] == "pending"


async def test_a_question_is_answered_with_one_of_its_own(stage: Stage) -> None:
    answers = [Answer(id="a1", label="Postgres"), Answer(id="a2", label="SQLite")]
    run = await stage.submitted()
    approval = await asks(stage, run, answers=answers, kind="other", tool="ask", title="Which?", command=None)
    async with stage.client() as http:
        shown = (await http.get(at(approval))).json()
        assert [(one["id"], one["label"], one["kind"]) for one in shown["options"]][:2] == [
            ("a1", "Postgres", "answer"), ("a2", "SQLite", "answer"),
        ]  # fmt: skip
        assert (await http.get(f"/api/v1/runs/{run.id}")).json()["waiting_for"]["kind"] == "question"
        assert (await decide(http, approval, "a2")).json()["decision"]["option"] == "a2"


async def test_no_answer_of_an_agents_passes_for_the_default(stage: Stage) -> None:
    answers = [
        Answer(id="reject_once", label="Delete it"),
        Answer(id="a", label="A"),
        Answer(id="a", label="B"),
    ]
    run = await stage.submitted()
    approval = await asks(stage, run, answers=answers, kind="other", tool="ask", title="Which?", command=None)
    assert [(option.id, option.kind) for option in approval.options] == [
        ("a", "answer"),
        ("reject_once", "reject_once"),
    ]


async def test_a_budget_is_raised_or_the_run_ends(stage: Stage) -> None:
    raised, ended = [await stage.submitted(limits={"tokens": 1000}) for _ in range(2)]
    async with stage.client() as http:
        approval = await budget_is_spent(stage, raised)
        limits = {"tokens": 9000}
        answer = await decide(http, approval, "raise", changes={"limits": limits})
        assert (answer.status_code, answer.json()["decision"]["changes"]) == (200, {"limits": limits})
        run = (await http.get(f"/api/v1/runs/{raised.id}")).json()
        assert run["state"] == "queued"
        await decide(http, await budget_is_spent(stage, ended), "finish")
        assert (await http.get(f"/api/v1/runs/{ended.id}")).json()["completion"]["by"] == "decision"


async def test_twenty_approvals_and_many_deciders_have_one_winner_each(stage: Stage) -> None:
    """Every decider hears what counts, whoever won."""
    made = [await asks(stage, await stage.submitted(str(n))) for n in range(20)]

    async def decider(option: str) -> list[httpx2.Response]:
        async with stage.client() as http:
            return list(await asyncio.gather(*(decide(http, approval, option) for approval in made)))

    both = await asyncio.gather(*(decider(["allow_once", "reject_once"][n % 2]) for n in range(6)))
    for number, approval in enumerate(made):
        answers = [one[number] for one in both]
        stored = await stage.store.read(lambda tx: tx.approvals.get(ApprovalId(approval.id), None))  # noqa: B023
        assert stored.decision is not None
        for asked, answer in zip(["allow_once", "reject_once"] * 3, answers, strict=True):
            won = asked == stored.decision.option
            assert answer.status_code == (200 if won else 409)
            assert answer.json()["decision"]["option"] == stored.decision.option
        log = await stage.store.read(lambda tx: tx.events.after(approval.run_pk, 0, 100))  # noqa: B023
        assert [event.type for event in log].count("approval.resolved") == 1


async def test_a_decision_writes_the_rule_that_it_showed(stage: Stage) -> None:
    run = await stage.submitted()
    approval = await asks(stage, run)
    async with stage.client() as http:
        assert (await decide(http, approval, "allow_always")).status_code == 200
    (rule,) = await stage.store.read(lambda tx: tx.approvals.rules(run.session_pk))
    option = approval.option("allow_always")
    assert option is not None
    assert rule == option.rule
