"""A run with other values: the quick way gives what the library's own does."""

from dataclasses import fields, replace

import pytest

from overnight.domain.run import Run
from overnight.domain.spec import RunSpec
from overnight.domain.states import Input, State
from overnight.domain.values import WaitingFor
from overnight.ids import HostId, RunId, SessionId

RUN = Run(
    pk=7,
    id=RunId("run_1"),
    owner="usr_local",
    state=State.QUEUED,
    spec=RunSpec(goal="Do it.", backend="echo"),
    session_pk=5,
    session_id=SessionId("ses_1"),
    host_id=HostId("hst_1"),
    workspace=None,
    created_at=1,
    updated_at=2,
    waiting_for=WaitingFor(kind="session", detail="run_0"),
)


def test_other_values_are_put_and_all_else_stays() -> None:
    before = replace(RUN)
    for name in (each.name for each in fields(Run)):
        made = RUN.but(**{name: "another"})
        assert made == replace(RUN, **{name: "another"})  # type: ignore[arg-type]
    assert before == RUN


def test_it_is_frozen_as_before_and_has_no_other_fields() -> None:
    with pytest.raises(AttributeError):
        RUN.but(nonsense=1)
    with pytest.raises(AttributeError):
        RUN.but(token=3).token = 4  # type: ignore[misc]


def test_a_move_changes_what_it_says() -> None:
    moved = RUN.moved(Input.CLAIM, 9, waiting_for=None)
    assert moved == replace(RUN, state=State.RUNNING, updated_at=9, waiting_for=None)
