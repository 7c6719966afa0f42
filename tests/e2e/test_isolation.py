"""Runs do not see, touch or overtake each other."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from tests.e2e.conftest import Start

from overnight.testing.signals import wait_until


def test_fifty_runs_at_once_show_no_foreign_output(serve: Start) -> None:
    scripts = {
        f"m{n}": [["read_prompt"], {"lines": {"count": 20, "text": f"marker-{n}-$N", "per_second": 50}}]
        for n in range(50)
    }
    server = serve(scripts, environment={"OVERNIGHT_SLOTS": "50"})
    runs = {
        n: server.submit(f"m{n}", mode="oneshot", workspace=str(server.workspace(f"w{n}"))) for n in range(50)
    }
    for n, run in runs.items():
        server.until(run["id"], "completed", within=100)
        assert server.printed(run["id"]) == "".join(f"marker-{n}-{line}\n" for line in range(1, 21))


def test_fifty_conversations_at_once_tell_each_other_nothing(serve: Start) -> None:
    """A marker in every message: in history, events and prompts of a session there is no other session's."""
    server = serve({"parrot": [["read_prompt"], ["echo_prompt"]]}, environment={"OVERNIGHT_SLOTS": "8"})
    api = "/api/v1/sessions"
    body = {"config": {"backend": "parrot"}}
    with ThreadPoolExecutor(10) as threads:
        sessions = list(threads.map(lambda _: server.http.post(api, json=body).json()["id"], range(50)))
        markers = {session: f"marker{n:03d}" for n, session in enumerate(sessions)}

        def talk(session: str) -> None:
            for number in range(2):
                text = {"text": f"{markers[session]} {number}"}
                assert server.http.post(f"{api}/{session}/messages", json=text).status_code == 202

        list(threads.map(talk, sessions))
    for session in sessions:

        def over(session: str = session) -> bool:
            return not server.http.get(f"{api}/{session}/messages").json()["items"]

        wait_until(over, within=100, every=0.05, what="everything to be said")
        runs = server.http.get(f"{api}/{session}/runs").json()["items"]
        texts = [json.dumps(server.until(run["id"], "completed")) for run in runs]
        texts += [json.dumps(server.events(run["id"])) for run in runs]
        page = server.http.get(f"{api}/{session}/history").json()
        texts.append(json.dumps(page))
        assert set(re.findall(r"marker\d{3}", "".join(texts))) == {markers[session]}
        said = [message["text"] for message in page["items"] if message["role"] == "user"]
        assert said == [f"{markers[session]} {number}" for number in range(2)]


def test_two_runs_on_one_workspace_never_overlap(serve: Start) -> None:
    script = [["read_prompt"], ["append", "times", "in\n"], ["sleep", 0.3], ["append", "times", "out\n"]]
    server = serve({"a": script})
    work = server.workspace()
    nested = work / "inner"
    nested.mkdir()
    runs = [server.submit("a", mode="oneshot", workspace=str(path)) for path in (work, work, nested, work)]
    waiting = server.run(runs[1]["id"])
    for run in runs:
        server.until(run["id"], "completed")
    assert (work / "times").read_text(encoding="utf-8") == "in\nout\n" * 3
    reasons = (None, {"kind": "workspace", "detail": "another run works there"})
    assert waiting["state"] == "completed" or waiting["waiting_for"] in reasons
    spans = []
    for run in runs:
        events = {event["type"]: event["at"] for event in server.events(run["id"])}
        spans.append((events["turn.started"], events["turn.completed"]))
    spans.sort()
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
