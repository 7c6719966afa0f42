"""What the scripted model does in `make run AGENT=codex`: the same job as the sample agent's, in three turns."""

from __future__ import annotations

from typing import Any

from overnight.testing.agents.sample_agent import CODE_TEXT, TEST_TEXT

_TESTS = "python3 -m unittest discover -s tests -t ."


def _note(done: str, status: str, following: str, tests: str) -> str:
    lines = [
        "## Session $TURN",
        f"Completed: {done}",
        f"Current status: {status}",
        f"Next steps: {following}",
    ]
    return "\\n".join([*lines, f"Tests: {tests}", "Blockers: none", ""])


def _shell(command: str) -> dict[str, Any]:
    return {"tool": "shell", "arguments": {"command": command}}


def _write(path: str, text: str) -> str:
    return f"mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}END\n"


def _log(*parts: str) -> dict[str, Any]:
    return _shell(f"printf '{_note(*parts)}' >> WORKLOG.md")


def for_builtin_agent() -> dict[str, Any]:
    """The same script in the words of the built-in agent's own tools."""
    return {
        **SCRIPT,
        "turns": [
            {**turn, "moves": [_own_words(move) for move in turn["moves"]]} for turn in SCRIPT["turns"]
        ],
    }


def _own_words(move: dict[str, Any]) -> dict[str, Any]:
    if move.get("tool") != "shell":
        return move
    return {**move, "arguments": {"command": ["bash", "-lc", move["arguments"]["command"]]}}


SCRIPT: dict[str, Any] = {
    "turns": [
        {
            "moves": [
                {
                    "reasoning": "The logs come first, then the project.",
                    **_shell("cat README.md WORKLOG.md; ls -R ."),
                },
                {
                    "text": "Test-first: I write the failing test.",
                    **_shell(_write("tests/test_slugs.py", TEST_TEXT)),
                },
                _shell(f"{_TESTS}; true"),
                _log("a failing test for slugify", "red", "write textkit/slugs.py", "1 error, as wanted"),
                {"text": "The test is written and fails, as it should."},
            ]
        },
        {
            "moves": [
                {"text": "Now the code.", **_shell(_write("textkit/slugs.py", CODE_TEXT))},
                _log("textkit/slugs.py", "written, not yet run", "run all tests", "not run"),
                {"text": "slugify is written."},
            ]
        },
        {
            "moves": [
                {"text": "All tests once more.", **_shell(_TESTS)},
                _log("everything", "green", "none", "5 passed"),
                _shell("mkdir -p .overnight && touch .overnight/stop"),
                {"text": "All tests pass; the goal is reached."},
            ]
        },
    ]
}
