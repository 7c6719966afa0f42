"""Concurrent work is kept apart because nothing in the library touches what a whole process shares."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "overnight"

CALLS = frozenset({
    "os.chdir", "os.fchdir", "os.chroot", "os.umask", "os.putenv", "os.unsetenv", "os.setpriority", "os.nice",
    "os.environ.update", "os.environ.setdefault", "os.environ.pop", "os.environ.clear",
    "asyncio.get_event_loop", "asyncio.set_event_loop", "asyncio.set_event_loop_policy", "uvloop.install",
    "signal.signal", "signal.setitimer", "signal.alarm", "signal.set_wakeup_fd",
    "contextlib.redirect_stdout", "contextlib.redirect_stderr", "redirect_stdout", "redirect_stderr",
    "locale.setlocale", "socket.setdefaulttimeout", "resource.setrlimit", "sys.setrecursionlimit",
    "sys.setswitchinterval", "sys.settrace", "sys.setprofile", "threading.settrace", "threading.setprofile",
    "logging.basicConfig", "logging.disable", "logging.captureWarnings", "warnings.filterwarnings",
    "warnings.simplefilter", "random.seed", "gc.disable", "gc.freeze", "gc.set_threshold", "decimal.setcontext",
})  # fmt: skip
"""Calls that change something for every thread and task of the process."""

NAMES = frozenset({
    "sys.stdin", "sys.stdout", "sys.stderr", "sys.displayhook", "sys.excepthook", "sys.path", "sys.modules",
    "os.environ", "builtins.print", "tempfile.tempdir",
})  # fmt: skip
"""What may be read, but not assigned to, not even an item of it."""

OWN_PROCESS: dict[str, str] = {
    "keeper/": "a keeper, a spawner and an agent about to be started are processes with nothing else in them",
    "testing/agents/": "sample agents are programs of their own",
    "agent/secrecy.py": "the command that is the built-in agent, before it begins",
    "cli/acp.py": "the command that is an editor's agent, before it begins",
    "cli/sourcing.py": "the command that is a host of tools, before it begins",
    "cli/staying.py": "the commands that are the server or a worker, before it begins",
    "compose/foreground.py": "the command that is the server, once it is up",
    "compose/worker.py": "the command that is a worker, once it is up",
    "compose/remote.py": "the same, of a server elsewhere",
}
"""Whoever has a process to itself, and why it counts as that."""


def found_in(source: str) -> Iterator[str]:
    """Every place of `source` that touches a global."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            yield f"{node.lineno}: {ast.unparse(node.func)}()"
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        for target in targets:
            inner = target.value if isinstance(target, ast.Subscript) else target
            if ast.unparse(inner) in NAMES:
                yield f"{node.lineno}: {ast.unparse(target)} ="


def test_no_library_code_touches_what_the_whole_process_shares() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{place}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(tuple(OWN_PROCESS))
        for place in found_in(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("own", OWN_PROCESS)
def test_every_exception_is_needed(own: str) -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix().startswith(own)]
    assert any(list(found_in(path.read_text(encoding="utf-8"))) for path in files)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.chdir('/')",
        "import sys\nsys.stdout = None",
        "import os\nos.environ['A'] = 'b'",
        "import os\ndel os.environ['A']",
        "import sys\nsys.path += ['x']",
        "import asyncio\nasyncio.set_event_loop(None)",
        "from contextlib import redirect_stdout\nwith redirect_stdout(None): pass",
    ],
)
def test_the_rule_sees_what_it_is_for(source: str) -> None:
    assert list(found_in(source))
