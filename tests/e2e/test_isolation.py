"""Runs do not see, touch or overtake each other."""

from __future__ import annotations

from itertools import pairwise

from tests.e2e.conftest import Start


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
        server.until(run["id"], "completed", within=40)
        assert server.printed(run["id"]) == "".join(f"marker-{n}-{line}\n" for line in range(1, 21))


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
    assert waiting["state"] == "completed" or waiting["waiting_for"] in (None, {"kind": "workspace"})
    spans = []
    for run in runs:
        events = {event["type"]: event["at"] for event in server.events(run["id"])}
        spans.append((events["turn.started"], events["turn.completed"]))
    spans.sort()
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
