"""A change is told once, however many saw it; a claim that turns out true is not told again."""

from __future__ import annotations

import json

from overnight.domain import update as u
from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.interpreter import Interpreter
from overnight.ports.workspace import FileChange

TRUE, FALSE = "a" * 64, "b" * 64


def claim(path: str, sha256: str | None) -> Draft:
    return Draft(
        type="file.written", data={"path": path, "kind": "created", "sha256": sha256, "source": "agent"}
    )


def change(path: str, sha256: str) -> FileChange:
    return FileChange(path=path, kind="created", bytes=3, sha256=sha256, added_lines=1)


def test_a_true_claim_is_told_once() -> None:
    ledger = FileLedger("/w", watched=True)
    assert len(ledger.claimed(claim("a.py", TRUE))) == 1
    assert ledger.written("a.py", "created", 3, TRUE) == []
    assert ledger.settle([change("a.py", TRUE)]) == []


def test_a_false_claim_does_not_hide_what_happened() -> None:
    ledger = FileLedger("/w", watched=True)
    ledger.claimed(claim("a.py", FALSE))
    ledger.claimed(claim("b.py", None))
    told = ledger.settle([change("a.py", TRUE), change("b.py", TRUE)])
    assert [draft.data["path"] for draft in told] == ["a.py", "b.py"]


def test_a_claim_about_a_file_outside_says_so_and_hides_nothing_inside() -> None:
    ledger = FileLedger("/w", watched=True)
    told = ledger.claimed(claim("../a.py", TRUE))
    assert told[0].data["outside"] is True
    assert len(ledger.settle([change("a.py", TRUE)])) == 1


def test_the_growth_of_a_watched_log_is_not_told_by_the_agent_too() -> None:
    files = FileLedger("/w", watched=True)
    logs = frozenset({"WORKLOG.md"})
    interpreter = Interpreter(wall_ms=lambda: 5, redactor=Redactor(), files=files, watched=logs)
    for path, told in (("WORKLOG.md", 0), ("OTHER.md", 1)):
        body = {"type": "log.updated", "kind": "work", "path": path, "added_lines": 1}
        line = json.dumps({"__overnight__": body}).encode() + b"\n"
        assert len(interpreter.feed(u.Output(stream="stdout", data=line), 0.0)) == told
