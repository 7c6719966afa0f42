"""What the page about backends says of the built-in agent."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_approvals import overnight
from tests.e2e.test_builtin_agent import serve_scripted, shell

__all__ = ["serve_scripted"]
PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


def test_the_command_of_the_documents_is_good(serve_scripted: Any) -> None:
    section = PAGE.read_text(encoding="utf-8").split("\n## agent\n")[1].split("\n## ")[0]
    found = re.search(r"^Known good: `overnight ([^`]+)`", section, re.MULTILINE)
    assert found is not None
    server = serve_scripted([shell("echo hi > hello.txt"), {"text": "DONE."}])
    workspace = server.workspace()
    done = overnight(server, *(word.replace("$PWD", str(workspace)) for word in shlex.split(found[1])))
    assert done.returncode == 0, done.stdout + done.stderr + server.words()
    assert (workspace / "hello.txt").read_text() == "hi\n"


@pytest.mark.parametrize(
    "fault, code", [("400", "provider_error"), ("401", "auth_required"), ("404", "model_not_found")]
)
def test_what_a_model_has_against_it_is_the_run_s_failure(serve_scripted: Any, fault: str, code: str) -> None:
    server = serve_scripted([{"fault": fault, "message": "the model says no"}])
    run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot", limits={"attempts": 1})
    error = server.until(run["id"], "failed")["error"]
    assert (code in str(error), "the model says no" in str(error)) == (True, True), error
