"""What a run changed, for whoever asks: scopes, patches, ETags, no secrets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from overnight.domain.run import Run
from overnight.domain.spec import RunSpec
from overnight.domain.states import State
from overnight.engine.comparison import BASE, label
from overnight.engine.diff import Diffs
from overnight.engine.policy import RunPolicy
from overnight.errors import NotFound
from overnight.ids import HostId, RunId, SessionId
from overnight.workspaces.directories import DirectoryWorkspaces


class OneRun:
    """A database with one run in it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.runs = self

    async def read(self, query: Any) -> Any:
        return query(self)

    def get(self, run_id: str, _owner: str | None) -> Run:
        if run_id != self.run.id:
            raise NotFound("no such run")
        return self.run

    def secret_environment(self, _pk: int) -> dict[str, str]:
        return {"OVERNIGHT_VAR_KEY": "topsecret"}


class Scene:
    """A workspace and the run that works in it."""

    def __init__(self, root: Path) -> None:
        self.work = root / "work"
        self.work.mkdir()
        self.workspaces = DirectoryWorkspaces(
            roots=[self.work],
            data_dir=root / "data",
            run_folder=lambda run: root / "data" / run,
            home=root / "home",
        )
        self.database = OneRun(
            Run(pk=1, id=RunId("run_1"), owner="me", state=State.RUNNING, spec=RunSpec(goal="g", backend="b"),
                session_pk=1, session_id=SessionId("ses_1"), host_id=HostId("h"), workspace=str(self.work),
                created_at=0, updated_at=0)
        )  # fmt: skip
        self.diffs = Diffs(
            uow=cast("Any", self.database),
            workspaces=self.workspaces,
            policy=RunPolicy(default_backend="echo", hidden=("opsecret2",)),
            host_id=HostId("h"),
        )

    def turn(self, number: int) -> None:
        self.database.run = replace(self.database.run, turn=number)

    def snapshot(self, name: str) -> None:
        self.workspaces.shadow("run_1", self.work).snapshot(name)

    async def ask(self, scope: str, turn: int | None = None, path: str | None = None) -> dict[str, Any]:
        return dict((await self.diffs.diff("run_1", "me", scope=scope, turn=turn, path=path)).document)

    async def names(self, scope: str, turn: int | None = None) -> list[str]:
        return [file["path"] for file in (await self.ask(scope, turn))["files"]]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.anyio
async def test_each_scope_spans_what_it_says(scene: Scene) -> None:
    assert await scene.names("run") == []
    scene.snapshot(BASE)
    scene.turn(1)
    (scene.work / "one").write_text("1\n")
    assert await scene.names("run") == ["one"]
    assert await scene.names("turn", 1) == ["one"]
    scene.snapshot(label(1))
    scene.turn(2)
    (scene.work / "two").write_text("2\n2\n")
    assert await scene.names("turn", 1) == ["one"]
    assert await scene.names("turn", 2) == ["two"]
    assert await scene.names("uncommitted") == ["two"]
    answer = await scene.ask("run")
    assert answer["stats"] == {"changed": 2, "added": 3, "removed": 0}
    assert answer["truncated"] is False
    assert set(answer["files"][0]) == {"path", "kind", "bytes", "sha256", "added_lines", "removed_lines"}
    scene.snapshot(label(2))
    scene.database.run = replace(scene.database.run, state=State.COMPLETED)
    (scene.work / "later").write_text("by its owner")
    assert await scene.names("run") == ["one", "two"]
    assert await scene.names("uncommitted") == ["later"]


@pytest.mark.anyio
async def test_unknown_runs_and_turns_are_not_found_and_a_turn_without_snapshot_is_empty(
    scene: Scene,
) -> None:
    scene.snapshot(BASE)
    scene.turn(2)
    for turn in (0, 3):
        with pytest.raises(NotFound):
            await scene.ask("turn", turn)
    with pytest.raises(NotFound):
        await scene.diffs.diff("run_2", "me", scope="run", turn=None, path=None)
    assert await scene.names("turn", 1) == []


@pytest.mark.anyio
async def test_patches_show_no_secret_and_the_etag_follows_the_content(scene: Scene) -> None:
    scene.snapshot(BASE)
    (scene.work / "env").write_text("KEY=topsecret\nOTHER=opsecret2\nfine\x1b[2J\n")
    first = await scene.diffs.diff("run_1", "me", scope="run", turn=None, path="env")
    patch = str(first.document["patch"])
    assert "+KEY=[redacted]\n+OTHER=[redacted]\n+fine\n" in patch
    assert (await scene.diffs.diff("run_1", "me", scope="run", turn=None, path="env")).etag == first.etag
    (scene.work / "env").write_text("other\n")
    assert (await scene.diffs.diff("run_1", "me", scope="run", turn=None, path="env")).etag != first.etag
    assert (await scene.ask("run", path="../../etc/passwd"))["patch"] == ""
    assert (await scene.diffs.files("run_1", "me", scope="run", turn=None)).document["files"]


@pytest.mark.anyio
async def test_a_run_that_has_no_workspace_yet_has_changed_nothing(scene: Scene) -> None:
    scene.database.run = replace(scene.database.run, workspace=None)
    assert await scene.names("run") == []
    assert (await scene.ask("run", path="x"))["patch"] == ""
