"""A log as Responses events: the same for every reader, exact from every position, and what the schema allows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.responses.logs import HEAD, Entry, captured, draft, fragment, log, resumed, told
from tests.responses.reading import Reader, judged

from overnight.domain.event import TYPES, Draft, Recorded
from overnight.errors import InvalidCursor
from overnight.wire.responses import EXTENSION, Mapper, Position, Step
from overnight.wire.responses.position import MOST_SEQ, MOST_SHOWN

GOLDEN = Path(__file__).parent / "golden"
QUEUED = draft("run.queued", turn=None, attempt=None)
STARTED, DONE = draft("turn.started"), draft("run.completed")


def types(steps: list[Step]) -> list[str]:
    return [step["type"].removeprefix("response.") for step in steps]


def said(item: str, text: str, type: str = "message.completed") -> Draft:
    return draft(type, item_id=item, text=text)


def tool(type: str, item: str, **more: Any) -> Draft:
    return draft(f"tool.{type}", item_id=item, name="grep", **more)


def command(type: str, item: str, **more: Any) -> Draft:
    return draft(f"command.{type}", item_id=item, command="make test", **more)


@pytest.mark.parametrize("name", ["codex", "claude"])
def test_what_a_real_agent_did_becomes_the_same_for_ever(name: str) -> None:
    steps = told(captured(name))
    lines = b"".join(orjson.dumps(step) + b"\n" for step in steps)
    path = GOLDEN / f"{name}.jsonl"
    if os.environ.get("OVERNIGHT_GOLDEN") == "write":
        path.write_bytes(lines)
    assert lines == path.read_bytes()
    response = judged(steps)
    assert response is not None
    assert response.output_text.endswith("DONE. hello.txt is written.")
    assert [item.type for item in response.output] == [
        "reasoning", "message", "shell_call", "shell_call_output", "message",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["codex", "claude"])
def test_a_real_agents_log_resumes_behind_every_step(name: str) -> None:
    entries = captured(name)
    whole = told([entry for entry in entries if isinstance(entry, Recorded)])
    for number, step in enumerate(whole, 1):
        found = resumed([entry for entry in entries if isinstance(entry, Recorded)], step["sequence_number"])
        assert found == whole[number:], step


def test_one_of_everything_is_valid_by_the_official_types() -> None:
    asked = draft(
        "approval.requested", approval_id="apr_1", kind="action", title="make test", context={"command": "make test"},
        options=[{"id": "yes", "kind": "allow_once"}, {"id": "no", "kind": "reject_once"}],
    )  # fmt: skip
    steps = told(log(
        QUEUED, draft("run.started"), STARTED, said("r", " why ", "reasoning.completed"), said("m", "hello"),
        tool("started", "t", arguments={"path": "/"}), tool("completed", "t", ok=True, output="found"),
        tool("started", "u", arguments={}), tool("completed", "u", ok=False, output="no"),
        command("started", "c"), asked, draft("approval.resolved", approval_id="apr_1", option="yes", feedback=None),
        command("completed", "c", ok=True, output="ok\n", exit_code=0),
        asked, asked, draft("approval.expired", approval_id="apr_1", option="no", feedback="too late"),
        draft("approval.resolved", approval_id=None, option="allow_once", by="rule"),
        draft("turn.completed"), DONE,
    ))  # fmt: skip
    response = judged(steps)
    assert response is not None
    found = [item.model_dump() for item in response.output]
    assert [item["type"] for item in found] == [
        "reasoning", "message", "function_call", "function_call_output", "function_call", "function_call_output",
        "shell_call", "mcp_approval_request", "mcp_approval_response", "shell_call_output",
        "mcp_approval_request", "mcp_approval_request", "mcp_approval_response",
    ]  # fmt: skip
    assert found[0]["summary"] == [{"text": "why", "type": "summary_text"}]
    assert (found[2]["arguments"], found[3]["output"], found[3]["call_id"]) == (
        '{"path":"/"}',
        "found",
        found[2]["call_id"],
    )
    assert found[5]["status"] == "incomplete"
    assert found[9]["output"] == [
        {
            "outcome": {"exit_code": 0, "type": "exit"},
            "stderr": "",
            "stdout": "ok\n",
            "created_by": None,
        }
    ]
    assert [item["approve"] for item in (found[8], found[12])] == [True, False]
    assert found[12]["approval_request_id"] == found[11]["id"] != found[10]["id"]
    indexes = [step["output_index"] for step in steps if step["type"] == "response.output_item.added"]
    assert indexes == list(range(len(found)))


def test_what_the_schema_has_no_words_for_is_carried_whole_or_left_out() -> None:
    events = log(*(draft(type) for type in sorted(TYPES) if type in {"plan.updated", "output.recorded"}))
    assert [types(Mapper(HEAD).feed(event)) for event in events[1:]] == [[]]
    (step,) = Mapper(HEAD, extensions=True).feed(events[1])
    assert step["type"] == EXTENSION
    assert orjson.loads(orjson.dumps(step["event"])) == orjson.loads(events[1].body)


def test_text_is_shown_while_it_is_said() -> None:
    events = log(QUEUED, STARTED, said("m", "one two three"), DONE)
    before, (completed, _) = events[:2], events[2:]
    mapper = Mapper(HEAD)
    told(before, mapper)
    live = told([fragment("m", 0, "one "), fragment("m", 4, "two ")], mapper)
    assert types(live) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
    ]
    rest = mapper.feed(completed)
    assert types(rest) == [
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert Reader().read([*live, *rest]).deltas == {"msg_1_1_m": "one two three"}
    assert told([fragment("m", 0, "one ")], mapper) == [], "what comes late is not shown again"


@pytest.mark.parametrize(
    "fragments",
    [
        [fragment("m", 4, "two ")],
        [fragment("m", 0, "one "), fragment("m", 8, "three")],
        [fragment("m", 0, "one "), fragment("m", 0, "one "), fragment("m", 2, "e two")],
        [fragment("m", 0, "one two three")],
        [fragment("m", 0, "one \x1b[1m")],
        [fragment("other", 0, "never"), fragment("m", 0, "one ")],
        [fragment("m", 0, "  "), fragment("r", 0, "thought", "reasoning")],
    ],
)
def test_fragments_that_are_lost_doubled_or_mixed_up_change_no_text(fragments: list[bytes]) -> None:
    head, tail = log(QUEUED, STARTED), log(said("m", "one two three"), draft("turn.completed"), DONE, first=3)
    steps = told([*head, *fragments, *tail])
    assert judged(steps) is not None
    read = Reader().read(steps)
    assert read.deltas["msg_1_1_m"] == read.whole["msg_1_1_m"] == "one two three"
    assert len(set(read.began)) == len(read.began) == len(read.ended)
    assert read.numbers == sorted(set(read.numbers))


def test_an_item_whose_agent_died_ends_incomplete() -> None:
    steps = told(
        [*log(QUEUED, STARTED), fragment("m", 0, "half a sen"), *log(draft("turn.abandoned"), first=3)]
    )
    (done,) = [step for step in steps if step["type"] == "response.output_item.done"]
    assert (done["item"]["status"], done["item"]["content"][0]["text"]) == ("incomplete", "half a sen")


def test_reasoning_is_shown_without_the_blanks_around_it() -> None:
    shown = [fragment("r", 0, "\n ", "reasoning"), fragment("r", 2, "why", "reasoning")]
    steps = told(
        [*log(QUEUED, STARTED), *shown, *log(said("r", "\n why not ", "reasoning.completed"), first=3)]
    )
    assert Reader().read(steps).deltas == {"rs_1_1_r": "why not"}


def test_a_number_that_was_never_given_out_is_refused() -> None:
    for number in (-1, 3 << 20, 5, 1 << 16, 1 << 53, (MOST_SEQ + 1) << 26):
        with pytest.raises(InvalidCursor):
            Position.of(number)


@given(
    st.builds(
        Position, st.integers(0, MOST_SEQ), st.integers(0, 15), st.sampled_from(["message", "reasoning"]),
        st.integers(0, MOST_SHOWN), st.integers(0, 15),
    )
)  # fmt: skip
def test_a_number_holds_its_position(at: Position) -> None:
    assert Position.of(at.number) == at
    assert at.number < 1 << 53


ITEMS = st.sampled_from(["a", "b", "c"])
EVENTS = st.one_of(
    st.builds(said, ITEMS, st.text(max_size=5), st.sampled_from(["message.completed", "reasoning.completed"])),
    st.builds(lambda item: tool("started", item, arguments={"n": 1}), ITEMS),
    st.builds(lambda item: tool("completed", item, ok=True, output="x"), ITEMS),
    st.builds(lambda item: command("started", item), ITEMS),
    st.builds(lambda item: command("completed", item, ok=False, output="x", exit_code=None), ITEMS),
    st.sampled_from(["output.recorded", "turn.started", "turn.failed", "run.paused"]).map(draft),
)  # fmt: skip


@given(st.lists(EVENTS, max_size=12))
def test_any_log_is_a_valid_stream_that_resumes_behind_every_step(drafts: list[Draft]) -> None:
    entries: list[Entry] = [*log(QUEUED, *drafts, DONE)]
    whole = told(entries)
    assert judged(whole) is not None
    for number, step in enumerate(whole, 1):
        assert resumed(entries, step["sequence_number"]) == whole[number:]


@st.composite
def lives(draw: st.DrawFn) -> list[Entry]:
    """A run with items that are said in pieces, one after the other, with other things happening in between."""
    entries: list[Entry] = [*log(QUEUED, STARTED)]
    seq = 2
    for number in range(draw(st.integers(1, 4))):
        type, item = draw(st.sampled_from(["message", "reasoning"])), f"i{number}"
        text = draw(st.text(alphabet="ab \n", min_size=1, max_size=12).map(lambda it: f"x{it}y"))
        at = 0
        while at < len(text):
            end = draw(st.integers(at + 1, len(text)))
            if draw(st.integers(0, 5)):
                entries.append(fragment(item, at, text[at:end], type))
            at = end
            if not draw(st.integers(0, 3)):
                other = draw(st.sampled_from([draft("output.recorded"), command("started", f"c{seq}")]))
                seq += 1
                entries += log(other, first=seq)
        ends = said(item, text, f"{type}.completed") if draw(st.integers(0, 4)) else draft("turn.abandoned")
        seq += 1
        entries += log(ends, first=seq)
    return [*entries, *log(draft("turn.completed"), DONE, first=seq + 1)]


@given(lives(), st.data())
def test_a_reader_that_is_cut_off_anywhere_has_every_text_whole(
    entries: list[Entry], data: st.DataObject
) -> None:
    steps = told(entries)
    assert judged(steps) is not None
    cut = data.draw(st.integers(1, len(steps)))
    number = steps[cut - 1]["sequence_number"]
    heard = next(at for at in range(len(entries) + 1) if len(told(entries[:at])) >= cut)
    kept = [
        entry
        for at, entry in enumerate(entries)
        if isinstance(entry, Recorded) or (at >= heard and data.draw(st.booleans(), label="heard"))
    ]
    read = Reader().read(steps[:cut]).read(resumed(kept, number))
    assert read.numbers == sorted(set(read.numbers))
    assert len(set(read.began)) == len(read.began)
    assert len(set(read.ended)) == len(read.ended)
    assert len(set(read.places.values())) == len(read.places), "no two items have the same place"
    completed: dict[str, Any] = (
        Reader().read(told([one for one in entries if isinstance(one, Recorded)])).whole
    )
    assert {id: read.deltas[id] for id in completed} == read.whole == completed
