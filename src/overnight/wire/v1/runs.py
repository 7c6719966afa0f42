"""Runs and turns as they travel. The names are exact: clients rely on each."""

from __future__ import annotations

import re
from typing import Any, Final

from overnight.clock import rfc3339
from overnight.domain.event import FINAL_TYPES
from overnight.domain.json_values import dump
from overnight.domain.run import Run, Turn
from overnight.domain.spec import GitWorkspace, RunSpec
from overnight.domain.values import Completion

_LOGIN: Final = re.compile(r"^(https?://|ssh://[^/@:]*:)[^/]*@", re.IGNORECASE)


def run_resource(run: Run) -> dict[str, object]:
    """The snapshot of a run, with its frozen configuration (environment values masked)."""
    return run_summary(run) | {"config": config_document(run.spec)}


def config_document(spec: RunSpec) -> dict[str, object]:
    """A run's configuration. A password or token in the address of a repository is masked: readers need it not."""
    shown: dict[str, Any] = dump(spec)
    if isinstance(spec.workspace, GitWorkspace):
        shown["workspace"]["git"] = _LOGIN.sub(r"\1***@", spec.workspace.git)
    return shown


def run_summary(run: Run) -> dict[str, object]:
    """The same without `config`, for lists and the stream of summaries."""
    return {
        "id": run.id,
        "owner": run.owner,
        "state": run.state.value,
        "mode": run.spec.mode,
        "backend": run.backend,
        "agent": run.spec.agent,
        "goal": run.spec.goal,
        "session_id": run.session_id,
        "parent_id": run.parent_id,
        "retry_of": run.retry_of,
        "workspace": run.workspace,
        "host_id": run.host_id,
        "worker": run.worker,
        "pid": run.pid,
        "created_at": rfc3339(run.created_at),
        "updated_at": rfc3339(run.updated_at),
        "started_at": time(run.started_at),
        "ended_at": time(run.ended_at),
        "last_event_at": time(run.last_event_at),
        "attempt": run.attempt,
        "turn": run.turn,
        "stats": run.stats.to_json(),
        "completion": _completion(run.completion),
        "error": run.error.to_json() if run.error else None,
        "waiting_for": run.waiting_for.to_json() if run.waiting_for else None,
        "cancellation": run.cancellation.to_json() if run.cancellation else None,
        "sandbox_effective": run.sandbox_effective,
        "last_seq": run.last_seq,
        "labels": dict(run.spec.labels),
        "now": _now(run),
    }


def turn_resource(turn: Turn) -> dict[str, object]:
    """One attempt at one turn."""
    return {
        "turn": turn.number,
        "attempt": turn.attempt,
        "state": turn.state.value,
        "backend": turn.backend,
        "model": turn.model,
        "pid": turn.pid,
        "started_at": rfc3339(turn.started_at),
        "ended_at": time(turn.ended_at),
        "duration_ms": None if turn.ended_at is None else max(0, turn.ended_at - turn.started_at),
        "first_seq": turn.first_seq,
        "last_seq": turn.last_seq,
        "stop_reason": turn.stop_reason,
        "error": turn.error.to_json() if turn.error else None,
        "usage": turn.usage.to_json() if turn.usage else None,
        "files": turn.files.to_json() if turn.files else None,
        "tests": turn.tests.to_json() if turn.tests else None,
        "items": turn.items,
        "last_message": turn.last_message,
    }


def time(ms: int | None) -> str | None:
    """RFC 3339, or null for a time that has not come."""
    return None if ms is None else rfc3339(ms)


def is_final(event_type: str) -> bool:
    """Whether an event of that type is the last one of a run."""
    return event_type in FINAL_TYPES


def _completion(completion: Completion | None) -> dict[str, object]:
    if completion is None:
        return {"detected": False, "by": None, "line": None}
    return {"detected": True, **completion.to_json()}


def _now(run: Run) -> dict[str, object] | None:
    if run.now is None:
        return None
    return {"item": run.now.item, "text": run.now.text, "since": rfc3339(run.now.since)}
