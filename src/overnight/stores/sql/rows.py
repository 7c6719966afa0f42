"""Between rows and domain values. Documents are canonical JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import orjson

from overnight.domain.event import canonical
from overnight.domain.json_values import load as restored
from overnight.domain.run import Position, Run, Turn
from overnight.domain.session import Session
from overnight.domain.spec import LimitsSpec, RunSpec
from overnight.domain.states import State, TurnState
from overnight.domain.values import (
    Cancellation,
    Completion,
    Failure,
    FileStats,
    Now,
    Stats,
    TestStats,
    Usage,
    WaitingFor,
)
from overnight.stores.sql.statements import Row

T = TypeVar("T")


def dump(document: object) -> str:
    """A JSON document as the database keeps it."""
    return "{}" if document == {} else canonical(document).decode()


def load(text: str) -> dict[str, Any]:
    """A JSON object from the database."""
    return cast("dict[str, Any]", orjson.loads(text))


def _dump_value(value: object) -> str | None:
    """A flat frozen value by its fields; None stays None."""
    if value is None:
        return None
    return dump({name: getattr(value, name) for name in cast("Any", value).__slots__})


def _load_value(kind: type[T], text: str | None) -> T | None:
    return None if text is None else kind(**load(text))


def _dump_stats(stats: Stats) -> str:
    return dump(
        {
            "turns": stats.turns,
            "usage": {name: getattr(stats.usage, name) for name in Usage.__slots__},
            "files": {name: getattr(stats.files, name) for name in FileStats.__slots__},
            "tests": stats.tests and {name: getattr(stats.tests, name) for name in TestStats.__slots__},
            "wall_ms": stats.wall_ms,
        }
    )


@lru_cache(maxsize=256)
def _load_stats(text: str) -> Stats:
    # Frozen, and the same of every run that has not begun.
    found = load(text)
    tests = found.pop("tests")
    return Stats(
        turns=found["turns"],
        usage=Usage(**found["usage"]),
        files=FileStats(**found["files"]),
        tests=TestStats(**tests) if tests else None,
        wall_ms=found["wall_ms"],
    )


def _load_limits(text: str | None) -> LimitsSpec | None:
    return None if text is None else restored(LimitsSpec, load(text))


def _load_cancellation(text: str | None) -> Cancellation | None:
    if text is None:
        return None
    found = load(text)
    return Cancellation(reason=found["reason"], steps=tuple(found["steps"]), survivors=found["survivors"])


@lru_cache(maxsize=256)
def _load_spec(text: str) -> RunSpec:
    # Specs are frozen and read far more often than written; parsing one costs more than the query.
    return restored(RunSpec, load(text))


def dump_spec(spec: RunSpec) -> str:
    """A frozen spec, whole."""
    return orjson.dumps(spec).decode()


def changing(run: Run) -> dict[str, object]:
    """The columns that a save writes. The token is not among them: only holds and hand-backs move it."""
    return {
        "state": run.state.value,
        "host_id": run.host_id,
        "place": run.place,
        "workspace": run.workspace,
        "backend": run.backend,
        "worker": run.worker,
        "pid": run.pid,
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "attempt": run.attempt,
        "turn": run.turn,
        "fallback": run.fallback,
        "stats": _dump_stats(run.stats),
        "idle_turns": run.idle_turns,
        "completion": _dump_value(run.completion),
        "error": _dump_value(run.error),
        "waiting_for": dump_waiting(run.waiting_for),
        "waiting_until": run.waiting_until,
        "pause_reason": run.pause_reason,
        "cancellation": _dump_value(run.cancellation),
        "not_before": run.not_before,
        "raised_limits": run.raised_limits and orjson.dumps(run.raised_limits).decode(),
        "sandbox_effective": run.sandbox_effective,
        "now": _dump_value(run.now),
        "waiting_since": run.waiting_since,
    }


def dump_waiting(waiting: WaitingFor | None) -> str | None:
    """What a run waits for."""
    return _dump_value(waiting)


RUN_COLUMNS: Final = (
    "pk", "id", "owner", "state", "session_pk", "session_id", "parent_id", "retry_of", "host_id", "workspace",
    "worker", "pid", "created_at", "updated_at", "started_at", "ended_at", "token", "attempt", "turn", "fallback",
    "stats", "idle_turns", "completion", "error", "waiting_for", "waiting_until", "pause_reason", "cancellation",
    "not_before", "raised_limits", "sandbox_effective", "now", "change", "waiting_since", "place",
)  # fmt: skip
"""Of `runs`, in the order that `run_of` expects; behind them come the spec, `last_seq` and `last_at`."""


def run_of(row: Row) -> Run:
    """A run from `RUN_COLUMNS`, spec and the ends of its stream."""
    (
        pk, id, owner, state, session_pk, session_id, parent_id, retry_of, host_id, workspace,
        worker, pid, created_at, updated_at, started_at, ended_at, token, attempt, turn, fallback,
        stats, idle_turns, completion, error, waiting_for, waiting_until, pause_reason, cancellation,
        not_before, raised_limits, sandbox_effective, now, change, waiting_since, place,
        spec, last_seq, last_at,
    ) = row  # fmt: skip
    return Run(
        pk=pk, id=id, owner=owner, state=State(state), spec=_load_spec(spec), session_pk=session_pk,
        session_id=session_id, parent_id=parent_id, retry_of=retry_of, host_id=host_id, workspace=workspace,
        worker=worker, pid=pid, created_at=created_at, updated_at=updated_at, started_at=started_at,
        ended_at=ended_at, last_event_at=last_at, token=token, attempt=attempt, turn=turn, fallback=fallback,
        stats=_load_stats(stats), idle_turns=idle_turns, completion=_load_value(Completion, completion),
        error=_load_value(Failure, error), waiting_for=_load_value(WaitingFor, waiting_for),
        waiting_until=waiting_until, pause_reason=pause_reason, cancellation=_load_cancellation(cancellation),
        not_before=not_before, raised_limits=_load_limits(raised_limits), sandbox_effective=sandbox_effective,
        now=_load_value(Now, now),
        last_seq=last_seq, change=change, waiting_since=waiting_since, place=place,
    )  # fmt: skip


TURN_COLUMNS: Final = (
    "run_pk", "number", "attempt", "state", "backend", "model", "token", "folder", "pid", "started_at", "ended_at",
    "first_seq", "last_seq", "stdout", "stderr", "stop_reason", "error", "usage", "files", "tests", "items",
    "last_message", "resume_before", "blocked_ms",
)  # fmt: skip


def turn_values(turn: Turn) -> dict[str, object]:
    """Every column of a turn."""
    return {
        "run_pk": turn.run_pk, "number": turn.number, "attempt": turn.attempt, "state": turn.state.value,
        "backend": turn.backend, "model": turn.model, "token": turn.token, "folder": turn.folder, "pid": turn.pid,
        "started_at": turn.started_at, "ended_at": turn.ended_at, "first_seq": turn.first_seq,
        "last_seq": turn.last_seq, "stdout": turn.position.stdout, "stderr": turn.position.stderr,
        "stop_reason": turn.stop_reason, "error": _dump_value(turn.error), "usage": _dump_value(turn.usage),
        "files": _dump_value(turn.files), "tests": _dump_value(turn.tests), "items": turn.items,
        "last_message": turn.last_message, "resume_before": dump(turn.resume_before), "blocked_ms": turn.blocked_ms,
    }  # fmt: skip


def turn_of(row: Row) -> Turn:
    """A turn from `TURN_COLUMNS`."""
    (
        run_pk, number, attempt, state, backend, model, token, folder, pid, started_at, ended_at,
        first_seq, last_seq, stdout, stderr, stop_reason, error, usage, files, tests, items,
        last_message, resume_before, blocked_ms,
    ) = row  # fmt: skip
    return Turn(
        run_pk=run_pk, number=number, attempt=attempt, state=TurnState(state), backend=backend, model=model,
        token=token, folder=folder, pid=pid, started_at=started_at, ended_at=ended_at, first_seq=first_seq,
        last_seq=last_seq, position=Position(stdout=stdout, stderr=stderr), stop_reason=stop_reason,
        error=_load_value(Failure, error), usage=_load_value(Usage, usage), files=_load_value(FileStats, files),
        tests=_load_value(TestStats, tests), items=items, last_message=last_message,
        resume_before=load(resume_before), blocked_ms=blocked_ms,
    )  # fmt: skip


SESSION_COLUMNS: Final = (
    "pk", "id", "owner", "name", "mode", "state", "made_for_run", "version", "variables", "config",
    "created_at", "updated_at", "phase", "step", "plan",
)  # fmt: skip


def session_values(session: Session) -> Mapping[str, object]:
    """Every column of a session but its key."""
    return {
        "id": session.id, "owner": session.owner, "name": session.name, "mode": session.mode,
        "state": session.state, "made_for_run": int(session.made_for_run), "version": session.version,
        "variables": dump(session.variables), "config": dump(session.config), "created_at": session.created_at,
        "updated_at": session.updated_at, "phase": session.phase, "step": session.step,
        "plan": None if session.plan is None else dump(session.plan), "name_folded": session.name.casefold(),
    }  # fmt: skip


def session_of(row: Row) -> Session:
    """A session from `SESSION_COLUMNS`."""
    (
        pk, id, owner, name, mode, state, made_for_run, version, variables, config, created_at, updated_at,
        phase, step, plan,
    ) = row  # fmt: skip
    return Session(
        pk=pk, id=id, owner=owner, name=name, mode=mode, state=state, made_for_run=bool(made_for_run),
        version=version, variables=load(variables), config=load(config), created_at=created_at,
        updated_at=updated_at, phase=phase, step=step, plan=None if plan is None else load(plan),
    )  # fmt: skip
