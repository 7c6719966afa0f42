"""Documents: what is refused, what is known to be given, and how values travel by their types alone."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from overnight.domain.backend import BackendCheck
from overnight.domain.documents import checked
from overnight.domain.event import Recorded
from overnight.domain.json_values import Unfit, dump, load
from overnight.domain.run import Run
from overnight.domain.spec import GitWorkspace, LimitsSpec, RunSpec
from overnight.domain.states import State
from overnight.domain.values import Failure, Usage
from overnight.ids import HostId, RunId, SessionId
from overnight.ports.remote import Append, Ask, Facts, Fragment, News, Op, Renewal

GIVEN: dict[str, Any] = {
    "goal": "mend it",
    "workspace": {"git": "https://x/y"},
    "limits": {"turns": None, "cost_usd": 5},
    "fallback": ["codex", "echo/x"],
    "approvals": {"expires": {"command": 60}},
}


def test_what_was_given_is_told_from_what_is_usual() -> None:
    spec = checked(RunSpec, GIVEN)
    assert spec.given() == GIVEN | {"workspace": {"git": "https://x/y", "ref": "HEAD"}}
    assert spec.limits.attempts == LimitsSpec().attempts
    assert RunSpec(goal="g", limits=LimitsSpec(turns=3)).given() == {"goal": "g", "limits": {"turns": 3}}


def test_a_value_is_what_its_document_was() -> None:
    spec = checked(RunSpec, GIVEN)
    assert load(RunSpec, dump(spec)) == spec
    assert dump(load(RunSpec, dump(spec))) == dump(spec)
    assert spec.workspace == GitWorkspace(git="https://x/y")
    run = Run(
        pk=1, id=RunId("run_x"), owner="me", state=State.QUEUED, spec=spec, session_pk=2, session_id=SessionId("ses_x"),
        host_id=HostId("host_x"), workspace=None, created_at=1, updated_at=2,
    )  # fmt: skip
    assert load(Run, dump(run)) == run
    assert load(Run, {**dump(run), "spec": spec}).spec is spec
    event = Recorded(seq=1, type="run.queued", body='{"ü":1}'.encode())
    assert load(Recorded, dump(event)) == event


@pytest.mark.parametrize("kind", [Facts, Ask, News, Renewal, Fragment, BackendCheck, *get_args(Op)])
def test_every_value_of_the_lease_routes_can_be_read(kind: type[Any]) -> None:
    with pytest.raises(Unfit, match="must be an object"):
        load(kind, [])


def test_members_of_a_newer_version_are_passed_over() -> None:
    found = {**dump(RunSpec(goal="g")), "mood": "good"}
    assert load(RunSpec, found) == RunSpec(goal="g")
    with pytest.raises(Unfit) as unfit:
        checked(RunSpec, found)
    assert unfit.value.path == ("mood",)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"state": "asleep"}, "state: must be one of queued"),
        ({"pk": "1"}, "pk: must be a whole number"),
        ({"pk": True}, "pk: must be a whole number"),
        ({"spec": {"goal": "g", "limits": {"turns": "many"}}}, "spec.limits.turns: must be a whole number"),
        ({"spec": {"goal": "g", "fallback": ["a", 7]}}, "spec.fallback.1: must be text"),
        ({"spec": {"goal": "g", "sandbox": ["x"]}}, "spec.sandbox: must be one of read_only"),
        ({"spec": {}}, "spec.goal: is missing"),
        ({"stats": {"usage": {"cost_usd": "much"}}}, "stats.usage.cost_usd: must be a number"),
        ({"error": 5}, "error: must be an object"),
    ],
)
def test_what_is_of_another_type_is_named(change: dict[str, Any], says: str) -> None:
    run = Run(
        pk=1, id=RunId("run_x"), owner="me", state=State.QUEUED, spec=RunSpec(goal="g"), session_pk=2,
        session_id=SessionId("ses_x"), host_id=HostId("host_x"), workspace=None, created_at=1, updated_at=2,
    )  # fmt: skip
    with pytest.raises(Unfit) as unfit:
        load(Run, {**dump(run), **change})
    assert str(unfit.value).startswith(says)


@pytest.mark.parametrize(
    "change, path, says",
    [
        ({"goal": " "}, "goal", "the goal is blank"),
        ({"goal": "a\x00"}, "goal", "NUL"),
        ({"limits": {"turns": 0}}, "limits.turns", "greater than or equal to 1"),
        ({"limits": {"cost_usd": float("inf")}}, "limits.cost_usd", "finite"),
        ({"mode": "Plan!"}, "mode", "pattern"),
        ({"fallback": ["x"] * 11}, "fallback", "at most 10"),
    ],
)
def test_bounds_are_looked_at_where_people_write(change: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(Unfit, match=says) as unfit:
        checked(RunSpec, {"goal": "g", **change})
    assert unfit.value.path[0] == path.partition(".")[0]
    assert str(unfit.value).startswith(f"{path}: ")


def test_small_values_travel_too() -> None:
    assert dump(Append(drafts=())) == {"drafts": [], "to": "run", "op": "append"}
    usage = load(Usage, {"input": 3, "cost_usd": 1})
    assert (usage.input, usage.cost_usd, type(usage.cost_usd)) == (3, 1.0, float)
    failure = Failure(code="x", message="y")
    assert load(Failure, dump(failure)) == failure
