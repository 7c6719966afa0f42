"""Frames, judged by a parser written from the standard's text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.event import TYPES, Draft, Recorded, encode
from overnight.errors import InvalidCursor
from overnight.wire import sse

drafts = st.builds(
    Draft,
    type=st.sampled_from(sorted(TYPES)),
    data=st.dictionaries(
        st.text(max_size=8), st.text(alphabet=st.characters(), max_size=40) | st.integers(), max_size=3
    ),
)


def recorded(found: list[Draft]) -> tuple[Recorded, ...]:
    return tuple(
        Recorded(seq, draft.type, encode(draft, seq=seq, run_id="run_x", session_id=None, at=seq * 1000))
        for seq, draft in enumerate(found, 1)
    )


def parsed(stream: bytes) -> list[tuple[str, str, str]]:
    """(id, event, data) of each dispatched event: lines end with CR, LF or CRLF, a blank line dispatches."""
    text = stream.decode("utf-8").removeprefix("\ufeff")
    last_id, found = "", []
    data: list[str] = []
    event = ""
    for line in re.split("\r\n|\r|\n", text):
        if line == "":
            if data:
                found.append((last_id, event or "message", "\n".join(data)))
            data, event = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return found


@given(st.lists(drafts, max_size=8))
def test_every_event_survives_the_standards_parser_untouched(found: list[Draft]) -> None:
    batch = recorded(found)
    expected = [(str(event.seq), "message", event.body.decode()) for event in batch]
    assert parsed(sse.OPENED + sse.events(batch) + sse.KEEPALIVE) == expected
    named = [(str(event.seq), event.type, event.body.decode()) for event in batch]
    assert parsed(sse.named_events(batch)) == named


@given(st.lists(drafts, min_size=1, max_size=8), st.data())
def test_frames_can_be_cut_and_joined_anywhere(found: list[Draft], data: st.DataObject) -> None:
    batch = recorded(found)
    frames = sse.events(batch)
    at = data.draw(st.integers(0, len(batch)))
    assert sse.events(batch[:at]) + sse.events(batch[at:]) == frames
    limit = data.draw(st.integers(1, 300))
    pieces = sse.slices(frames, limit)
    assert b"".join(pieces) == frames
    assert all(0 < len(piece) <= limit for piece in pieces)


def test_the_end_a_gap_and_a_delta() -> None:
    assert parsed(sse.end(7)) == [("7", "end", "[DONE]")]
    assert parsed(sse.gap(6, 11)) == [("5", "gap", '{"earliest":6,"latest":11}')]
    body = b'{"type":"message.delta","data":{}}'
    assert parsed(sse.delta(4, body)) == [("4", "message.delta", body.decode())]
    assert parsed(sse.summary(9, {"id": "run_x"})) == [("9", "message", '{"id":"run_x"}')]


@given(st.text(max_size=20))
def test_a_delta_cannot_forge_a_frame(kind: str) -> None:
    import orjson

    try:
        body = orjson.dumps({"type": kind})
    except TypeError:
        return  # a lone surrogate is no JSON to begin with
    frames = parsed(sse.delta(1, body))
    assert len(frames) == 1
    assert frames[0][2] == body.decode()


@pytest.mark.parametrize(
    "header,query,expected",
    [(None, None, 0), ("5", "3", 5), ("", "3", 3),
     (None, "end", None), ("end", None, None), ("0", None, 0), ("007", None, 7)],
)  # fmt: skip
def test_the_cursor_comes_from_the_header_first(
    header: str | None, query: str | None, expected: int | None
) -> None:
    assert sse.cursor(header, query) == expected


@given(st.text(min_size=1, max_size=30))
def test_anything_else_is_no_cursor(text: str) -> None:
    if re.fullmatch(r"[0-9]{1,19}", text) and int(text) < 1 << 63:
        assert sse.cursor(text, None) == int(text)
    elif text != "end":
        with pytest.raises(InvalidCursor):
            sse.cursor(text, None)
