"""Whatever happens in whatever order: every scope in order, one terminal each, nothing left behind."""

from collections import Counter
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.socket.exchange import SMALL, Exchange

from overnight.errors import OvernightError
from overnight.wire.socket.connection import Connection
from overnight.wire.socket.events import Event, Received
from overnight.wire.socket.limits import Limits

SCOPES = ("stream:a", "stream:b", "tool:a", "run:a", "session:a")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from(SCOPES)),
        st.tuples(st.just("say"), st.sampled_from(SCOPES)),
        st.tuples(st.just("answer"), st.sampled_from(SCOPES)),
        st.tuples(st.just("end"), st.sampled_from(SCOPES)),
        st.tuples(st.just("abort"), st.sampled_from(SCOPES)),
        st.tuples(st.just("carry"), st.just("")),
    ),
    max_size=60,
)


class Play:
    """Both sides acking what they are asked, and consuming what comes."""

    def __init__(self) -> None:
        self.two = Exchange(Limits(window=3, queue=5))
        self.two.react = self.react
        self.two.greet()
        self.said: Counter[str] = Counter()

    def react(self, side: Connection, one: Event) -> None:
        if isinstance(one, Received) and one.message.role == "request":
            self.two.put(side, one.envelope.scope, "ack", reply_to=one.envelope.id)
        if isinstance(one, Received) and one.message.spends:
            side.consumed(one.envelope.scope, 1, self.two.now)

    def step(self, action: str, scope: str) -> None:
        two = self.two
        match action:
            case "open":
                two.put(two.client, scope, "start", {"flow": {"window": 2, "policy": "fail"}})
            case "say" | "answer":
                side = two.client if action == "say" else two.server
                if two.put(side, scope, "text", {"text": str(self.said[side.side + scope])}):
                    self.said[side.side + scope] += 1
            case "end":
                two.put(two.server, scope, "done")
            case "abort":
                two.put(two.client, scope, "abort")
            case _:
                two.pump()


@given(STEPS)
@settings(deadline=None)
def test_every_scope_keeps_its_order_and_has_one_terminal(steps: list[tuple[str, str]]) -> None:
    play = Play()
    two = play.two
    for action, scope in steps:
        try:
            play.step(action, scope)
        except OvernightError:
            continue  # a scope that is not open, or over: that is what the errors are for
    for one in [*two.server.scopes, *two.client.scopes]:
        if two.server.scopes.get(one.name) is not None:
            two.put(two.server, one.name, "done")
    two.pump()
    for one in list(two.client.scopes):
        if two.server.scopes.get(one.name) is not None:
            two.put(two.server, one.name, "done")
            two.pump()
    for scope in SCOPES:
        for side in ("client", "server"):
            texts = [int(text) for text in two.texts(side, scope)]
            assert texts == sorted(set(texts))
        types = two.types("client", scope)
        opened = two.types("server", scope).count("start")
        assert types.count("done") + types.count("failed") == opened
        assert not types or types[-1] in ("done", "failed")
    for end in (two.client, two.server):
        counts = end.scopes.counts()
        assert (counts["open"], counts["settling"], end.waiting) == (0, 0, 0)
        assert end.unanswered == 0


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
ENVELOPES = st.fixed_dictionaries({
    "v": st.sampled_from([1, 1, 1, 2, "1", None]),
    "type": st.sampled_from([*SMALL, "nonsense"]),
    "scope": st.sampled_from(["conn", "conn", "stream:a", "stream:b", "run:a", "what"]),
    "id": st.sampled_from(["a", "b", "c", "d", 1, None]),
    "seq": st.one_of(st.integers(0, 6), JSON),
    "ts": st.sampled_from([1, 1, "x"]),
    "reply_to": st.sampled_from([None, "c1", "s1", "s2", "a"]),
    "payload": st.one_of(
        JSON,
        st.just({"scope": "stream:a", "messages": 3}),
        st.just({"text": "x"}),
        st.just({"versions": [1], "resume": {"connection": "c", "key": "k"}, "received": {}}),
        st.just({"code": "x", "message": "y"}),
        st.just({"scopes": [{"scope": "run:a", "cursor": 1}]}),
    ),
})  # fmt: skip


MESSAGES = st.one_of(st.binary(max_size=40), ENVELOPES, st.lists(ENVELOPES, max_size=3))


@given(st.lists(MESSAGES, max_size=25), st.booleans())
@settings(deadline=None)
def test_nothing_that_comes_makes_a_side_raise(messages: list[Any], greeted: bool) -> None:
    two = Exchange(Limits(requests=5, scopes=3, tombstones=3))
    if greeted:
        two.greet()
        two.open("stream:a")
    for side in (two.client, two.server):
        for one in messages:
            side.receive(one if isinstance(one, bytes) else orjson.dumps(one), 5)
            for data in side.data_to_send():
                orjson.loads(data)
        assert len(side.scopes) <= 3
        assert side.scopes.counts()["tombstones"] <= 3
        assert side.unanswered <= 5
        side.tick(100_000)
        side.cut(5)
        side.close()


def test_fifty_sessions_with_four_streams_each_interleaved() -> None:
    two = Exchange().greet()
    streams = [f"stream:{session}.{stream}" for session in range(50) for stream in range(4)]
    for session in range(50):
        two.put(two.client, f"session:{session}", "start")
    for scope in streams:
        two.put(two.client, scope, "start")
    two.pump()
    for number in range(20):
        for scope in streams:
            two.put(two.server, scope, "text", {"text": str(number)})
        if number % 5 == 0:
            two.pump()
    for scope in streams:
        two.put(two.server, scope, "done")
    two.pump()
    heard: dict[str, list[str]] = {}
    for one in two.received("client"):
        if one.message.role in ("event", "terminal"):
            heard.setdefault(one.envelope.scope, []).append(one.envelope.payload.get("text", "end"))
    assert heard == {scope: [*map(str, range(20)), "end"] for scope in streams}
    assert {one.kind for one in two.client.scopes} == {"session"}
