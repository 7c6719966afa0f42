"""A server that is to be upgraded, and the upgrades of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from tests.e2e.harness import Server, gap_free

from overnight.config import server_file
from overnight.config.server_file import ServerFile
from overnight.stores.sql import admin, migrate
from overnight.version import VERSION

NEXT = Path(__file__).with_name("next_version.py")
LINES = 300
SCRIPT = [["read_prompt"], {"lines": {"count": LINES, "per_second": 100}}]


@dataclass
class Upgraded:
    """How `overnight upgrade` ended, and every step that it told."""

    status: int
    told: list[dict[str, str]]
    err: str

    @property
    def done(self) -> list[str]:
        return [told["step"] for told in self.told if told["state"] == "done"]

    @property
    def failed(self) -> list[str]:
        return [told["step"] for told in self.told if told["state"] == "failed"]

    @property
    def end(self) -> str:
        return self.told[-1]["state"] if self.told else ""

    def words(self, step: str) -> str:
        return next(told["message"] for told in reversed(self.told) if told["step"] == step)


class Site(Server):
    """One installation, of which versions come and go while an agent prints its lines."""

    def upgrade(self, fault: str, *arguments: str) -> Upgraded:
        done = subprocess.run(
            [sys.executable, str(NEXT), fault, "upgrade", "--json", *arguments],
            env=self.env(), cwd=self.root, capture_output=True, text=True, check=False, timeout=150,
        )  # fmt: skip
        return Upgraded(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)

    @property
    def serving(self) -> ServerFile | None:
        return server_file.read(self.data, self.env())

    def server(self) -> psutil.Process:
        """The process that serves now, whoever has started it."""
        assert self.serving is not None
        return psutil.Process(self.serving.pid)

    def command_line(self) -> list[str]:
        """Of the server that serves now."""
        return self.server().cmdline()

    @property
    def sound(self) -> bool:
        """Whether this version serves, on its schema, and nothing is left of an upgrade."""
        serving = self.serving
        return (
            serving is not None
            and serving.version == VERSION
            and self.schema == migrate.HEAD
            and not (self.data / "upgrade.json").exists()
            and self._takes_work()
        )

    def _takes_work(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    @property
    def schema(self) -> str | None:
        return admin.check(self.data / "overnight.db").revision

    def working(self) -> dict[str, Any]:
        """A run whose agent has begun to print its lines."""
        run = self.submit("steady", mode="oneshot", workspace=str(self.workspace()))
        self.seen(run["id"], "output.recorded")
        return run

    def unharmed(self, run: dict[str, Any]) -> None:
        """Its agent has noticed nothing, and nothing that it printed is missing or doubled."""
        assert self.until(run["id"], "completed")["attempt"] == 1
        events = self.events(run["id"])
        assert gap_free(events)
        assert self.printed(run["id"]) == "".join(f"line {n}\n" for n in range(1, LINES + 1))
        assert "turn.abandoned" not in [event["type"] for event in events]


class Standing:
    """The site of a module, the same one for as long as upgrades leave it as they found it: starts are what costs."""

    def __init__(self, roots: Callable[[], Path]) -> None:
        self._roots = roots
        self._site: Site | None = None

    def sound(self) -> Site:
        """A site on which this version serves and nothing is left of an upgrade."""
        if self._site is None or not self._site.sound:
            self.end()
            self._site = Site(root=self._roots(), scripts={"steady": SCRIPT})
            self._site.start()
        return self._site

    def end(self) -> None:
        """Stop it."""
        if self._site is not None:
            self._site.stop()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    made = Standing(lambda: tmp_path_factory.mktemp("site"))
    yield made
    made.end()


@pytest.fixture
def site(standing: Standing) -> Site:
    return standing.sound()
