"""The built-in agent on a worker elsewhere: its model is on the server, its token opens the door of its own run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.harness import Server
from tests.remote.far import FarWorker

PATCH = "*** Begin Patch\n*** Add File: note.txt\n+Hello\n*** End Patch\n"


def test_it_works_there_with_the_servers_model(tmp_path: Path) -> None:
    script = tmp_path / "model.json"
    moves = [{"text": "I write.", "tool": "apply_patch", "arguments": {"patch": PATCH}}, {"text": "Done."}]
    script.write_text(json.dumps(moves), encoding="utf-8")
    config = '[models]\ndefault = "script:x"\n[models.providers.script]\nkind = "scripted"\n'
    server = Server(root=tmp_path, config=f"{config}script = {json.dumps(str(script))}\n")
    worker = FarWorker(server, tmp_path / "far")
    try:
        server.start("--no-worker")
        worker.start().up()
        run = server.submit("agent", mode="oneshot")
        ended = server.until(run["id"], "completed", within=120)
        assert [e["data"]["text"] for e in server.events(run["id"], "message.completed")] == [
            "I write.",
            "Done.",
        ]
        assert ended["stats"]["tokens"]["total"] == 2100
        calls = server.http.get(f"/api/v1/runs/{run['id']}/model-calls").json()["items"]
        assert [call["ending"] for call in calls] == ["done", "done"]
        told = json.dumps([server.events(run["id"]), server.run(run["id"])])
        assert "ova_" not in told
    finally:
        worker.stop()
        server.stop()
