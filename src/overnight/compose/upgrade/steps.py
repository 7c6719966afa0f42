"""The steps of an upgrade, and the way back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from overnight.compose.upgrade import servers
from overnight.compose.upgrade.journal import Entry, Journal
from overnight.compose.upgrade.plan import Plan
from overnight.compose.upgrade.telling import Outcome, Tell, Told
from overnight.errors import OvernightError, StartRefused

LOG: Final = "server.log"
NOBODY: Final = -1
OLD_WITHIN_S: Final = 60.0
"""What the old version gets at least to come up again: it has shown that it can."""
TROUBLE: Final = (OvernightError, OSError, subprocess.SubprocessError)
"""Whatever may go wrong with processes, files and databases."""


class Steps:
    """One upgrade. `forward` may be given after an interrupted one, `back` after anything."""

    def __init__(self, plan: Plan, journal: Journal, tell: Tell) -> None:
        self._plan = plan
        self._journal = journal
        self._tell = tell
        self._started: subprocess.Popen[bytes] | None = None
        self._backup = Path(journal.entry.backup) if journal.entry and journal.entry.backup else None

    def rehearsed(self) -> Outcome:
        """What can be tried without touching anything: PLANNED, or REFUSED."""
        try:
            with self._step("rehearse") as done:
                done(self._plan.database.rehearse())
        except TROUBLE:
            return Outcome.REFUSED
        return Outcome.PLANNED

    def forward(self) -> Outcome:
        """To the new version. What fails before anything was touched is refused; later, everything goes back."""
        if self.rehearsed() is Outcome.REFUSED:
            return self.back() if self._plan.picked_up else Outcome.REFUSED
        try:
            self._change()
        except TROUBLE:
            return self.back()
        self._journal.close()
        return Outcome.UPGRADED

    def _change(self) -> None:
        if self._plan.database.online:
            self._migrate()
            self._make_way()
        else:
            self._make_way()
            self._migrate()
        if self._plan.old is not None:
            self._start(self._plan.old)

    def _make_way(self) -> None:
        old = self._plan.old
        if old is None:
            return
        with self._step("handover") as done:
            if self._plan.picked_up is None:
                self._journal.put(self._entry(old))
            servers.make_way(old)
            done(f"version {old.version} has made way; its agents go on")

    def _migrate(self) -> None:
        database = self._plan.database
        with self._step("backup") as done:
            self._backup = database.back_up()
            self._journal.change(backup=str(self._backup or ""))
            done(str(self._backup or "none: the schema stays, or the copy was made by other tools"))
        with self._step("migrate") as done:
            database.migrate()
            done(f"the schema is {database.revision()}")

    def _start(self, old: servers.Server) -> None:
        plan = self._plan
        with self._step("start") as done:
            if plan.options.restart_command:
                servers.run_command(plan.options.restart_command, os.environ)
                done(" ".join(plan.options.restart_command))
            else:
                self._started = plan.new.start(old.arguments, plan.place.data_dir / LOG)
                done(f"process {self._started.pid}; its words go to {plan.place.data_dir / LOG}")
        with self._step("ready") as done:
            done(self._until_ready(plan.to_version, besides=self._old_pid()))

    def back(self) -> Outcome:
        """To the old version, which serves again, with everything that was written meanwhile."""
        try:
            self._journal.change(stage="rolling_back")
            self._end_newcomer()
            self._take_back()
            self._start_old()
        except TROUBLE:
            return Outcome.DOWN
        self._journal.close()
        return Outcome.ROLLED_BACK

    def _end_newcomer(self) -> None:
        with self._step("rollback stop") as done:
            if self._journal.entry is not None:
                self._stop_all()
            began = self._journal.entry.began if self._journal.entry else self._plan.began
            servers.end_newcomer(self._plan.place, self._started, besides=self._old_pid(), since=began)
            self._started = None
            done("nothing of the new version runs; agents go on")

    def _stop_all(self) -> None:
        """The old server too, if it is still there: it may have been asked to make way a moment ago."""
        stopping = self._plan.options.stopping()
        if stopping:
            servers.run_command(stopping, os.environ)
        if self._plan.old is not None:
            servers.make_way(self._plan.old)

    def _take_back(self) -> None:
        with self._step("rollback data") as done:
            done(self._plan.database.take_back(self._plan.revision, self._backup))

    def _start_old(self) -> None:
        old, options = self._plan.old, self._plan.options
        if old is None:
            return
        with self._step("rollback start") as done:
            if old.alive:
                done(f"version {old.version} has never gone")
                return
            if options.rollback_command:
                servers.run_command(options.rollback_command, os.environ)
            else:
                self._start_directly(old)
            url = self._until_ready(old.version, besides=NOBODY, at_least=OLD_WITHIN_S)
            done(f"version {old.version} serves again: {url}")

    def _start_directly(self, old: servers.Server) -> None:
        if not self._plan.way_back:
            raise StartRefused(
                f"version {old.version} is no longer where it was: the new one was put in its place",
                mend="install the old one and start it; its data is as it wants it, and its agents wait for it",
            )
        self._started = old.program.start(old.arguments, self._plan.place.data_dir / LOG)

    def _until_ready(self, version: str, *, besides: int, at_least: float = 0.0) -> str:
        return servers.until_ready(
            self._plan.place,
            version=version,
            besides=besides,
            within_s=max(self._plan.options.within_s, at_least),
            started=self._started,
        )

    def _old_pid(self) -> int:
        old = self._plan.old
        return old.process.pid if old and old.process else NOBODY

    def _entry(self, old: servers.Server) -> Entry:
        plan = self._plan
        return Entry(
            stage="going_on", pid=self._old_pid(), prefix=old.program.prefix, arguments=old.arguments,
            cwd=str(old.program.cwd), version=old.version, revision=plan.revision, to_version=plan.to_version,
            managed=old.managed, began=plan.began,
        )  # fmt: skip

    @contextmanager
    def _step(self, name: str) -> Iterator[Done]:
        self._tell(Told(step=name, state="begun"))
        said = Done()
        try:
            yield said
        except TROUBLE as error:
            words = error.detail if isinstance(error, OvernightError) else str(error)
            mend = f" ({error.mend})" if isinstance(error, OvernightError) and error.mend else ""
            self._tell(Told(step=name, state="failed", message=f"{words}{mend}"))
            raise
        self._tell(Told(step=name, state="done", message=said.words))


class Done:
    """Takes the words that a step ends with."""

    words = ""

    def __call__(self, words: str) -> None:
        """Say them."""
        self.words = words
