"""A real server with a real agent process, read by the official clients while it works."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from openai import OpenAI
from tests.e2e.conftest import Start
from tests.e2e.harness import TOKEN, Server
from tests.responses.reading import Reader

from overnight.testing.agents import ACP_AGENT
from overnight.testing.signals import wait_until

CALL = {"toolCallId": "c1", "title": "make test", "kind": "execute", "rawInput": {"command": "make test"}}


HERE = [["say", "Here. "], ["think", "hm"]]
"""One whole message: whoever has read it misses nothing of what is shown live afterwards."""


def speaker(*moves: Any) -> str:
    """The configuration of an ACP agent that makes these moves in each turn."""
    command = [sys.executable, str(ACP_AGENT), json.dumps({"turns": [list(moves)]})]
    return f'[backends.speaker]\nkind = "acp"\ncommand = {json.dumps(command)}\n'


def begun(server: Server, start: Path) -> tuple[str, Follower]:
    """A run that is followed from before it says more than that it is here."""
    run = str(server.submit("speaker", mode="oneshot")["id"])
    follower = Follower(server, run)
    wait_until(lambda: follower.items("message"), within=120, what="the first message")
    start.touch()
    return run, follower


@contextmanager
def client(server: Server) -> Iterator[OpenAI]:
    base = f"http://127.0.0.1:{server.port}/api/v1/openai"
    with OpenAI(api_key=TOKEN, base_url=base, max_retries=0, timeout=120) as made:
        yield made


class Follower(threading.Thread):
    """Reads a run's stream to its end in the background."""

    def __init__(self, server: Server, run: str, after: int = 0) -> None:
        super().__init__(daemon=True)
        self.after = after
        self.broken: openai.OpenAIError | None = None
        self.server = server
        self.run_id = run
        self.events: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        with client(self.server) as reader:
            try:
                for event in reader.responses.retrieve(self.run_id, stream=True, starting_after=self.after):
                    self.events.append(event.to_dict())
            except openai.OpenAIError as error:
                self.broken = error

    @property
    def said(self) -> str:
        """The text of all messages so far."""
        deltas = Reader().read(list(self.events)).deltas
        return "".join(text for id, text in deltas.items() if id.startswith("msg_"))

    def items(self, type: str) -> list[dict[str, Any]]:
        """The finished items of that type."""
        done = [event["item"] for event in self.events if event["type"] == "response.output_item.done"]
        return [item for item in done if item["type"] == type]

    def ended(self) -> dict[str, Any]:
        """The last event, once the stream is over."""
        self.join(120)
        assert not self.is_alive()
        assert self.broken is None, self.broken
        return self.events[-1]


def test_text_is_read_while_the_agent_is_still_at_it(serve: Start, tmp_path: Path) -> None:
    start, go = tmp_path / "start", tmp_path / "go"
    moves = ["wait_for", str(start)], ["say", "Halfway "], ["wait_for", str(go)], ["say", "there."]
    server = serve({}, config=speaker(*HERE, *moves))
    run, follower = begun(server, start)
    wait_until(lambda: follower.said == "Here. Halfway ", within=120, what="the half of a message")
    assert len(server.events(run, "message.completed")) == 1
    go.touch()
    last = follower.ended()
    assert (last["type"], follower.said) == ("response.completed", "Here. Halfway there.")
    with client(server) as reader:
        whole = reader.responses.retrieve(run)
    assert whole.output_text == "Here. Halfway there."
    assert whole.to_dict() == last["response"]


def test_a_sentence_goes_on_behind_a_server_that_was_killed_in_it(serve: Start, tmp_path: Path) -> None:
    start, go = tmp_path / "start", tmp_path / "go"
    moves = ["wait_for", str(start)], ["say", "Half a "], ["wait_for", str(go)], ["say", "sentence."]
    server = serve({}, config=speaker(*HERE, *moves))
    run, first = begun(server, start)
    wait_until(lambda: first.said == "Here. Half a ", within=120, what="the half of a message")
    server.kill()
    first.join(120)
    assert isinstance(first.broken, openai.APIConnectionError)
    server.start()
    second = Follower(server, run, first.events[-1]["sequence_number"])
    go.touch()
    assert second.ended()["type"] == "response.completed"
    read = Reader().read(first.events).read(second.events)
    assert read.deltas == {**Reader().read(first.events).whole, **read.whole}
    assert "".join(read.deltas[id] for id in read.began if id.startswith("msg_")) == "Here. Half a sentence."
    assert sorted(read.began) == sorted(read.ended)
    assert len(set(read.places.values())) == len(read.began)
    assert read.numbers == sorted(set(read.numbers))


def test_a_question_to_a_person_is_an_item_and_so_is_the_answer(serve: Start, tmp_path: Path) -> None:
    server = serve({}, config=speaker(["permission", CALL]))
    run = server.submit("speaker", mode="oneshot", approval_policy="ask_all")["id"]
    follower = Follower(server, run)
    wait_until(lambda: follower.items("mcp_approval_request"), within=120, what="the question")
    (asked,) = follower.items("mcp_approval_request")
    server.until(run, "blocked")
    with client(server) as reader:
        waiting = reader.responses.retrieve(run)
    assert waiting.status == "in_progress"
    assert waiting.metadata == {"overnight_state": "blocked", "overnight_waiting_for": "approval"}
    approval = server.http.get(f"/api/v1/approvals/{asked['id']}").json()
    decision = {"option": approval["options"][0]["id"], "digest": approval["digest"]}
    assert server.http.post(f"/api/v1/approvals/{asked['id']}/resolve", json=decision).status_code == 200
    assert follower.ended()["type"] == "response.completed"
    (answered,) = follower.items("mcp_approval_response")
    assert (answered["approval_request_id"], answered["approve"]) == (asked["id"], True)


def test_a_run_that_is_cancelled_in_the_middle_of_a_sentence(serve: Start, tmp_path: Path) -> None:
    start = tmp_path / "start"
    moves = ["wait_for", str(start)], ["say", "I was about to say, "], ["hang"]
    server = serve({}, config=speaker(*HERE, *moves))
    run, follower = begun(server, start)
    wait_until(
        lambda: follower.said == "Here. I was about to say, ", within=120, what="the half of a message"
    )
    assert server.http.post(f"/api/v1/runs/{run}/control", json={"action": "cancel"}).status_code == 202
    last = follower.ended()
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
    assert follower.said == "Here. I was about to say, "
    assert follower.items("message")[-1]["content"][0]["text"] == "I was about to say, "
