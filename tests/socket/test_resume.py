"""After a cut, at whatever point, both sides have seen the same as without it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.socket.exchange import SMALL, Exchange

from overnight.wire.socket.connection import Connection
from overnight.wire.socket.events import Event, Over, Received
from overnight.wire.socket.limits import Limits

History = Mapping[str, Mapping[str, list[tuple[str, object]]]]
TIGHT = Limits(window=4, queue=64)


class Story:
    """Two streams and a tool execution: requests both ways, more events than the window, and every kind of end."""

    def __init__(self, cuts: set[int], limits: Limits = TIGHT) -> None:
        self.two = Exchange(limits)
        self.two.cuts = cuts
        self.two.react = self.react
        self.to_consume: list[tuple[Connection, str]] = []

    def react(self, side: Connection, one: Event) -> None:
        if not isinstance(one, Received) or one.envelope.scope == "conn":
            return
        envelope = one.envelope
        if one.message.role == "request":
            self.two.put(side, envelope.scope, "ack", reply_to=envelope.id)
        if one.opened:
            for number in range(7):
                self.two.put(side, envelope.scope, "text", {"text": f"{side.side} {number}"})
        if envelope.type == "ask":
            self.two.put(side, envelope.scope, "text", {"text": "asked"})
        if one.message.spends:
            side.consumed(envelope.scope, 1, self.two.now)

    def tell(self) -> History:
        """Let it happen; what each side has seen of each scope."""
        two = self.two
        two.greet()
        two.put(two.client, "stream:a", "start")
        two.put(two.client, "stream:b", "start", {"flow": {"window": 2}})
        two.pump()
        two.put(two.client, "stream:a", "ask")
        two.put(two.server, "tool:x", "start")
        two.pump()
        two.put(two.client, "tool:x", "text", {"text": "progress"})
        two.put(two.server, "tool:x", "ask")
        two.put(two.server, "stream:a", "done")
        two.pump()
        two.put(two.client, "tool:x", "done")
        two.put(two.server, "stream:b", "failed", {"code": "x"})
        two.pump()
        two.cuts.clear()
        return {side: self.seen(side) for side in ("client", "server")}

    def seen(self, side: str) -> Mapping[str, list[tuple[str, object]]]:
        found: dict[str, list[tuple[str, object]]] = {}
        for one in self.two.received(side):
            if one.envelope.scope != "conn":
                found.setdefault(one.envelope.scope, []).append(
                    (one.envelope.type, dict(one.envelope.payload))
                )
        return found


@pytest.fixture(scope="module")
def whole() -> tuple[History, int]:
    story = Story(set())
    return story.tell(), story.two.messages


def test_the_story_without_a_cut(whole: tuple[History, int]) -> None:
    history, messages = whole
    assert messages > 30
    assert [type_ for type_, _ in history["client"]["stream:a"]].count("done") == 1
    assert len(history["client"]["stream:b"]) == 9
    assert [type_ for type_, _ in history["server"]["tool:x"]][-1] == "done"


def test_cut_at_every_boundary_the_histories_are_equal(whole: tuple[History, int]) -> None:
    history, messages = whole
    for cut in range(1, messages + 1):
        story = Story({cut})
        assert story.tell() == history, f"cut after {cut} messages"
        for side in (story.two.client, story.two.server):
            assert side.scopes.counts()["open"] == side.scopes.counts()["settling"] == 0, cut
            assert side.waiting == 0


@given(st.sets(st.integers(1, 120), max_size=12))
def test_cut_again_and_again_the_histories_are_equal(whole: tuple[History, int], cuts: set[int]) -> None:
    story = Story(set(cuts))
    assert story.tell() == whole[0]


def test_producers_go_on_while_it_is_cut() -> None:
    two = Exchange(TIGHT).greet()
    two.open("stream:a")
    two.cut()
    assert two.server.survives
    for number in range(3):
        two.put(two.server, "stream:a", "text", {"text": str(number)})
    assert two.server.data_to_send() == []
    two.put(two.client, "stream:b", "start")
    two.resume()
    two.pump()
    assert two.texts("client", "stream:a") == ["0", "1", "2"]
    assert two.types("server", "stream:b") == ["start"]


def test_what_waits_during_a_cut_is_bounded() -> None:
    two = Exchange(Limits(window=4, queue=10, keep_bytes=1000)).greet()
    two.open("stream:a")
    two.cut()
    accepted = [two.put(two.server, "stream:a", "text", {"text": "x"}) for _ in range(50)]
    assert sum(one is not None for one in accepted) == 10


def test_scopes_with_a_log_are_over_at_a_cut() -> None:
    two = Exchange().greet()
    for scope in ("run:a", "session:a", "stream:a"):
        two.open(scope)
    two.cut()
    for side in ("client", "server"):
        over = [one for one in two.seen[side] if isinstance(one, Over)]
        assert sorted(one.scope for one in over) == ["run:a", "session:a"]
        assert {one.error.code for one in over if one.error} == {"disconnected"}


def test_after_its_time_is_over_everything_is() -> None:
    two = Exchange(Limits(resume_s=60)).greet()
    two.open("stream:a")
    two.cut()
    assert two.server.deadline(two.now) == two.now + 60_000
    assert two.server.tick(two.now + 59_999) == []
    (over,) = two.server.tick(two.now + 60_000)
    assert isinstance(over, Over)
    assert over.scope == "stream:a"
    assert not two.server.survives


def test_a_server_that_knows_nothing_any_more_ends_what_the_client_had() -> None:
    two = Exchange().greet()
    two.open("stream:a")
    two.cut()
    two.put(two.client, "stream:new", "start")
    two.server = Connection("server", two.limits, catalog=SMALL)
    two.client.hello({"resume": {"connection": "c", "key": "k"}}, two.now)
    (data,) = two.client.data_to_send()
    (hello,) = two.server.receive(data, two.now)
    assert isinstance(hello, Received)
    two.server.welcome({"connection": "d", "resume_key": "l"}, two.now, hello=hello.envelope)
    two.pump()
    over = [one for one in two.seen["client"] if isinstance(one, Over)]
    assert [(one.scope, one.error.code) for one in over if one.error] == [("stream:a", "disconnected")]
    assert two.types("server", "stream:new") == ["start"]


def test_what_is_kept_for_a_cut_is_bounded_and_its_loss_is_told() -> None:
    two = Exchange(Limits(keep_bytes=500)).greet()
    two.open("stream:a")
    for number in range(20):
        two.put(two.server, "stream:a", "text", {"text": f"{number:0100}"})
    for data in two.server.data_to_send():
        assert data  # on its way, and lost
    two.cut()
    two.resume()
    two.pump()
    lost = {side: [one for one in two.seen[side] if isinstance(one, Over)] for side in ("client", "server")}
    assert [one.error.code for one in lost["server"] if one.error] == ["disconnected"]
    assert [one.error.code for one in lost["client"] if one.error] == ["stream_trimmed"]


def test_a_terminal_that_was_lost_is_sent_again_and_then_forgotten() -> None:
    two = Exchange().greet()
    two.open("stream:a")
    two.put(two.server, "stream:a", "done")
    assert two.server.data_to_send()
    assert two.server.scopes.counts()["settling"] == 1
    two.cut()
    assert two.server.survives
    two.resume()
    two.pump()
    assert two.types("client", "stream:a") == ["ack", "done"]
    assert two.server.scopes.counts() == {"open": 0, "settling": 0, "tombstones": 1}


def test_credit_is_what_it_was_after_a_cut() -> None:
    two = Exchange(Limits(window=4)).greet()
    two.open("stream:a")
    for number in range(8):
        two.put(two.server, "stream:a", "text", {"text": str(number)})
    two.pump()
    two.client.consumed("stream:a", 1, two.now)
    two.cut()
    two.client.consumed("stream:a", 1, two.now)
    two.resume()
    two.pump()
    assert two.texts("client", "stream:a") == list("012345")


def test_a_client_that_forgot_a_scope_is_not_sent_it_again() -> None:
    two = Exchange().greet()
    two.open("stream:a")
    two.cut()
    two.client.forget("stream:a")
    two.resume()
    two.pump()
    over = [one for one in two.seen["server"] if isinstance(one, Over)]
    assert [one.scope for one in over] == ["stream:a"]
    assert two.server.scopes.counts()["open"] == 0
