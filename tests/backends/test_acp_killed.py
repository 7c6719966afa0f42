"""Real servers, killed again and again during one turn of a real agent under a real keeper."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
from tests.keeper.harness import Place

ROOT = Path(__file__).parents[2]
EDIT = {"toolCallId": "e", "title": "Write b", "kind": "edit"}


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="ovn-kill-"))
    yield made
    place = Place.make(made, runtime_dir=made / "r")
    place.turns.append(made / "turn")
    place.clear()
    shutil.rmtree(made)


def test_a_turn_survives_its_servers(folder: Path) -> None:
    there = str(folder / "workspace")
    moves = [
        ["say", "begin"],
        ["permission", EDIT],
        ["request", "fs/write_text_file", {"path": f"{there}/a", "content": "one\n"}],
        ["request", "fs/read_text_file", {"path": f"{there}/a"}],
        ["terminal", {"command": "echo ran >> runs; cat runs"}],
        ["request", "no/such/method", {}],
        ["permission", EDIT],
        ["say", "end"],
    ]
    (folder / "story.json").write_text(json.dumps({"turns": [moves]}))
    moments = cycle(["behind", "before", "recorded"])
    deaths = 0
    for life in range(1, 40):
        (folder / "token").write_text(str(life))
        dying = ("2", next(moments)) if life < 30 else ("0", "")
        done = subprocess.run(
            [sys.executable, "-m", "tests.backends.acp_server", str(folder), *dying],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            assert done.stdout == "end_turn\n"
            break
        assert done.returncode == -9, done.stderr
        deaths += 1
    assert deaths >= 6
    received = [json.loads(line) for line in (folder / "received.jsonl").read_text().splitlines()]
    stored = [json.loads(json.loads(line)[1]) for line in (folder / "messages").read_text().splitlines()]
    assert received == stored, "what was stored reached the agent, each once and in order"
    assert len({json.dumps(message, sort_keys=True) for message in received}) == len(received)
    told = [
        update for line in (folder / "batches").read_text().splitlines() for update in json.loads(line)[1]
    ]
    asked = [update for update in told if update.startswith("Asked(")]
    assert len(asked) == len(set(asked)) == 5
    assert next(update for update in told if "begin" in update).startswith("Message(")
    assert sum("end" in update for update in told) == 1
    assert (folder / "workspace" / "runs").read_text() == "ran\n", "a command is run once"
    assert (folder / "workspace" / "a").read_text() == "one\n"
