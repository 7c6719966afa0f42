"""Watching a workspace: the agent's logs and questions, and its files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from overnight.clock import SystemClock
from overnight.domain.event import Draft
from overnight.domain.redaction import Redactor
from overnight.domain.spec import RunSpec, WatchSpec
from overnight.engine.telemetry import files as files_module
from overnight.engine.telemetry import logs as logs_module
from overnight.engine.telemetry import notify
from overnight.engine.telemetry.file_ledger import FileLedger
from overnight.engine.telemetry.files import FileWatch, Globs
from overnight.engine.telemetry.logs import LogWatch
from overnight.testing.signals import eventually
from overnight.workspaces.directories import DirectoryWorkspaces

SPEC = RunSpec(goal="g")


@pytest.fixture
def logs(tmp_path: Path, work: Path, workspaces: DirectoryWorkspaces) -> LogWatch:
    return _logs(tmp_path, work, workspaces)


def _logs(tmp_path: Path, work: Path, workspaces: DirectoryWorkspaces) -> LogWatch:
    return LogWatch(
        workspaces=workspaces, workspace=work, folder=tmp_path / "run", spec=SPEC, redactor=Redactor(["topsecret"]),
        clock=SystemClock(),
    )  # fmt: skip


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


class TestLogs:
    def test_what_is_added_is_told_once_with_its_tail(self, logs: LogWatch, work: Path) -> None:
        (work / "WORKLOG.md").write_text("old\n")
        logs.begin()
        assert logs.look() == []
        _append(work / "WORKLOG.md", "new topsecret \x1b[31mline\nnext\nha")
        (work / "DECISIONS.md").write_text("d\n")
        work_log, decision = logs.look()
        assert work_log == Draft(
            type="log.updated",
            data={"kind": "work", "path": "WORKLOG.md", "added_bytes": 29, "added_lines": 2,
                  "tail": "new [redacted] line\nnext"},
        )  # fmt: skip
        assert (decision.data["kind"], decision.data["added_lines"]) == ("decision", 1)
        assert logs.look() == []
        _append(work / "WORKLOG.md", "lf\n")
        (rest,) = logs.look()
        assert rest.data["tail"] == "half"
        assert logs.look(final=True) == []

    def test_a_half_line_at_the_end_is_told_at_last(self, logs: LogWatch, work: Path) -> None:
        logs.begin()
        (work / "WORKLOG.md").write_text("only half")
        assert logs.look() == []
        (draft,) = logs.look(final=True)
        assert (draft.data["added_lines"], draft.data["tail"]) == (1, "only half")
        assert logs.look() == []
        _append(work / "WORKLOG.md", "\nnext\n")
        (draft,) = logs.look()
        assert draft.data["tail"] == "next"

    def test_an_old_done_completes_nothing_also_after_a_restart_and_a_rewrite(
        self, logs: LogWatch, work: Path, tmp_path: Path, workspaces: DirectoryWorkspaces
    ) -> None:
        (work / "WORKLOG.md").write_text("x\nDONE\n")
        logs.begin()
        assert logs.added_lines() == ()
        _append(work / "WORKLOG.md", "more\n")
        again = _logs(tmp_path, work, workspaces)
        again.begin()
        assert again.added_lines() == ("more",)
        assert len(again.look()) == 1
        (work / "WORKLOG.md").write_text("rewritten\nDONE\n")
        assert again.added_lines() == ("rewritten",)
        (work / "WORKLOG.md").unlink()
        assert again.added_lines() == ()
        (work / "WORKLOG.md").write_text("DONE\nDONE\n")
        assert again.added_lines() == ("DONE",)

    def test_a_link_or_a_fifo_in_place_of_a_log_is_no_log(
        self, logs: LogWatch, work: Path, tmp_path: Path
    ) -> None:
        logs.begin()
        (tmp_path / "elsewhere").write_text("DONE\n")
        (work / "WORKLOG.md").symlink_to(tmp_path / "elsewhere")
        os.mkfifo(work / "DECISIONS.md")
        assert logs.look(final=True) == []
        assert logs.added_lines() == ()

    def test_questions_are_asked_without_their_bullets(self, logs: LogWatch, work: Path) -> None:
        (work / "QUESTIONS.md").write_text("- old?\n")
        logs.begin()
        _append(
            work / "QUESTIONS.md", "# Questions\n\n---\n- [ ] Which port?\n2. topsecret ok?\nplain?\nunfinish"
        )
        drafts = logs.look()
        assert [d.type for d in drafts] == ["question.asked"] * 3
        assert [d.data["text"] for d in drafts] == ["Which port?", "[redacted] ok?", "plain?"]
        assert [d.data["text"] for d in logs.look(final=True)] == ["unfinish"]

    def test_a_huge_log_is_looked_at_from_its_end(
        self, logs: LogWatch, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs_module, "MAX_BYTES", 1000)
        (work / "WORKLOG.md").write_text("".join(f"line {n}\n" for n in range(200)))
        logs.begin()
        _append(work / "WORKLOG.md", "DONE\n")
        assert "DONE" in logs.added_lines()
        assert len(logs.added_lines()) < 5

    @pytest.mark.anyio
    async def test_watching_tells_while_the_turn_runs_and_loses_nothing_when_cancelled(
        self, logs: LogWatch, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs_module, "LOOK_S", 0.01)
        logs.begin()
        told: list[Draft] = []
        task = asyncio.ensure_future(logs.watch(told.extend))
        (work / "WORKLOG.md").write_text("one\n")
        await eventually(lambda: bool(told), what="an update")
        real = logs.look
        looking, released = threading.Event(), threading.Event()

        def slow(*, final: bool = False) -> list[Draft]:
            looking.set()
            released.wait(10)
            return real(final=final)

        monkeypatch.setattr(logs, "look", slow)
        _append(work / "WORKLOG.md", "two\n")
        await eventually(looking.is_set, what="a look in the middle of which it is cancelled")
        task.cancel()
        released.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        told += real(final=True)
        assert [d.data["tail"] for d in told] == ["one", "two"]


class Watched:
    """A file watch that runs, and what it has told."""

    def __init__(self, workspaces: DirectoryWorkspaces, work: Path, spec: WatchSpec) -> None:
        self.told: list[Draft] = []
        self.ledger = FileLedger(str(work), watched=True)
        self.watch = FileWatch(
            workspaces=workspaces, workspace=work, ledger=self.ledger, spec=spec, clock=SystemClock()
        )

    def paths(self) -> dict[str, str]:
        return {str(d.data["path"]): d.type for d in self.told}

    async def saw(self, *paths: str) -> None:
        await eventually(lambda: set(paths) <= set(self.paths()), what=f"{paths} in {self.paths()}")


@contextlib.asynccontextmanager
async def _watching(
    workspaces: DirectoryWorkspaces, work: Path, spec: WatchSpec | None = None
) -> AsyncIterator[Watched]:
    watched = Watched(workspaces, work, spec or WatchSpec())

    def add(drafts: Sequence[Draft]) -> None:
        watched.told += drafts

    task = asyncio.ensure_future(watched.watch.watch(add))
    try:
        numbers = itertools.count()

        def begun() -> bool:
            (work / "ready").write_text(str(next(numbers)))
            return bool(watched.told)

        await eventually(begun, what="watching to tell something")
        yield watched
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(params=["kernel", "watchfiles"])
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "SETTLE_S", 0.02)
    if request.param == "watchfiles":
        monkeypatch.setattr(notify, "available", lambda: False)


@pytest.mark.anyio
@pytest.mark.usefixtures("_quick")
class TestFiles:
    async def test_changes_are_told_once_with_size_and_hash(
        self, workspaces: DirectoryWorkspaces, work: Path
    ) -> None:
        (work / "there").write_text("x")
        async with _watching(workspaces, work) as watched:
            (work / "a.txt").write_text("hello")
            (work / "there").unlink()
            await watched.saw("a.txt", "there")
            found = next(d for d in watched.told if d.data["path"] == "a.txt")
            digest = hashlib.sha256(b"hello").hexdigest()
            assert found == Draft(
                type="file.written",
                data={"path": "a.txt", "kind": "created", "bytes": 5, "sha256": digest, "added_lines": None,
                      "removed_lines": None},
            )  # fmt: skip
            assert watched.paths()["there"] == "file.deleted"
            (work / "a.txt").write_text("hello")
            (work / "b.txt").write_text("x")
            await watched.saw("b.txt")
            assert sum(d.data["path"] == "a.txt" for d in watched.told) == 1

    async def test_new_folders_are_entered_and_left_out_ones_are_not(
        self, workspaces: DirectoryWorkspaces, work: Path
    ) -> None:
        if not notify.available():
            # watchfiles misses what is made in a folder at once after the folder on Linux; it is not used there.
            for folder in (".git", "gen/deep", "node_modules/x", "src/deep"):
                (work / folder).mkdir(parents=True)
        spec = WatchSpec(include=("**/*.py", "ready"), exclude=(".git/**", "gen/**"))
        async with _watching(workspaces, work, spec) as watched:
            for folder in (".git", "gen/deep", "node_modules/x", "src/deep"):
                (work / folder).mkdir(parents=True, exist_ok=True)
                (work / folder / "a.py").write_text("x")
            (work / "src" / "b.txt").write_text("x")
            await watched.saw("src/deep/a.py")
            (work / "src" / "deep" / "c.py").write_text("y")
            await watched.saw("src/deep/c.py")
            assert set(watched.paths()) == {"ready", "src/deep/a.py", "src/deep/c.py"}


@pytest.mark.anyio
@pytest.mark.skipif(not notify.available(), reason="only Linux's own notices are blind to links")
async def test_links_are_not_followed(
    workspaces: DirectoryWorkspaces, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "SETTLE_S", 0.02)
    outside = tmp_path / "outside"
    outside.mkdir()
    (work / "before").symlink_to(outside)
    (work / "everything").symlink_to("/")
    async with _watching(workspaces, work) as watched:
        (work / "after").symlink_to(outside)
        (work / "file").symlink_to(outside / "secret")
        (outside / "secret").write_text("x")
        (work / "seen").write_text("x")
        await watched.saw("seen")
        assert set(watched.paths()) == {"ready", "seen"}


async def _read(tree: notify.Tree) -> dict[str, notify.Sign]:
    await asyncio.wait_for(tree.news.wait(), 30)
    tree.news.clear()
    return tree.read()


@pytest.mark.anyio
@pytest.mark.skipif(not notify.available(), reason="Linux only")
async def test_a_tree_is_bounded_and_tells_deletions_and_moves(work: Path) -> None:
    for number in range(20):
        (work / f"d{number}").mkdir()
    small, tree = notify.Tree(work, lambda _path: True, most=5), notify.Tree(work, lambda path: path != "d1")
    try:
        small.open()
        tree.open()
        assert (small.folders, tree.folders) == (5, 20)
        small.close()
        small.close()
        (work / "d0" / "x").write_text("x")
        (work / "d1" / "x").write_text("x")
        assert await _read(tree) == {"d0/x": "created"}
        (work / "d0").rename(work / "moved")
        assert await _read(tree) == {"moved/x": "created"}
        (work / "moved" / "x").unlink()
        assert await _read(tree) == {"moved/x": "deleted"}
        assert tree.folders == 20
    finally:
        tree.close()


@pytest.mark.anyio
@pytest.mark.skipif(not notify.available(), reason="Linux only")
async def test_many_trees_share_one_descriptor_and_give_it_back(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    trees = []
    for number in range(200):
        (tmp_path / str(number)).mkdir()
        trees.append(notify.Tree(tmp_path / str(number), lambda _path: True))
        trees[-1].open()
    twin = notify.Tree(tmp_path / "7", lambda _path: True)
    twin.open()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    (tmp_path / "7" / "x").write_text("x")
    assert await _read(trees[7]) == await _read(twin) == {"x": "created"}
    trees[7].close()
    (tmp_path / "7" / "y").write_text("x")
    assert await _read(twin) == {"y": "created"}
    assert trees[8].read() == {}
    for tree in [*trees, twin]:
        tree.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.anyio
@pytest.mark.skipif(not notify.available(), reason="Linux only")
async def test_a_storm_of_changes_leaves_the_loop_to_others(work: Path) -> None:
    tree = notify.Tree(work, lambda _path: True)
    tree.open()
    try:
        for number in range(20_000):
            (work / f"f{number % 100}").touch()
        slow = 0.0
        for _ in range(200):
            start = time.thread_time()
            await asyncio.sleep(0)
            slow = max(slow, time.thread_time() - start)
        assert slow < 0.5
        assert len(await _read(tree)) <= 100
    finally:
        tree.close()


@pytest.mark.parametrize(
    "glob, inside, outside",
    [
        ("**", ["a", "a/b", "ü\n"], []),
        ("*", ["a", ".a"], ["a/b"]),
        ("src/**", ["src/a", "src/a/b"], ["src", "xsrc/a", "a/src/b"]),
        ("**/*.py", ["a.py", "x/y/a.py"], ["a.pyc", "a.py/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "b"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("./a.b/", ["a.b"], ["axb"]),
        ("[a]{b}(c)|+", ["[a]{b}(c)|+"], ["a", "b"]),
    ],
)
def test_globs(glob: str, inside: list[str], outside: list[str]) -> None:
    globs = Globs(WatchSpec(include=(glob,), exclude=()))
    assert all(globs.file(path) for path in inside)
    assert not any(globs.file(path) for path in outside)


def test_no_glob_is_slow() -> None:
    globs = Globs(WatchSpec(include=("*a" * 100,), exclude=("**/" * 50 + "x",)))
    start = time.thread_time()
    globs.file("a" * 5000 + "b")
    assert time.thread_time() - start < 2


def test_ordinary_exclusions_keep_whole_folders_out() -> None:
    globs = Globs(WatchSpec())
    assert not globs.folder(".git")
    assert not globs.folder("sub/.git")
    assert not globs.folder("x/node_modules")
    assert globs.folder("src")
    found: Any = globs.file(".git/config")
    assert not found
