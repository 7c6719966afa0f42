"""A run ends for a reason that is true: pattern, stop file, idle, limit; never because of something old."""

from __future__ import annotations

from tests.e2e.conftest import Start


def test_a_continuous_run_works_turn_after_turn_until_the_pattern(serve: Start) -> None:
    script = [
        [["read_prompt"], ["write", "a.txt", "1\n"], ["append", "WORKLOG.md", "turn $TURN\n"]],
        [["read_prompt"], ["write", "b.txt", "2\n"], ["append", "WORKLOG.md", "turn $TURN\n"]],
        [["read_prompt"], ["write", "c.txt", "3\n"], ["append", "WORKLOG.md", "STATUS: DONE\n"]],
    ]
    server = serve({"worker": script})
    work = server.workspace()
    (work / "WORKLOG.md").write_text("an old log\nSTATUS: DONE\n", encoding="utf-8")
    run = server.submit("worker", workspace=str(work), completion={"pattern": "^STATUS: DONE$"})
    ended = server.until(run["id"], "completed")
    assert ended["turn"] == 3
    assert ended["completion"] == {"detected": True, "by": "pattern", "line": "STATUS: DONE"}
    assert ended["stats"]["turns"] == 3
    assert ended["stats"]["files"]["changed"] >= 3
    logs = server.events(run["id"], "log.updated")
    assert [event["data"]["kind"] for event in logs][:1] == ["work"]
    written = {event["data"]["path"] for event in server.events(run["id"], "file.written")}
    assert {"a.txt", "b.txt", "c.txt"} <= written


def test_the_stop_file_ends_the_run_and_is_removed(serve: Start) -> None:
    script = [
        [["read_prompt"], ["write", "a.txt", "1\n"]],
        [["read_prompt"], ["write", "b.txt", "2\n"], ["write", ".overnight/stop", ""]],
    ]
    server = serve({"worker": script})
    work = server.workspace()
    ended = server.until(server.submit("worker", workspace=str(work))["id"], "completed")
    assert (ended["turn"], ended["completion"]["by"]) == (2, "stop_file")
    assert not (work / ".overnight/stop").exists()


def test_a_stop_file_that_is_there_already_is_refused_with_the_mend(serve: Start) -> None:
    server = serve({"worker": [["read_prompt"]]})
    work = server.workspace()
    (work / ".overnight").mkdir()
    (work / ".overnight/stop").write_text("", encoding="utf-8")
    answer = server.http.post("/api/v1/runs", json={"goal": "x", "backend": "worker", "workspace": str(work)})
    assert (answer.status_code, answer.json()["code"]) == (422, "stop_file_present")
    assert "remove" in answer.json()["mend"]
    assert server.http.get("/api/v1/runs").json()["items"] == []


def test_a_stop_file_that_is_a_link_out_of_the_workspace_counts_for_nothing(serve: Start) -> None:
    server = serve(
        {"worker": [["read_prompt"], ["write", "$TURN.txt", "x"], ["link", "stop", "/etc/hostname"]]}
    )
    run = server.submit(
        "worker", workspace=str(server.workspace()), completion={"stop_file": "stop"}, limits={"turns": 2}
    )
    ended = server.until(run["id"], "failed")
    assert ended["error"]["code"] == "condition_not_met"


def test_turns_that_change_nothing_but_the_work_log_end_by_idle(serve: Start) -> None:
    server = serve({"idler": [["read_prompt"], ["append", "WORKLOG.md", "thinking about turn $TURN\n"]]})
    run = server.submit(
        "idler", workspace=str(server.workspace()), completion={"idle_turns": 2, "stop_file": None}
    )
    ended = server.until(run["id"], "completed")
    assert (ended["turn"], ended["completion"]["by"]) == (2, "idle")


def test_idle_without_the_condition_is_condition_not_met(serve: Start) -> None:
    server = serve({"idler": [["read_prompt"], ["print", "nothing to do"]]})
    run = server.submit(
        "idler", workspace=str(server.workspace()), completion={"idle_turns": 2, "pattern": "^DONE$"}
    )
    assert server.until(run["id"], "failed")["error"]["code"] == "condition_not_met"


def test_the_limit_of_turns_without_the_condition_is_condition_not_met(serve: Start) -> None:
    server = serve({"worker": [["read_prompt"], ["write", "$TURN.txt", "$TURN"]]})
    run = server.submit(
        "worker", workspace=str(server.workspace()), completion={"pattern": "^DONE$"}, limits={"turns": 2}
    )
    ended = server.until(run["id"], "failed")
    assert (ended["turn"], ended["error"]["code"]) == (2, "condition_not_met")


def test_a_spent_budget_waits_and_is_raised_or_finished(serve: Start) -> None:
    script = [
        ["read_prompt"],
        ["write", "$TURN.txt", "$TURN"],
        {"sentinel": {"type": "usage.recorded", "input": 600, "output": 400}},
    ]
    server = serve({"spender": script})
    run = server.submit(
        "spender", workspace=str(server.workspace()), completion={"stop_file": None}, limits={"tokens": 900}
    )
    waiting = server.until(run["id"], "waiting")
    assert waiting["waiting_for"]["kind"] == "budget"
    assert waiting["pid"] is None
    refused = server.control(run["id"], "resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_pending")
    assert server.control(run["id"], "resume", limits={"tokens": 1500}).status_code == 202
    again = server.until(run["id"], "waiting")
    assert again["turn"] == 2
    finished = server.control(run["id"], "cancel", limits={"on_spent": "finish"})
    assert finished.json()["state"] == "completed"
    assert finished.json()["completion"]["by"] == "decision"
