"""The sample agent: works through the sample workspace in three turns, without any model.

Run as a `command` backend: prompt on standard input, words on standard output, facts as sentinel lines. What to do
next is read from the workspace alone, so a turn that was cut off is simply done again:
no test for slugs yet → write it and see it fail; no code yet → write it; both there → run the tests and, when they
pass, create the stop file. Standard library only; started by path.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

LOG = Path("WORKLOG.md")
TEST = Path("tests/test_slugs.py")
CODE = Path("textkit/slugs.py")
COMMAND = [sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", "."]

TEST_TEXT = """import unittest

from textkit.slugs import slugify


class Slugify(unittest.TestCase):
    def test_words_are_lower_case_and_joined_by_hyphens(self) -> None:
        self.assertEqual(slugify("Coding Agents"), "coding-agents")

    def test_other_characters_are_left_out(self) -> None:
        self.assertEqual(slugify("  Durable, at last!  "), "durable-at-last")

    def test_nothing_gives_nothing(self) -> None:
        self.assertEqual(slugify("?!"), "")
"""
CODE_TEXT = '''"""Slugs."""

import re


def slugify(text: str) -> str:
    """Lower case words joined by single hyphens; everything but letters and digits is left out."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))
'''


class Agent:
    """One turn in the current directory."""

    def __init__(self, stop_file: Path, pace_s: float) -> None:
        self.stop_file = stop_file
        self.pace_s = pace_s
        self.words = 0

    def turn(self, prompt: str) -> int:
        """Do the next step; the exit status is 0 unless the workspace is not one to work in."""
        if not Path("textkit").is_dir():
            self.say("There is no textkit folder here, so I cannot tell what to do.")
            return 1
        self.read(Path("README.md"))
        if not TEST.exists():
            self.write_the_test()
        elif not CODE.exists():
            self.write_the_code()
        else:
            self.finish()
        self.sentinel("usage.recorded", input=len(prompt) // 4, cached=0, output=self.words, reasoning=0)
        return 0

    def write_the_test(self) -> None:
        """First turn: a test for what is wanted, seen to fail."""
        self.say("I read the goal and the workspace. First a test that says what is wanted.")
        self.write(TEST, TEST_TEXT)
        tests = self.run_tests()
        self.say("It fails, as it should: there is no code yet.")
        self.log(f"a test for slugs in `{TEST}`", "red", f"write `{CODE}`", tests)

    def write_the_code(self) -> None:
        """Second turn: the code."""
        self.read(TEST)
        self.say("The test is there. Now the code that makes it pass.")
        self.write(CODE, CODE_TEXT)
        self.log(f"`slugify` in `{CODE}`", "written, not tried yet", "run the tests", "not run")

    def finish(self) -> None:
        """Third turn: all tests, and the stop file when they pass."""
        self.say("Test and code are there. I run the tests.")
        tests = self.run_tests()
        if not tests.endswith("0 failed"):
            self.say("They do not pass; I write the code again.")
            self.write(CODE, CODE_TEXT)
            self.log("the code again", "red", "run the tests", tests)
            return
        self.log("all tests pass", "green; the goal is reached", "nothing", tests)
        self.stop_file.parent.mkdir(parents=True, exist_ok=True)
        self.stop_file.write_text("All tests pass.\n", encoding="utf-8")
        self.say("DONE. slugify is there and all tests pass.")

    def say(self, text: str) -> None:
        """A line for people."""
        self.words += len(text.split())
        self.line(text)

    def sentinel(self, event: str, /, **data: object) -> None:
        """A line for Overnight."""
        self.line(json.dumps({"__overnight__": {"type": event, **data}}))

    def line(self, text: str) -> None:
        """Write one line at once, then keep the pace."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        time.sleep(self.pace_s)

    def read(self, path: Path) -> None:
        """Read a file and say so."""
        size = len(path.read_bytes()) if path.exists() else 0
        self.sentinel("file.read", path=str(path), bytes=size)

    def write(self, path: Path, text: str) -> None:
        """Write a file and say so."""
        before = path.read_text(encoding="utf-8") if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self.sentinel(
            "file.written",
            path=str(path),
            bytes=len(text.encode()),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            kind="created" if before is None else "modified",
            added_lines=len(text.splitlines()),
            removed_lines=len(before.splitlines()) if before else 0,
        )

    def run_tests(self) -> str:
        """Run the project's tests, report them, and return the result in words."""
        command = "python -m unittest discover -s tests -t ."
        self.sentinel("tests.started", command=command)
        began = time.monotonic()
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            COMMAND, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False
        )
        counts = _counts(done.stderr)
        self.line(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "(the tests said nothing)")
        took = round((time.monotonic() - began) * 1000)
        self.sentinel(
            "tests.completed", command=command, exit_code=done.returncode, duration_ms=took, **counts
        )
        return f"{counts['passed']} passed, {counts['failed']} failed"

    def log(self, completed: str, status: str, following: str, tests: str) -> None:
        """Append this turn to the work log under the usual headings."""
        entry = (
            f"\n## Completed\n- {completed}\n\n## Current status\n- {status}\n\n## Next steps\n- {following}\n\n"
            f"## Tests\n- {tests}\n\n## Blockers\n- none\n"
        )
        with LOG.open("a", encoding="utf-8") as file:
            file.write(entry)
        self.sentinel("log.updated", kind="work", path=str(LOG), added_lines=entry.count("\n"))


def _counts(report: str) -> dict[str, int]:
    ran = re.search(r"^Ran (\d+) tests?", report, re.MULTILINE)
    total = int(ran[1]) if ran else 0
    bad = {name: int(number) for name, number in re.findall(r"(failures|errors|skipped)=(\d+)", report)}
    failed, skipped = bad.get("failures", 0) + bad.get("errors", 0), bad.get("skipped", 0)
    return {"passed": max(total - failed - skipped, 0), "failed": failed, "skipped": skipped}


def main() -> int:
    """Take the prompt from standard input and do one turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stop-file", default=".overnight/stop", type=Path)
    parser.add_argument(
        "--pace", default=0.0, type=float, help="seconds after each line, to be watched by people"
    )
    chosen = parser.parse_args()
    return Agent(chosen.stop_file, chosen.pace).turn(sys.stdin.read())


if __name__ == "__main__":
    raise SystemExit(main())
