"""The table of states is walked at random, and looked at as a whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.run import Run
from overnight.domain.spec import RunSpec
from overnight.domain.states import (
    FINAL,
    HELD,
    MEANINGS,
    TRANSITIONS,
    TURN_TRANSITIONS,
    Input,
    State,
    TurnState,
    accepts,
    advance,
)
from overnight.errors import InvalidTransition
from overnight.ids import new_host_id, new_run_id, new_session_id, new_worker_id


def queued() -> Run:
    return Run(
        pk=1, id=new_run_id(0), owner="usr_local", state=State.QUEUED, spec=RunSpec(goal="go"), session_pk=2,
        session_id=new_session_id(0), host_id=new_host_id(0), workspace=None, created_at=0, updated_at=0,
    )  # fmt: skip


@given(st.lists(st.sampled_from(Input), max_size=40))
def test_a_walk_moves_by_the_table_alone_and_stands_still_when_refused(inputs: list[Input]) -> None:
    run = queued()
    for now_ms, input in enumerate(inputs, 1):
        before = run
        if accepts(run.state, input):
            run = run.moved(input, now_ms, worker=new_worker_id(0))
            assert run.state is TRANSITIONS[before.state][input]
            assert run.updated_at == now_ms
        else:
            with pytest.raises(InvalidTransition) as refused:
                run.moved(input, now_ms)
            assert (refused.value.state, refused.value.input) == (before.state.value, input.value)
            assert run == before
        assert run.final is (run.ended_at is not None)
        if run.final:
            assert (run.worker, run.pid, run.waiting_for, run.now) == (None, None, None, None)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("input", Input)
def test_every_pair_is_either_a_row_or_a_conflict_that_names_both(state: State, input: Input) -> None:
    if input in TRANSITIONS[state]:
        assert advance(state, input) in State
        return
    with pytest.raises(InvalidTransition) as refused:
        advance(state, input)
    assert (refused.value.status, refused.value.code) == (409, "invalid_transition")
    assert refused.value.extra == {"state": state.value, "input": input.value}


def test_final_states_accept_nothing_and_nothing_else_is_final() -> None:
    assert {state for state, row in TRANSITIONS.items() if not row} == FINAL
    assert {state for state, row in TURN_TRANSITIONS.items() if row} == {TurnState.STARTED}


def reachable(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        for target in TRANSITIONS[todo.pop()].values():
            if target not in found:
                found.add(target)
                todo.append(target)
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(State.QUEUED) == set(State)


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_no_state_is_a_trap(state: State) -> None:
    assert State.CANCELLED in reachable(state)
    if state is not State.CANCELLING:
        assert reachable(state) >= FINAL


@pytest.mark.parametrize("state", sorted(HELD))
def test_adoption_changes_no_state(state: State) -> None:
    assert advance(state, Input.ADOPT) is state


@pytest.mark.parametrize("state", sorted(set(State) - HELD))
def test_what_nobody_holds_cannot_be_adopted_or_handed_back(state: State) -> None:
    assert not accepts(state, Input.ADOPT)
    assert not accepts(state, Input.HAND_BACK)


def test_a_hand_back_never_ends_a_run_and_never_leaves_it_held() -> None:
    targets = {row[Input.HAND_BACK] for row in TRANSITIONS.values() if Input.HAND_BACK in row}
    assert not targets & (FINAL | HELD)


def test_a_run_that_is_being_cancelled_ends_only_when_its_tree_is_gone() -> None:
    leaving = {
        input for input, target in TRANSITIONS[State.CANCELLING].items() if target is not State.CANCELLING
    }
    assert leaving == {Input.TREE_GONE}


def test_every_input_is_explained_and_used() -> None:
    assert set(MEANINGS) == set(Input)
    assert {input for row in TRANSITIONS.values() for input in row} == set(Input)
