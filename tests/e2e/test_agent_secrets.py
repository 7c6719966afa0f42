"""What lets the built-in agent in is not to be had by what it runs, nor kept anywhere."""

from __future__ import annotations

from typing import Any

from tests.e2e.test_builtin_agent import serve_scripted, shell

__all__ = ["serve_scripted"]

# Whoever stands above the command. The pattern does not match itself.
LOOK = r"""
p=$$
while [ "$p" -gt 1 ]; do
    echo "$p" >> seen
    grep -a -l 'ova[_]run' /proc/$p/environ >> found 2>/dev/null
    p=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$p/status)
done
env | grep -a 'ova[_]run' >> found
true
"""


def test_a_command_finds_the_token_of_its_agent_nowhere(serve_scripted: Any) -> None:
    server = serve_scripted([shell(LOOK), {"text": "Looked."}])
    run = server.submit("agent", workspace=str(server.workspace()), mode="oneshot")
    server.until(run["id"], "completed")
    assert len((server.workspace() / "seen").read_text().split()) >= 2
    assert (server.workspace() / "found").read_text() == ""
    kept = [path for path in server.data.rglob("*") if path.is_file() and b"ova_run" in path.read_bytes()]
    assert kept == []
