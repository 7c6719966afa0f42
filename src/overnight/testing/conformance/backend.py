"""The suite that every backend passes: turns end, are told once, and are taken up only where something is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from overnight.domain.run import Position
from overnight.domain.update import Message, Output, Update
from overnight.ports.backend import Backend, BackendTurn, StoreInput, TurnStart

ALPHA, BETA = "alpha", "beta"
"""Prompts of the suite; the agent behind the backend answers with a message that contains the prompt's word."""


async def no_input(number: int, data: bytes) -> None:
    """The store of a backend that sends nothing but the prompt."""
    raise AssertionError(f"message {number} was to be stored: {data!r}")


@dataclass(slots=True, kw_only=True)
class BackendStage:
    """A backend that is ready. `begin` makes the start of a fresh turn, in folders of its own, with that prompt.

    `taken_up` completes the start of an adoption with what `store` has kept, for a backend that talks to its agent.
    """

    backend: Backend
    begin: Callable[[str], TurnStart]
    store: StoreInput = no_input
    taken_up: Callable[[TurnStart], TurnStart] = lambda start: start
    turns: list[BackendTurn] = field(default_factory=list)

    async def start(self, prompt: str = ALPHA) -> tuple[TurnStart, BackendTurn]:
        """Begin a turn."""
        start = self.begin(prompt)
        turn = await self.backend.start(start, self.store)
        self.turns.append(turn)
        return start, turn


@pytest.mark.anyio
class BackendSuite:
    """The contract of `ports.backend.Backend`."""

    async def test_the_preflight_says_who_and_that_it_is_ready(self, stage: BackendStage) -> None:
        check = await stage.backend.check()
        assert check.name == stage.backend.name
        assert check.status in {"ok", "warn"}, check.problems
        assert check.capabilities == stage.backend.capabilities
        assert check.stamp == stage.backend.stamp() == stage.backend.stamp()

    async def test_a_turn_answers_and_ends(self, stage: BackendStage) -> None:
        _, turn = await stage.start()
        updates, positions = await _read(turn)
        outcome = turn.ended().outcome
        assert (outcome.failure, turn.ended().cause) == (None, "exit")
        assert outcome.stop_reason
        assert ALPHA in _last_message(updates)
        assert positions == sorted(positions), "what is recorded only grows"
        await turn.release()

    async def test_turns_at_the_same_time_do_not_mix(self, stage: BackendStage) -> None:
        begun = [await stage.start(prompt) for prompt in (ALPHA, BETA, ALPHA)]
        read = await asyncio.gather(*(_read(turn) for _, turn in begun))
        answers = [_last_message(updates) for updates, _ in read]
        assert [(ALPHA in answer, BETA in answer) for answer in answers] == [
            (True, False),
            (False, True),
            (True, False),
        ]
        for _, turn in begun:
            await turn.release()

    async def test_release_and_leave_may_come_twice(self, stage: BackendStage) -> None:
        _, turn = await stage.start()
        await _read(turn)
        for _ in range(2):
            await turn.release()
            await turn.leave()

    async def test_a_turn_that_is_stopped_ends(self, stage: BackendStage) -> None:
        _, turn = await stage.start()
        for _ in range(2):
            await turn.stop(reason="manual", interrupt=stage.backend.capabilities.interrupt)
        await _read(turn)
        stopped = turn.ended().stopped
        assert stopped is None or stopped.survivors == 0
        assert turn.ended().cause in {"stopped", "exit"}
        await turn.release()

    async def test_a_turn_that_was_left_says_nothing_more(self, stage: BackendStage) -> None:
        start, turn = await stage.start()
        await turn.leave()
        assert (await _read(turn))[0] == []
        again = await stage.backend.adopt(stage.taken_up(replace(start, token=start.token + 1)), stage.store)
        if again is not None:
            assert ALPHA in _last_message((await _read(again))[0])
            await again.release()

    async def test_where_nothing_was_started_nothing_is_adopted(self, stage: BackendStage) -> None:
        assert await stage.backend.adopt(stage.begin(ALPHA), stage.store) is None

    async def test_what_was_recorded_is_not_told_again(self, stage: BackendStage) -> None:
        start, turn = await stage.start()
        _, positions = await _read(turn)
        await turn.leave()
        again = await stage.backend.adopt(
            stage.taken_up(
                replace(
                    start,
                    token=start.token + 1,
                    position=Position(stdout=positions[-1][0], stderr=positions[-1][1]),
                )
            ),
            stage.store,
        )
        if again is not None:
            updates, _ = await _read(again)
            assert not any(isinstance(update, Output) for update in updates)
            assert again.ended().outcome == turn.ended().outcome
            await again.release()


async def _read(turn: BackendTurn) -> tuple[list[Update], list[tuple[int, int]]]:
    updates: list[Update] = []
    positions: list[tuple[int, int]] = [(0, 0)]
    async for batch in turn.batches():
        updates += batch.updates
        positions.append((batch.position.stdout, batch.position.stderr))
    return updates, positions


def _last_message(updates: list[Update]) -> str:
    messages = [update.text for update in updates if isinstance(update, Message)]
    assert messages, f"no message among {updates}"
    return messages[-1]
