"""`make demo-agent`: the built-in agent mends a failing test, with its model on the server and a tool on another host.

Three programs beside this one: a server that has the (scripted) model, the agent's own process, which has neither key
nor network, and a host that knows the tariffs and offers them as a tool. The terminal shows the run as it happens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from overnight.testing.demo_server import end, environment, fresh_folder, is_ready, say

GOAL = "The test of the shop fails. Mend the code; the tariff office's tool knows the rates."
TESTS = "python3 -m unittest discover -s tests -t ."
_SHOP = '''\
"""Prices in the shop."""

RATES = {"DE": 19}


def gross(net: int, country: str) -> int:
    """The price with tax, in cents."""
    return net * (100 + RATES[country]) // 100
'''
_TEST = """\
import unittest

from shop.prices import gross


class Prices(unittest.TestCase):
    def test_germany(self) -> None:
        self.assertEqual(gross(1000, "DE"), 1190)

    def test_denmark(self) -> None:
        self.assertEqual(gross(1000, "DK"), 1250)
"""
_OFFICE = '''\
"""The tariff office: what no other host knows."""

from overnight.client.tools import Say, tool

RATES = {"DE": 19, "DK": 25, "LU": 17}


@tool
async def tariff(country: str, say: Say) -> str:
    """The rate of tax in a country, in percent. The country by its two letters."""
    await say(f"looking up {country}\\n", percent=50)
    return f"{country}: {RATES[country]} percent"
'''
_PATCH = """\
*** Begin Patch
*** Update File: shop/prices.py
@@
-RATES = {"DE": 19}
+RATES = {"DE": 19, "DK": 25}
*** End Patch
"""


def _run(command: str) -> dict[str, object]:
    return {"tool": "shell", "arguments": {"command": ["bash", "-lc", command]}}


SCRIPT: list[dict[str, object]] = [
    {"reasoning": "First see what fails.", "text": "I run the tests.", **_run(TESTS)},
    {
        "text": "Denmark is missing. The code:",
        "tool": "read_file",
        "arguments": {"file_path": "shop/prices.py"},
    },
    {"text": "The rate is for the tariff office to say.", "tool": "tariff", "arguments": {"country": "DK"}},
    {"text": "25 percent. I put it in.", "tool": "apply_patch", "arguments": {"patch": _PATCH}},
    {"text": "Once more.", **_run(TESTS)},
    {"text": "Both tests pass: Denmark's 25 percent were missing."},
]


def main() -> int:
    """Carry out the demonstration; the exit status is 0 when the tests of the workspace pass at its end."""
    parser = argparse.ArgumentParser(prog="make demo-agent", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where everything is kept (default: a fresh one)")
    folder = fresh_folder(parser.parse_args().folder)
    workspace = _furnish(folder)
    script = json.dumps(str(folder / "model.json"))
    config = f'[models]\ndefault = "script:demo"\n[models.providers.script]\nkind = "scripted"\nscript = {script}\n'
    variables = environment(folder, config)
    say(f"demo: the workspace is {workspace}, everything else is beside it")
    with _server(folder, variables) as up, _office(folder, variables) as there:
        if not (up and there):
            return say("demo: the server, or the host of the tool, did not start", 1)
        argv = [sys.executable, "-m", "overnight", "run", GOAL, "--backend", "agent", "--mode", "oneshot"]
        subprocess.run([*argv, "--workspace", str(workspace)], env=variables, cwd=workspace, check=False)
    done = subprocess.run(TESTS.split(), cwd=workspace, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        return say(f"demo: the tests of the workspace still fail\n{done.stderr}", 1)
    return say("demo: the tests of the workspace pass")


def _furnish(folder: Path) -> Path:
    workspace = folder / "workspace"
    for path, text in (
        ("shop/__init__.py", ""), ("shop/prices.py", _SHOP), ("tests/__init__.py", ""), ("tests/test_prices.py", _TEST)
    ):  # fmt: skip
        target = workspace / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    (folder / "office").mkdir(exist_ok=True)
    (folder / "office" / "tariffs.py").write_text(_OFFICE, encoding="utf-8")
    (folder / "model.json").write_text(json.dumps(SCRIPT), encoding="utf-8")
    return workspace


@contextlib.contextmanager
def _server(folder: Path, variables: Mapping[str, str]) -> Iterator[bool]:
    server = subprocess.Popen([sys.executable, "-m", "overnight", "up"], env=variables, cwd=folder)
    try:
        yield is_ready(server, variables["OVERNIGHT_LISTEN"])
    finally:
        end(server)


@contextlib.contextmanager
def _office(folder: Path, variables: Mapping[str, str]) -> Iterator[bool]:
    """The other host: it says on standard output when its tool is on offer."""
    argv = [sys.executable, "-m", "overnight", "tools", "serve", "tariffs.py", "--json"]
    host = subprocess.Popen(argv, env=variables, cwd=folder / "office", stdout=subprocess.PIPE)
    try:
        assert host.stdout is not None
        yield bool(host.stdout.readline())
    finally:
        end(host)


if __name__ == "__main__":
    sys.exit(main())
