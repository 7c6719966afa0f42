"""Rules about the files themselves. Each names what it guards; an exception is listed with its reason."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "overnight"

MOST_LINES = 400
LONGER_FILES: dict[str, str] = {
    "src/overnight/errors.py": "one tree of errors: whoever looks for a code finds all of them in one place",
    "src/overnight/stores/sql/migrations/versions/0001_first.py": "a migration is written once and stands as it is",
    "tests/sandbox/hostile.py": "one program that starts alone inside the sandbox, where it has nothing to import",
}
"""Python files over the limit, each with the reason why it is better whole."""

SLEEPERS: dict[str, str] = {
    "tests/cluster/agent.py": "an agent that paces what it prints; it is a program of its own",
    "tests/keeper/test_adoption.py": "a stand-in server paces its inputs, so that kills fall between them",
}
"""Test files that may sleep, each with the reason why no event or condition can be awaited."""

HOSTS = re.compile(
    r"\b(?:files\.pythonhosted|pypi|test\.pypi|registry\.npmjs|registry\.yarnpkg|static\.crates|proxy\.golang)"
    r"\.(?:org|com|io)\b"
)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home|Users)/[a-z]\w*/|(?<![\w./~}$*])/(?:root|work)/\w")
HOME_STANDINS = re.compile(r"/(?:home|Users)/(?:you|user|someone|ada|alice|bob|name)/")


@cache
def tracked() -> tuple[Path, ...]:
    """The files that git tracks or would track, as they stand in the working tree."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return tuple(path for name in sorted(listing.split("\0")) if name and (path := ROOT / name).is_file())


def tracked_text() -> list[tuple[str, str]]:
    """Name and content of every tracked text file."""
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((path.relative_to(ROOT).as_posix(), data.decode("utf-8", "replace")))
    return found


def python_files(*tops: str) -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).as_posix().startswith(tops)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_package_root_is_empty() -> None:
    assert (PACKAGE / "__init__.py").read_bytes() == b""


def test_no_file_is_too_long() -> None:
    long = {name_of(p): n for p in python_files("") if (n := p.read_bytes().count(b"\n")) > MOST_LINES}
    assert {name: n for name, n in long.items() if name not in LONGER_FILES} == {}
    assert set(LONGER_FILES) <= set(long), "an exception that is no longer needed"


def test_no_tracked_file_names_a_registry_host() -> None:
    here = name_of(Path(__file__).resolve())
    found = [
        f"{name}: {hit.group()}"
        for name, text in tracked_text()
        if name != here
        for hit in HOSTS.finditer(text)
    ]
    assert found == []


def test_no_tracked_file_names_a_place_on_somebodys_machine() -> None:
    here = name_of(Path(__file__).resolve())
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_text()
        if name != here and not name.startswith("tests/backends/golden/")
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATHS.search(HOME_STANDINS.sub("", line))
    ]
    assert found == []


def calls(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of every call in a file."""
    return [
        (node.lineno, ast.unparse(node.func))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
    ]


def test_the_package_does_not_print() -> None:
    """Output goes through the CLI's console or the log. Sample agents are programs of their own."""
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files("src/")
        if not name_of(path).startswith("src/overnight/testing/agents/")
        for line, name in calls(path)
        if name == "print"
    ]
    assert found == []


def test_tests_do_not_sleep() -> None:
    """Waiting is for an event or a condition. `sleep(0)` is no wait, and a manual clock sleeps no real time."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files("tests/")
        if name_of(path) not in SLEEPERS
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("sleep", "time.sleep", "asyncio.sleep", "anyio.sleep")
        and not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
    ]
    assert found == []


BACKENDS_TO_COME = {"gemini", "opencode", "qwen", "copilot", "aider", "vibe", "gptme"}
ORDINARY_WORDS = {"command", "echo", "process", "remote"}
"""Backends whose names are also words of the language; as backends they appear in quotes beside `backend`."""


@pytest.mark.parametrize("layer", ["domain", "ports", "engine", "wire"])
def test_no_inner_layer_knows_a_backend_by_name(layer: str) -> None:
    """Comments and docstrings count too: a name in an explanation soon becomes a name in a condition."""
    folders = {p.parent.name for p in python_files("src/overnight/backends/")} - {"backends"}
    names = "|".join(sorted((folders | BACKENDS_TO_COME) - ORDINARY_WORDS))
    ordinary = "|".join(sorted(ORDINARY_WORDS))
    rule = re.compile(rf"\b({names})\b|backend.*[\"']({ordinary})[\"']", re.IGNORECASE)
    found = [
        f"{name_of(path)}:{number}: {hit.group()}"
        for path in python_files(f"src/overnight/{layer}/")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for hit in rule.finditer(line)
    ]
    assert found == []


def imported(path: Path) -> list[str]:
    """Absolute names of all modules that a file imports, deferred imports included."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            names.append(node.module or "")
    return names


def test_the_keeper_needs_only_the_standard_library() -> None:
    """It starts with `python -I -S -E`: nothing of site-packages is there."""
    files = [*python_files("src/overnight/keeper/"), PACKAGE / "keeper_protocol.py"]
    found = [
        f"{name_of(path)}: {name}"
        for path in files
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not name.startswith(("overnight.keeper.", "overnight.keeper_protocol"))
        and name not in ("overnight", "overnight.keeper", "keeper_protocol")
    ]
    assert found == []


PURE = {
    "__future__", "abc", "base64", "bisect", "collections", "dataclasses", "datetime", "decimal", "enum",
    "fractions", "functools", "hashlib", "heapq", "hmac", "itertools", "json", "math", "operator", "re", "string",
    "textwrap", "types", "typing", "typing_extensions", "unicodedata",
    "fnmatch", "posixpath", "shlex",  # patterns, paths and words of the shell, on text alone
    "secrets",  # fresh bits for an access token
    "orjson",  # canonical JSON, made once
    "re2",  # linear-time patterns
    "pydantic",  # the shape of what a caller may ask for; no input or output of its own
    "overnight",
}  # fmt: skip


def test_the_domain_imports_only_what_is_pure() -> None:
    found = [
        f"{name_of(path)}: {name}"
        for path in python_files("src/overnight/domain/")
        for name in imported(path)
        if name.split(".")[0] not in PURE
    ]
    assert found == []


def test_contributing_is_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 80


def test_no_method_is_unwritten() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files("src/")
        for line, name in calls(path)
        if name == "NotImplementedError"
    ]
    assert found == []


def test_skips_give_their_reason() -> None:
    found = []
    for path in python_files("tests/"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"pytest\.(mark\.)?(skip|skipif|xfail)", ast.unparse(node.func)
            ):
                spoken = [*node.args, *(k.value for k in node.keywords if k.arg == "reason")]
                if not any(
                    not isinstance(part, ast.Constant) or isinstance(part.value, str) for part in spoken
                ):
                    found.append(f"{name_of(path)}:{node.lineno}")
    assert found == []


def test_locks_name_no_index_and_carry_hashes() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text
        assert not re.search(r"^--(?!hash)", text, re.MULTILINE)
        pins = re.findall(r"^[A-Za-z0-9]\S*==\S+", text, re.MULTILINE)
        assert pins
        assert len(pins) == len(
            re.findall(r"^[A-Za-z0-9]\S*==[^\n]*\\\n\s+--hash=sha256:", text, re.MULTILINE)
        )


def test_both_locks_agree() -> None:
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^[A-Za-z0-9]\S*==\S+", (ROOT / lock).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
