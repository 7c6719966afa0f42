"""The beginning of a turn: its row is there before its agent is, so that a crash in between leaves a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from overnight.domain.event import Draft
from overnight.domain.request import Request
from overnight.domain.run import Run, Turn
from overnight.domain.session import SessionMessage
from overnight.domain.states import TurnState
from overnight.domain.values import Completion
from overnight.engine import moves
from overnight.engine.boundary import let_go
from overnight.engine.conversation import Outdated, Words
from overnight.engine.folders import Folders
from overnight.engine.follow_requests import drop_requests, said
from overnight.engine.hold import Wish
from overnight.engine.policy import Timing
from overnight.engine.preparation import Prepared
from overnight.engine.waiting_messages import taken_back
from overnight.ports.backend import TurnLimits, TurnStart
from overnight.ports.unit_of_work import Transaction

NO_SANDBOX = "this backend gives no {wanted} sandbox here: the agent works without one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Number and attempt of a turn that is to begin."""

    number: int
    attempt: int
    again: bool
    """The same turn as before, because that one failed or was abandoned."""


def next_place(run: Run, last: Turn | None) -> Place:
    """Which turn comes next. A number is used again only for another attempt at a turn that did not end in order."""
    if last is None:
        return Place(number=1, attempt=1, again=False)
    if run.attempt > last.attempt and last.number == run.turn:
        return Place(number=last.number, attempt=run.attempt, again=True)
    return Place(number=last.number + 1, attempt=1, again=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A turn about to begin."""

    place: Place
    prepared: Prepared
    folder: str
    """Relative to the data directory."""
    resume: Mapping[str, object]
    steers: Sequence[Request]
    words: Words

    def open(self, tx: Transaction, run: Run, now_ms: int, wish: Wish | None) -> tuple[Run, Turn] | None:
        """Store the turn, unless the run is to be let go first: then None.

        Raises Outdated when what the turn would say has changed since it was put together.
        """
        if let_go(tx, run, wish, now_ms):
            return None
        if any(taken_back(tx, run, request) for request in self.steers):
            raise Outdated
        if run.spec.mode == "chat":
            if not self.words.still_wait(tx, run):
                raise Outdated
            if not self.words.texts:
                drop_requests(tx, run, now_ms)
                moves.complete(tx, run, Completion(by="one_turn"), now_ms)
                return None
        turn = Turn(
            run_pk=run.pk, number=self.place.number, attempt=self.place.attempt, state=TurnState.STARTED,
            backend=run.backend, model=run.model, token=run.token, folder=self.folder, started_at=now_ms,
            first_seq=0, resume_before=dict(self.resume),
        )  # fmt: skip
        tx.turns.open(turn)
        opened = replace(run, turn=turn.number, attempt=turn.attempt, updated_at=now_ms)
        opened = self._with_sandbox(tx, opened, now_ms)
        self._tell_session(tx, opened, now_ms)
        return tx.runs.save(opened), turn

    def _tell_session(self, tx: Transaction, run: Run, now_ms: int) -> None:
        tx.sessions.touch(run.session_pk, now_ms, step=run.turn)
        if run.spec.mode == "chat":
            self.words.take(tx, run, now_ms)
        elif run.turn == 1 and run.attempt == 1:
            goal = SessionMessage(role="user", text=run.spec.goal, at=now_ms, run_id=run.id, turn=1)
            tx.sessions.add_message(run.session_pk, goal)
        for request in self.steers:
            said(tx, run, request, now_ms, f"used in turn {run.turn}")

    def _with_sandbox(self, tx: Transaction, run: Run, now_ms: int) -> Run:
        """What the sandbox really is with this backend; a missing one is said once, when that becomes known."""
        wanted = run.spec.sandbox
        missing = self.prepared.backend.capabilities.missing_sandbox(wanted)
        effective = "none" if missing else wanted
        if missing and (run.sandbox_effective != "none" or (run.turn, run.attempt) == (1, 1)):
            data = {
                "code": "sandbox_unavailable",
                "message": NO_SANDBOX.format(wanted=wanted),
                "retryable": False,
            }
            moves.note(tx, run, now_ms, Draft(type="error.recorded", data=data))
        return replace(run, sandbox_effective=effective)


def begun(tx: Transaction, run: Run, turn: Turn, pid: int | None, now_ms: int) -> Turn:
    """The agent has been started: `turn.started`."""
    data = {"turn": turn.number, "backend": turn.backend, "model": turn.model, "pid": pid}
    draft = Draft(type="turn.started", data=data, turn=turn.number, attempt=turn.attempt)
    first = tx.events.append(run.pk, [draft], now_ms)[0].seq
    started = replace(turn, pid=pid, first_seq=first)  # as it was opened: nobody else writes to it
    tx.turns.save(started)
    if pid is not None:
        tx.runs.save(replace(run, pid=pid, updated_at=now_ms))
    return started


def turn_start(
    run: Run, turn: Turn, prepared: Prepared, *, token: int, folders: Folders, timing: Timing, prompt: str,
    environment: Mapping[str, str], held_until: Callable[[], float], inputs_sent: int = 0,
) -> TurnStart:  # fmt: skip
    """What the backend needs to start `turn`, or to take it up again."""
    limits = run.limits
    return TurnStart(
        run_id=run.id, turn=turn.number, attempt=turn.attempt, token=token,
        folder=(folders.data_dir / turn.folder).absolute(), workspace=prepared.workspace,
        workspace_id=prepared.workspace_id,
        home=Path(prepared.home).absolute(), prompt=prompt, model=turn.model, effort=run.spec.effort,
        sandbox=run.spec.sandbox, approval_policy=run.spec.approval_policy, environment=environment,
        resume=turn.resume_before,
        limits=TurnLimits(
            timeout_s=timeout_s(run), output_bytes=limits.output_bytes, children=limits.children,
            grace_s=timing.grace_s,
        ),
        position=turn.position, inputs_sent=inputs_sent, held_until=held_until,
    )  # fmt: skip


def timeout_s(run: Run) -> float:
    """The turn's own limit, or what is left of the run's working time where that is less."""
    if run.limits.wall_clock_s is None:
        return run.limits.turn_timeout_s
    left = run.limits.wall_clock_s - run.stats.wall_ms / 1000
    return max(0.1, min(run.limits.turn_timeout_s, left))
