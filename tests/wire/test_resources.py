"""Resources and problems: the names are exact, and the described schema is the truth."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from overnight.domain import values
from overnight.domain.documents import checked
from overnight.domain.run import Run
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.domain.values import (
    Cancellation,
    Completion,
    Failure,
    FileStats,
    Now,
    Stats,
    Usage,
    WaitingFor,
)
from overnight.errors import OvernightError, tree
from overnight.ids import HostId, RunId, SessionId
from overnight.wire import problem
from overnight.wire.v1.commands import BulkControlBody, ControlBody, FilterBody
from overnight.wire.v1.runs import config_document, run_resource, run_summary
from overnight.wire.v1.schema import RunModel, RunSummary

RUN = Run(
    pk=1, id=RunId("run_01k0c3v9h4f6x8r2m5t7w9y1zb"), owner="usr_local", state=State.QUEUED,
    spec=RunSpec(goal="g", backend="echo"), session_pk=2, session_id=SessionId("ses_01k0c3v9h4f6x8r2m5t7w9y1zb"),
    host_id=HostId("hst_01k0c3v9h4f6x8r2m5t7w9y1zb"), workspace=None, created_at=0, updated_at=1,
)  # fmt: skip
FULL = replace(
    RUN, state=State.CANCELLED, started_at=5, ended_at=86_400_001, last_event_at=6, pid=9,
    stats=Stats(turns=2, usage=Usage(input=3, output=4, cost_usd=0.5), files=FileStats(changed=1),
                tests=values.TestStats(passed=1)),
    completion=Completion(by="pattern", line="ALL DONE"), error=Failure(code="c", message="m", retryable=True),
    waiting_for=WaitingFor(kind="budget", detail="d"),
    cancellation=Cancellation(reason="manual", steps=("sigterm",), survivors=0),
    now=Now(item="command", text="make", since=7),
)  # fmt: skip
EXACT = [
    "id", "owner", "state", "mode", "backend", "agent", "goal", "session_id", "parent_id", "retry_of", "workspace",
    "host_id", "worker", "pid", "created_at", "updated_at", "started_at", "ended_at", "last_event_at", "attempt",
    "turn",
    "stats", "completion", "error", "waiting_for", "cancellation", "sandbox_effective", "last_seq", "labels", "now",
    "config",
]  # fmt: skip


@pytest.mark.parametrize("run", [RUN, FULL], ids=["fresh", "full"])
def test_a_run_has_exactly_these_members_and_fits_its_schema(run: Run) -> None:
    resource = run_resource(run)
    assert list(resource) == EXACT
    assert [*run_summary(run), "config"] == EXACT
    RunModel.model_validate(resource)
    RunSummary.model_validate(run_summary(run))


def test_times_are_utc_with_milliseconds() -> None:
    resource = run_resource(FULL)
    assert resource["created_at"] == "1970-01-01T00:00:00.000Z"
    assert resource["ended_at"] == "1970-01-02T00:00:00.001Z"
    assert run_resource(RUN)["ended_at"] is None


def test_stats_name_every_count() -> None:
    stats: Any = run_resource(FULL)["stats"]
    assert stats["tokens"] == {"input": 3, "cached": 0, "output": 4, "reasoning": 0, "total": 7}
    assert stats["tests"] == {"passed": 1, "failed": 0, "skipped": 0}


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.code)
def test_every_error_becomes_a_problem_with_its_code(kind: type[OvernightError]) -> None:
    error = kind.__new__(kind)
    OvernightError.__init__(error, "why", mend="how", extra={"seq": 3, "status": 200, "code": "forged"})
    found = problem.document(error)
    assert (found["code"], found["status"], found["detail"], found["mend"]) == (
        kind.code,
        kind.status,
        "why",
        "how",
    )
    assert found["seq"] == 3
    assert str(found["type"]).endswith(kind.code)
    assert (problem.retry_after(error) is not None) == (kind.status in (429, 503))


@pytest.mark.parametrize("action", ["pause", " PAUSE", "Pause\n", "paUSE "])
def test_actions_are_trimmed_and_of_any_case(action: str) -> None:
    assert ControlBody.model_validate({"action": action}).action == "pause"


@pytest.mark.parametrize(
    "body",
    [{}, {"action": ""}, {"action": "stop"}, {"action": None}, {"action": ["pause"]}, {"action": "pause", "x": 1},
     {"action": "steer"}, {"action": "steer", "text": " "}, {"action": "pause", "text": "x"},
     {"action": "pause", "when": "later"},
     {"action": "resume", "limits": {"turn": 1}}],
)  # fmt: skip
def test_other_controls_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ControlBody.model_validate(body)


def test_a_bulk_action_names_its_runs_one_way_and_expects_a_number() -> None:
    BulkControlBody.model_validate({"ids": ["run_x"], "action": "cancel"})
    BulkControlBody.model_validate({"filter": {"state": "queued"}, "action": "cancel", "expect_count": 0})
    wrong: list[dict[str, Any]] = [
        {},
        {"ids": []},
        {"ids": ["a"], "filter": {}},
        {"filter": {}},
        {"ids": ["a"] * 1001},
    ]
    for body in wrong:
        with pytest.raises(ValidationError):
            BulkControlBody.model_validate({"action": "cancel", **body})


def test_filters_are_for_one_owner() -> None:
    found = FilterBody.model_validate(
        {"state": ["queued,paused", "failed"], "label": ["a=b=c"], "since": "2026-01-01T00:00:00Z"}
    )
    filter = found.to_filter("usr_bob")
    assert filter.owner == "usr_bob"
    assert [state.value for state in filter.states] == ["queued", "paused", "failed"]
    assert filter.labels == {"a": "b=c"}
    assert filter.since == 1_767_225_600_000


@pytest.mark.parametrize(
    "given,shown",
    [
        ("https://ada:sekret@host/x.git", "https://***@host/x.git"),
        ("HTTPS://sekret@host/x.git", "HTTPS://***@host/x.git"),
        ("https://a:s@e:k@host/x", "https://***@host/x"),
        ("ssh://git:sekret@host/x", "ssh://git:***@host/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("git@host:x.git", "git@host:x.git"),
        ("https://host/a@b", "https://host/a@b"),
        ("/srv/x.git", "/srv/x.git"),
    ],
)
def test_the_address_of_a_repository_shows_no_password(given: str, shown: str) -> None:
    spec = checked(RunSpec, {"goal": "g", "workspace": {"git": given}})
    assert config_document(spec)["workspace"] == {"git": shown, "ref": "HEAD"}
