"""The parser against the standard: a corpus of wire cases, each cut at every place."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.client.sse import Frame, SseParser
from overnight.errors import BodyTooLarge


def m(data: str, id: str = "", event: str = "message") -> Frame:
    return Frame(event=event, data=data, id=id)


CORPUS: dict[str, tuple[bytes, list[Frame]]] = {
    "plain": (b"data: a\n\n", [m("a")]),
    "cr line ends": (b"data: a\r\rdata: b\r\r", [m("a"), m("b")]),
    "crlf line ends": (b"data: a\r\n\r\ndata: b\r\n\r\n", [m("a"), m("b")]),
    "mixed line ends": (b"id: 1\r\ndata: a\n\rdata: b\r\n\n", [m("a", "1"), m("b", "1")]),
    "leading byte-order mark": (b"\xef\xbb\xbfdata: a\n\n", [m("a")]),
    "a second byte-order mark is part of a name": (
        b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
        [m("b")],
    ),
    "byte-order mark inside data": (b"data: \xef\xbb\xbfa\n\n", [m("\ufeffa")]),
    "several data lines": (b"data: a\ndata\ndata: b\n\n", [m("a\n\nb")]),
    "empty data dispatches": (b"data\n\ndata:\n\n", [m(""), m("")]),
    "no data does not": (b"event: x\nid: 4\n\ndata: a\n\n", [m("a", "4")]),
    "one space is removed": (b"data:  a\ndata:\tb\n\n", [m(" a\n\tb")]),
    "event names last one event": (b"event: x\ndata: a\n\ndata: b\n\n", [m("a", event="x"), m("b")]),
    "id is sticky": (b"id: 7\ndata: a\n\ndata: b\n\n", [m("a", "7"), m("b", "7")]),
    "empty id resets": (b"id: 7\ndata: a\n\nid\ndata: b\n\n", [m("a", "7"), m("b")]),
    "id with NUL is ignored": (b"id: 7\ndata: a\n\nid: 8\x009\ndata: b\n\n", [m("a", "7"), m("b", "7")]),
    "non-ASCII id": ("id: é…\ndata: a\n\n".encode(), [m("a", "é…")]),
    "comments": (b":keepalive\n\n: x\ndata: a\n:y\n\n", [m("a")]),
    "unknown fields and cases": (b"Data: x\nfoo: y\ndata: a\n\n", [m("a")]),
    "line without a colon": (b"nonsense\ndata: a\n\n", [m("a")]),
    "unfinished at the end": (b"data: a\n\nid: 9\ndata: b\n", [m("a")]),
    "a final bare CR": (b"data: a\n\r", [m("a")]),
    "not line ends elsewhere": ("data: a\u2028b\u0085c\x0bd\n\n".encode(), [m("a\u2028b\u0085c\x0bd")]),
    "bytes that are no UTF-8": (b"data: \xff\xfea\n\n", [m("\ufffd\ufffda")]),
    "colons in values": (b"data: a: b:c\n\n", [m("a: b:c")]),
}


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_at_every_cut(name: str) -> None:
    wire, expected = CORPUS[name]
    assert SseParser().feed(wire) == expected
    parser = SseParser()
    assert [frame for byte in wire for frame in parser.feed(bytes([byte]))] == expected
    for cut in range(len(wire) + 1):
        parser = SseParser()
        assert parser.feed(wire[:cut]) + parser.feed(wire[cut:]) == expected, cut


@given(st.lists(st.sampled_from(list(CORPUS)), max_size=4), st.lists(st.integers(0, 400), max_size=8))
def test_pieces_never_matter(names: list[str], cuts: list[int]) -> None:
    wire = b"".join(CORPUS[name][0] + b"\n\n" for name in names)
    whole = SseParser().feed(wire)
    parser, found = SseParser(), []
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    for start, end in itertools.pairwise(edges):
        found += parser.feed(wire[start:end])
    assert found == whole


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(wire: bytes) -> None:
    parser = SseParser()
    assert SseParser().feed(wire) == [frame for byte in wire for frame in parser.feed(bytes([byte]))]


def test_the_id_counts_only_once_its_block_is_complete() -> None:
    parser = SseParser()
    parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert parser.last_id == "1"
    parser.feed(b"\n")
    assert parser.last_id == "2"


def test_retry_takes_digits_only() -> None:
    parser = SseParser()
    parser.feed(b"retry: 1x\n\nretry: -1\n\n")
    assert parser.retry_ms is None
    parser.feed(b"retry: 250\n\n")
    assert parser.retry_ms == 250


def test_an_endless_event_is_refused() -> None:
    parser = SseParser(max_event=1000)
    assert len(parser.feed((b"data: " + b"x" * 900 + b"\n\n") * 3)) == 3
    parser.feed(b"data: " + b"x" * 900)
    with pytest.raises(BodyTooLarge):
        parser.feed(b"x" * 200)
    parser = SseParser(max_event=1000)
    with pytest.raises(BodyTooLarge):
        parser.feed(b"data: x\n" * 2000)
