"""From the events of a run to what an editor shows: recorded logs, and the cases that are easy to get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.client.editor.course import Course
from overnight.client.editor.patches import Piece, pieces
from overnight.client.editor.permissions import choice_of, options_of, tool_call_of
from overnight.client.editor.speech import Speech
from overnight.client.editor.tools import kind_of
from overnight.client.editor.transcript import Transcript

GOLDEN = Path(__file__).parent / "golden"


def log(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]


def told(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    transcript = Transcript("run_1", "/repo")
    updates = [update for item in items for update in transcript.feed(item)]
    return [update.model_dump(mode="json", by_alias=True, exclude_none=True) for update in updates]


@pytest.mark.parametrize("name", ["conversing", "printing"])
def test_a_recorded_log_is_told_as_it_was(name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.updates.json").read_text())
    assert told(log(name)) == expected


@pytest.mark.parametrize("name", ["conversing", "printing"])
def test_without_the_pieces_the_same_is_said(name: str) -> None:
    def said(items: list[dict[str, Any]]) -> str:
        return "".join(
            update["content"]["text"]
            for update in told(items)
            if update["sessionUpdate"] == "agent_message_chunk"
        )

    items = log(name)
    assert said(items) == said([item for item in items if "seq" in item])


def event(type: str, **data: Any) -> dict[str, Any]:
    return {"seq": 1, "type": type, "turn": 1, "attempt": 1, "data": data}


def delta(item: str, offset: int, text: str) -> dict[str, Any]:
    return {"type": "message.delta", "turn": 1, "data": {"item_id": item, "offset": offset, "text": text}}


def said(*items: dict[str, Any]) -> str:
    return "|".join(update["content"]["text"] for update in told(list(items)))


def test_pieces_and_whole_make_the_text_once() -> None:
    whole = event("message.completed", item_id="m", text="one two three")
    assert said(delta("m", 0, "one "), delta("m", 4, "two "), whole) == "one |two |three"
    assert said(delta("m", 0, "one "), delta("m", 8, "three"), whole) == "one |two three"  # a piece was lost
    assert said(delta("m", 4, "two "), whole) == "one two three"  # the reader came late
    assert said(delta("m", 0, "one "), delta("m", 0, "one two "), whole) == "one |two |three"  # told again
    assert said(delta("m", 0, "one two three"), whole) == "one two three"


def test_a_turn_that_is_done_again_tells_its_messages_again() -> None:
    again = {**event("turn.started"), "attempt": 2}
    text = said(
        delta("m", 0, "one "),
        again,
        delta("m", 0, "one "),
        event("message.completed", item_id="m", text="one two"),
    )
    assert text == "one |[Overnight] Turn 1 begins again, attempt 2.\n|one |two"


def test_a_message_is_not_told_in_pieces_before_the_one_that_came_first_is_whole() -> None:
    first = event("message.completed", item_id="a", text="first")
    tool = event("tool.completed", item_id="t", name="read", ok=True)
    second = event("message.completed", item_id="b", text="second")
    items = [delta("a", 0, "fi"), delta("b", 0, "sec"), first, delta("b", 3, "on"), tool, second]
    kinds = [
        (one["sessionUpdate"], one.get("content", {}).get("text")) for one in told(items) if "content" in one
    ]
    assert kinds == [("agent_message_chunk", text) for text in ("fi", "rst", "second")]


@given(st.text(alphabet="abc", min_size=1, max_size=30), st.data())
def test_whatever_is_lost_or_repeated_the_text_is_told_once(text: str, data: st.DataObject) -> None:
    speech, shown = Speech(), ""
    for _ in range(data.draw(st.integers(0, 8))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, len(text)))
        shown += speech.piece("m", start, text[start:end])
    shown += speech.whole("m", text)
    assert shown == text


def test_what_a_program_printed_is_not_said_again_as_its_answer() -> None:
    lines = event("output.recorded", stream="stdout", text="I work.\nDone.\n", truncated_bytes=0)
    assert (
        said(lines, event("message.completed", item_id="answer", text="I work.\nDone.")) == "I work.\nDone.\n"
    )
    cut = event("output.recorded", stream="stdout", text="Done.\n", truncated_bytes=9)
    assert said(cut, event("message.completed", item_id="answer", text="Done.")) == "Done.\n|\n\nDone."
    assert said(event("output.recorded", stream="stderr", text="noise\n")) == ""


def test_a_message_that_is_recorded_again_is_not_told_again() -> None:
    whole = event("message.completed", item_id="m", text="one")
    restarted = event("run.recovered", adopted=True)
    assert (
        said(whole, restarted, whole)
        == "one|[Overnight] The server was restarted; the agent worked on meanwhile.\n"
    )
    other = event("message.completed", item_id="m", text="two")
    assert said(whole, other) == "one|two"


def test_tools_that_nobody_ended_fail_with_their_turn() -> None:
    updates = told(
        [event("command.started", item_id="c", command="make"), event("turn.abandoned", reason="gone")]
    )
    assert [(one["sessionUpdate"], one.get("status")) for one in updates[:2]] == [
        ("tool_call", "in_progress"),
        ("tool_call_update", "failed"),
    ]


def test_a_file_that_a_tool_call_shows_is_not_shown_again() -> None:
    started = event("tool.started", item_id="t", name="write_file", arguments={"path": "src/a.py"})
    updates = told([started, event("file.written", path="src/a.py", added_lines=1)])
    assert [one["title"] for one in updates] == ["write_file src/a.py"]
    assert updates[0]["kind"] == "edit"
    assert updates[0]["locations"] == [{"path": "/repo/src/a.py"}]


@pytest.mark.parametrize(
    "name,kind",
    [
        ("Read", "read"), ("read_file", "read"), ("Grep", "search"), ("WebFetch", "fetch"), ("MultiEdit", "edit"),
        ("apply_patch", "edit"), ("run_shell_command", "execute"), ("TodoWrite", "edit"), ("mcp__x__thing", "other"),
        ("delete_file", "delete"), ("", "other"),
    ],
)  # fmt: skip
def test_kinds_are_told_by_names(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_patches_become_pieces() -> None:
    made = (
        "diff --git a/n b/n\nnew file mode 100644\n--- /dev/null\n+++ b/n\n@@ -0,0 +1,2 @@\n+one\n+--- two\n"
    )
    assert pieces(made) == [Piece(path="n", before=None, after="one\n--- two\n")]
    two = "--- x\n+++ x\n@@ -1,3 +1,3 @@\n a\n-b\n+c\n d\n@@ -9 +9 @@\n-old\n\\ No newline at end of file\n+new\n"
    assert pieces(two) == [
        Piece(path="x", before="a\nb\nd\n", after="a\nc\nd\n"),
        Piece(path="x", before="old\n", after="new\n"),
    ]
    gone = "--- a/n\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n"
    assert pieces(gone) == [Piece(path="n", before="one\n", after="")]
    assert pieces("") == pieces("Binary files differ\n") == pieces("@@ nonsense @@\n") == []


@given(st.text(alphabet="ab@-+ \n\\,0123", max_size=80))
def test_no_patch_is_too_strange_to_be_read(text: str) -> None:
    pieces(text)


def courses(*events: dict[str, Any]) -> Course:
    course = Course()
    for one in events:
        course.feed(one)
    return course


def test_a_turn_has_ended_when_the_next_begins_or_the_run_ends() -> None:
    first, usage = event("turn.started"), {"total": 12, "input": 10, "output": 2}
    done = event("turn.completed", stop_reason="end_turn", usage=usage)
    course = courses(first, done)
    assert course.ending(1) is None
    course.feed({**event("turn.started"), "turn": 2})
    ended = course.ending(1)
    assert ended is not None
    assert (ended.stop, ended.usage.total_tokens if ended.usage else None) == ("end_turn", 12)
    assert course.ending(2) is None
    course.feed(event("run.cancelled"))
    assert (course.ending(2) or ended).stop == "cancelled"
    assert course.ending(1) == ended


@pytest.mark.parametrize(
    "events,stop",
    [
        ([event("turn.completed", stop_reason="refusal"), event("run.completed", by="one_turn")], "refusal"),
        (
            [event("turn.completed", stop_reason="whatever"), event("run.completed", by="one_turn")],
            "end_turn",
        ),
        ([event("turn.completed"), event("run.completed", by="limit")], "max_turn_requests"),
        ([event("run.completed", by="decision")], "end_turn"),
    ],
)
def test_reasons(events: list[dict[str, Any]], stop: str) -> None:
    ending = courses(event("turn.started"), *events).ending(1)
    assert ending is not None
    assert (ending.stop, ending.trouble) == (stop, None)


def test_a_failed_attempt_is_no_end_and_a_pause_for_the_backend_is_one_until_it_goes_on() -> None:
    course = courses(event("turn.started"), event("turn.failed", code="x", message="y"))
    assert course.ending(1) is None
    course.feed({**event("turn.started"), "attempt": 2})
    assert course.ending(1) is None
    course.feed(event("run.paused", reason="manual"))
    assert course.ending(1) is None
    course.feed(
        event("run.paused", reason="backend_error", code="rate_limited", message="later", retryable=True)
    )
    ending = course.ending(1)
    assert ending is not None
    assert ending.trouble is not None
    assert (ending.trouble.code, ending.trouble.retryable) == ("rate_limited", True)
    course.feed(event("run.resumed"))
    assert course.ending(1) is None
    course.feed(event("run.failed", code="x", message="no"))
    assert (course.final or ending).trouble is not None


BUDGET = {
    "id": "apr_1", "kind": "budget", "title": "The budget is spent", "digest": "d", "state": "pending",
    "context": {"budget": "cost_usd", "used": 1.5, "limit": 1.0},
    "options": [
        {"id": "raise", "label": "Raise", "kind": "raise"}, {"id": "finish", "label": "Finish", "kind": "finish"},
        {"id": "later", "label": "New kind", "kind": "unheard_of"},
    ],
}  # fmt: skip


def test_a_budget_is_raised_to_an_amount_that_is_shown() -> None:
    options = options_of(BUDGET)
    assert [(one.option_id, one.kind, one.name) for one in options] == [
        ("raise", "allow_once", "Raise: 3 cost_usd"),
        ("finish", "reject_once", "Finish"),
    ]
    raised = choice_of(BUDGET, "raise")
    assert raised is not None
    assert raised.changes == {"limits": {"cost_usd": 3.0}}
    assert choice_of(BUDGET, "nonsense") is None
    assert tool_call_of(BUDGET, "apr_1", "/repo").kind == "think"


def test_the_answers_to_a_question_are_options_and_a_rule_is_shown_exactly() -> None:
    answers = [
        {"id": "blue", "label": "Blue", "kind": "answer"},
        {
            "id": "allow_always", "label": "Always", "kind": "allow_always",
            "rule": {"effect": "allow", "tool": "execute", "command": "make test", "exact": True, "argv": None},
        },
    ]  # fmt: skip
    question = {**BUDGET, "kind": "question", "options": answers, "context": {"action": "other"}}
    assert [(one.option_id, one.kind, one.name) for one in options_of(question)] == [
        ("blue", "allow_once", "Blue"),
        ("allow_always", "allow_always", "Always: tool execute, command make test"),
    ]
    chosen = choice_of(question, "blue")
    assert chosen is not None
    assert (chosen.option, chosen.digest, chosen.changes) == ("blue", "d", None)
